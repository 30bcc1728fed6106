"""The command ``firsthop handoff``: it gives calls another model while they last, by this host's signaling."""

from __future__ import annotations

import json
import ssl
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

import click

from edge.apikeys import tokens
from firsthop.options import config_option
from runtime.address import Address
from runtime.config import Config, load
from runtime.errors import ConfigError

__all__ = ["handoff"]

_PATH = "/v1/realtime/calls"
_PATIENCE_S = 60.0  # signaling answers within 45
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class _Silent(Exception):
    """The error that signaling does not answer."""


class _Refused(Exception):
    """The error that signaling refuses; ``code`` is that of its answer."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Call:
    """A call by its public id, and the API keys on whose account it may be."""

    id: str
    keys: tuple[str, ...]


class _Signaling:
    """The signaling of this host, as its configuration has it. Raises ConfigError."""

    def __init__(self, config: Config) -> None:
        edge = config.edge
        here = Address.of(_ANYWHERE.get(edge.http.host, edge.http.host), edge.http.port)
        self.keys = tokens(edge.api_keys)
        self._base = f"{'https' if edge.tls_certificate else 'http'}://{here}"
        # No proxy: what is asked is this host.
        ways: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if edge.tls_certificate is not None:
            ways.append(urllib.request.HTTPSHandler(context=_trusting(edge.tls_certificate)))
        self._opener = urllib.request.build_opener(*ways)

    def calls(self, model: str) -> tuple[list[_Call], bool]:
        """The calls of a model, and whether these are all. Raises _Silent or _Refused."""
        found: list[_Call] = []
        whole = True
        for key in self.keys:
            answer = self._ask(key, f"{_PATH}?{urlencode({'model': model})}")
            found += [_Call(call["id"], (key,)) for call in answer["data"]]
            whole = whole and not answer["has_more"]
        return found, whole

    def hand_off(self, call: _Call, model: str) -> None:
        """Gives a call that model. Raises _Silent or _Refused."""
        refused = _Refused("call_id_not_found", "no such call")
        for key in call.keys:
            try:
                self._ask(key, f"{_PATH}/{quote(call.id, safe='')}/handoff", {"model": model})
                return
            except _Refused as e:
                # A call on another account is not found, and a key may have models of its own.
                if e.code not in ("call_id_not_found", "model_not_found"):
                    raise
                refused = e if e.code == "model_not_found" else refused
        raise refused

    def _ask(self, key: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, data, headers)  # noqa: S310  # the scheme is our own
        try:
            with self._opener.open(request, timeout=_PATIENCE_S) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as e:
            raise _refusal(e) from None
        except (OSError, HTTPException, ValueError) as e:
            raise _Silent(f"signaling does not answer on {self._base}: {e}") from None


@click.command()
@click.argument("call", required=False)
@click.argument("model", required=False)
@click.option("--from", "old", metavar="MODEL", help="All calls of this model, one after the other.")
@click.option("--to", "new", metavar="MODEL", help="The model that they get.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def handoff(
    call: str | None, model: str | None, old: str | None, new: str | None, config: Path | None, as_json: bool
) -> None:
    """Give CALL, a call's id, to MODEL while it lasts; or all calls of one model to another: --from MODEL --to MODEL

    The new model is warmed beside the present one, with the conversation so far, and takes over when nobody speaks, or
    after ten seconds. Where it does not get ready, the present one stays. The exit code is 0 when every call was handed
    off, 1 when one was not or signaling does not answer, 2 for a wrong command line or configuration.
    """
    one, many = call and model, old and new
    if bool(one) == bool(many) or (one and (old or new)) or (many and call):
        raise click.UsageError("either CALL MODEL, or --from MODEL --to MODEL")
    try:
        signaling = _Signaling(load(config))
        if many:
            calls, whole = signaling.calls(str(old))
        else:
            calls, whole = [_Call(str(call), tuple(signaling.keys))], True
        stay = _hand_off(signaling, calls, str(new or model), quiet=as_json)
    except ConfigError as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(2)
    except (_Silent, _Refused) as e:
        click.echo(f"firsthop: {e}", err=True)
        sys.exit(1)
    if as_json:
        told = {"calls": len(calls), "handed_off": len(calls) - len(stay), "stay": stay, "complete": whole}
        click.echo(json.dumps(told, indent=2))
    elif not calls:
        click.echo(f"no call of {old}")
    if not whole:
        click.echo("firsthop: not all transceivers have told their calls: once more may find others", err=True)
    sys.exit(1 if stay or not whole else 0)


def _hand_off(signaling: _Signaling, calls: Iterable[_Call], model: str, *, quiet: bool) -> list[dict[str, str]]:
    """Hands the calls off, and says how far that is. Returns those that stay, with the reasons."""
    stay = []
    calls = list(calls)
    for i, call in enumerate(calls, 1):
        said = f"{i} of {len(calls)}: {call.id} has {model}"
        try:
            signaling.hand_off(call, model)
        except _Refused as e:
            stay.append({"call": call.id, "code": e.code, "why": str(e)})
            said = f"{i} of {len(calls)}: {call.id} stays as it is: {e}"
        if not quiet:
            click.echo(said)
    return stay


def _trusting(certificate: Path) -> ssl.SSLContext:
    """A context for the server that has this certificate, by whatever name it is reached. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ValueError) as e:
        raise ConfigError(f"edge.tls_certificate {certificate}: {e}") from None
    return context


def _refusal(error: HTTPError) -> _Refused:
    try:
        told = json.loads(error.read())["error"]
        return _Refused(str(told["code"]), str(told["message"]))
    except (ValueError, TypeError, KeyError, OSError):
        return _Refused(f"http_{error.code}", f"HTTP {error.code}")
