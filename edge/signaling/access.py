"""The identity of a request: the holder of an API key, or of an ephemeral key that was made with one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from edge.apikeys import ANY_MODEL, ApiKeys
from edge.signaling.bodies import merged
from edge.signaling.ephemeral_keys import PREFIX, EphemeralKey, EphemeralKeys, ExpiredError, ForgedError
from edge.signaling.errors import Refusal, unauthorized
from wire.report import name_and_version

__all__ = ["KEY_PROTOCOL", "Access", "Caller", "offered_protocols"]

# Browsers cannot set a WebSocket's headers: their key comes as one of the subprotocols that they offer.
KEY_PROTOCOL = "openai-insecure-api-key."


@dataclass(frozen=True, slots=True)
class Caller:
    """The one who asks. ``key`` is the id of the API key that answers for it, ``models`` are those that it may use,
    ``default`` is the one where none is named ("" for the transceiver's own), ``token`` is the ephemeral key, if one
    was shown."""

    key: str
    models: Sequence[str]
    default: str = ""
    token: EphemeralKey | None = None

    @property
    def token_id(self) -> str:
        """The id of the ephemeral key; "" for an API key."""
        return self.token.id if self.token else ""

    @property
    def locked(self) -> list[str] | None:
        """The parts of the session that the ephemeral key's maker has locked; None where there are none."""
        return list(self.token.locked) if self.token is not None and self.token.locked else None

    def may(self, model: str) -> bool:
        """Whether the caller may use that model."""
        if self.token is not None and self.token.model:
            return _covers(self.token.model, model)
        return any(_covers(each, model) for each in self.models)

    def model(self, asked: str) -> str:
        """The model that the caller gets. Raises Refusal where it may not have that one, or its ephemeral key is for
        another."""
        if self.token is not None and self.token.model:
            if asked and not _covers(self.token.model, asked):
                message = f"This ephemeral key is for the model {self.token.model} and does not have access to {asked}."
                raise Refusal(403, message, code="model_not_found", param="model")
            asked = asked or self.token.model
        if not asked:
            return self.default
        if not any(_covers(each, asked) for each in self.models):
            message = f"no agent called {asked!r} for this API key: there is {', '.join(self.models)}"
            raise Refusal(404, message, code="model_not_found", param="model")
        return asked

    def session(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The session that the caller gets: what its ephemeral key says stands. Raises Refusal where it asks for a
        locked part."""
        if self.token is None:
            return asked
        for name in self.token.locked:
            if name in asked:
                message = f"'session.{name}' was set by who made this ephemeral key, and is not yours to change."
                raise Refusal(403, message, code="locked", param=f"session.{name}")
        return merged(asked, self.token.session)


def _covers(granted: str, asked: str) -> bool:
    """Whether who may use the model ``granted`` may use ``asked``: that one, or a version of it."""
    return granted in (ANY_MODEL, asked, name_and_version(asked)[0])


class Access:
    """The check of who asks: it knows the API keys and opens ephemeral ones. ``models`` are for the keys that have no
    list of their own; ``clock`` gives seconds since 1970."""

    def __init__(
        self, api_keys: ApiKeys, tokens: EphemeralKeys, models: Sequence[str], clock: Callable[[], float] = time.time
    ) -> None:
        self._api_keys = api_keys
        self._tokens = tokens
        self._models = models
        self.clock = clock

    def caller(self, request: web.Request) -> Caller:
        """The caller that the request's Authorization or subprotocol names. Raises Refusal, 401."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        shown = shown.strip() if scheme.lower() == "bearer" else ""
        if not shown:
            offered = [p.removeprefix(KEY_PROTOCOL) for p in offered_protocols(request) if p.startswith(KEY_PROTOCOL)]
            shown = offered[0] if offered else ""
        if not shown:
            raise unauthorized("You didn't provide an API key: send Authorization: Bearer and one of this edge's keys.")
        key = self._api_keys.find(shown)
        if key is not None:
            return self._of(key)
        if not shown.startswith(PREFIX):
            raise unauthorized("Incorrect API key provided: it is not one of this edge's keys.")
        try:
            token = self._tokens.open(shown, self.clock())
        except ForgedError:
            raise unauthorized("Incorrect ephemeral key provided: no edge of this cluster made it.") from None
        except ExpiredError:
            raise unauthorized("The ephemeral key has expired: make another.", "token_expired") from None
        if not self._api_keys.has(token.key):
            raise unauthorized("Incorrect ephemeral key provided: the API key that made it is no longer valid.")
        return self._of(token.key, token)

    def _of(self, key: str, token: EphemeralKey | None = None) -> Caller:
        own = self._api_keys.models(key)
        if not own:
            return Caller(key, self._models, token=token)
        return Caller(key, own, "" if own[0] == ANY_MODEL else own[0], token)

    def holder(self, request: web.Request) -> Caller:
        """The same for requests that need an API key. Raises Refusal."""
        caller = self.caller(request)
        if caller.token is not None:
            raise unauthorized("An ephemeral key cannot do this: use an API key.")
        return caller

    def make(
        self, caller: Caller, model: str, session: dict[str, object], seconds: int, locked: tuple[str, ...] = ()
    ) -> tuple[str, int]:
        """An ephemeral key on the caller's account, and when it expires. Raises ValueError for a session too large."""
        token = EphemeralKey(caller.key, model, session, int(self.clock()) + seconds, locked)
        return self._tokens.make(token), token.expires_at


def offered_protocols(request: web.Request) -> list[str]:
    """The WebSocket subprotocols that a client offers, in its order (RFC 6455 section 11.3.4)."""
    return [p.strip() for line in request.headers.getall("Sec-WebSocket-Protocol", []) for p in line.split(",")]
