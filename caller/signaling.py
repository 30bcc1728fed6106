"""The HTTP side of a call: offer up, answer and Location down, hang-up at the end."""

from __future__ import annotations

import asyncio
import errno
import json
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import aiohttp

from caller.result import CallError

__all__ = ["Placed", "Token", "calls_url", "hang_up", "place"]

CALLS_PATH = "/v1/realtime/calls"
_HANG_UPS, _AGAIN_S = 4, 0.5  # as an edge needs to find a transceiver again


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and its source, so that an error can name the place to look."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A call that the server took: its answer, and its own URL where it gave a Location."""

    sdp: str
    location: str | None

    @property
    def call_id(self) -> str | None:
        """The last segment of the Location."""
        return urlsplit(self.location).path.rstrip("/").rpartition("/")[2] if self.location else None


def calls_url(url: str, model: str) -> str:
    """``url`` with /v1/realtime/calls where it has no path, and ``model`` unless it names one already.

    Raises ValueError for anything but http or https with a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL, such as http://127.0.0.1:8080")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.setdefault("model", model)
    path = parts.path if parts.path.strip("/") else CALLS_PATH
    return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))


async def place(http: aiohttp.ClientSession, url: str, token: Token | None, sdp: str) -> Placed:
    """Posts the offer. Raises CallError with the reason of a refusal."""
    headers = {"Content-Type": "application/sdp", **_authorization(token)}
    try:
        async with http.post(url, data=sdp.encode(), headers=headers) as response:
            body = await response.text()
            if response.status != 201:
                raise CallError("signaling", _refusal(response, body, token))
            location = response.headers.get("Location")
            return Placed(body, urljoin(str(response.url), location) if location else None)
    except (aiohttp.ClientError, UnicodeDecodeError) as e:
        raise CallError("signaling", _unreachable(url, e)) from None


async def hang_up(http: aiohttp.ClientSession, location: str, token: Token | None) -> None:
    """Ends the call; a server that cannot reach it now (503) is asked again a few times. Raises CallError when the
    server does not agree."""
    url = urljoin(location.rstrip("/") + "/", "hangup")
    try:
        for left in reversed(range(_HANG_UPS)):
            async with http.post(url, headers=_authorization(token)) as response:
                if response.status < 400:
                    return
                if response.status != 503 or not left:
                    what = _message(await response.text())
                    raise CallError("hangup", f"hang-up refused with HTTP {response.status}{what}")
            await asyncio.sleep(_AGAIN_S)
    except aiohttp.ClientError as e:
        raise CallError("hangup", _unreachable(url, e)) from None


def _authorization(token: Token | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.value}"} if token else {}


def _refusal(response: aiohttp.ClientResponse, body: str, token: Token | None) -> str:
    what = _message(body)
    if response.status in (401, 403):
        if token is None:
            return f"HTTP {response.status}, no token was sent: give --token-file or FIRSTHOP_TOKEN{what}"
        return f"HTTP {response.status}, the token from {token.source} was refused{what}"
    if response.status == 503:
        after = response.headers.get("Retry-After")
        return f"HTTP 503, the server is full{f', try again in {after} s' if after else ''}{what}"
    if response.status == 404:
        return f"HTTP 404, no calls are taken at {response.url.with_query(None)}{what}"
    return f"HTTP {response.status} instead of 201{what}"


def _message(body: str) -> str:
    """The server's own words on one line, from the API's error object or as they are."""
    try:
        text = str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        text = "" if body.lstrip().startswith("<") else body
    line = " ".join(text.split())[:200]
    return f": {line}" if line else ""


def _unreachable(url: str, error: Exception) -> str:
    parts = urlsplit(url)
    if isinstance(error, aiohttp.ClientConnectorError):
        if error.os_error.errno == errno.EADDRNOTAVAIL or "local address" in str(error.os_error):
            return f"no way from --bind to {parts.netloc}: name an address of this machine, of the same family"
        return f"nothing answers at {parts.scheme}://{parts.netloc}: {error.os_error.strerror or error.os_error}"
    return f"HTTP with {parts.netloc} failed: {error or type(error).__name__}"
