"""The readers of request bodies: an SDP offer alone, or with a session as ``multipart/form-data``, or JSON. Bodies are
bounded, and a refusal names the field at fault.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Never, TypeVar

import aiohttp
import msgpack
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edge.signaling.errors import Refusal

__all__ = [
    "MAX_BODY_BYTES",
    "Offer",
    "check_intent",
    "merged",
    "model_name",
    "query",
    "read",
    "read_json",
    "read_offer",
    "session_of",
]

MAX_BODY_BYTES = 64 * 1024
_BODY_S = 10.0  # within which all of it has come
_MAX_DEPTH = 64  # who reads it need not think of its stack
_PIECES = ("audio", "input", "output")  # what a session consists of: each names some of its fields; all else is whole
_INTENTS = ("", "conversation", "realtime")
_T = TypeVar("_T")

# They quote what a client sent, and would be a line on standard error for each that is new.
for _odd in (aiohttp.BadContentDispositionHeader, aiohttp.BadContentDispositionParam):
    warnings.simplefilter("ignore", _odd)
_MODEL = re.compile(r"[\x21-\x7e]{0,128}")


@dataclass(frozen=True, slots=True)
class Offer:
    """An SDP offer, and the session that came with it or {}."""

    sdp: str
    session: dict[str, Any]


async def read(request: web.Request) -> bytes:
    """The body. Raises Refusal: 400, 408, 413 or 415."""
    return await _whole(request, request.read)


async def read_offer(request: web.Request) -> Offer:
    """The body of a call. Raises Refusal: 400, 408, 413 or 415."""
    if request.content_type == "application/sdp":
        return Offer(_sdp(await read(request)), {})
    if request.content_type != "multipart/form-data":
        message = f"Content-Type is {request.content_type}, expected application/sdp or multipart/form-data"
        raise Refusal(415, message, param="content-type", headers={"Accept-Post": "application/sdp"})
    try:
        parts = await _whole(request, request.post)
        fields = {name: [_bytes(part) for part in parts.getall(name, ())] for name in ("sdp", "session")}
    except (
        ValueError,
        LookupError,
        AssertionError,
        RuntimeError,
        HttpProcessingError,
    ):  # of aiohttp, for what is not multipart
        raise Refusal(400, "the multipart body cannot be read", param="body") from None
    for name, values in fields.items():
        if len(values) > 1:
            raise _twice(name)
    if not fields["sdp"]:
        raise Refusal(400, "Missing required parameter: 'sdp'.", code="missing_required_parameter", param="sdp")
    session = _object(fields["session"][0], "session") if fields["session"] else {}
    return Offer(_sdp(fields["sdp"][0]), session_of(session))


async def read_json(request: web.Request) -> dict[str, Any]:
    """The object in a JSON body, {} where there is no body. Raises Refusal."""
    body = await read(request)
    if body and request.content_type != "application/json":
        message = f"Content-Type is {request.content_type}, expected application/json"
        raise Refusal(415, message, param="content-type")
    return _object(body, "body") if body else {}


async def _whole(request: web.Request, reading: Callable[[], Awaitable[_T]]) -> _T:
    encoding = request.headers.get("Content-Encoding", "identity").strip()
    if encoding.lower() != "identity":  # a few bytes could become many
        message = f"Content-Encoding is {encoding}, expected none"
        raise Refusal(415, message, param="content-encoding", headers={"Accept-Encoding": "identity"})
    try:
        async with asyncio.timeout(_BODY_S):
            return await reading()
    except TimeoutError:
        message = f"the body has not come within {_BODY_S:.0f} s"
        raise Refusal(408, message, param="body") from None
    except web.RequestPayloadError:
        raise Refusal(400, "the body is not as its headers say", param="body") from None


def query(request: web.Request, name: str) -> str | None:
    """The value of one field of the query, or None without it. Raises Refusal where it is there twice."""
    values = request.query.getall(name, ())
    if len(values) > 1:
        raise _twice(name)
    return values[0] if values else None


def check_intent(request: web.Request) -> None:
    """Raises Refusal where the request asks for a kind of session that is not served."""
    intent = query(request, "intent") or ""
    if intent == "transcription":
        raise _no_transcription("intent")
    if intent not in _INTENTS:
        raise _wrong("intent", " or ".join(_INTENTS[1:]))


def session_of(session: object) -> dict[str, Any]:
    """A session configuration that can be passed on; only the transceiver judges its content. Raises Refusal."""
    if not isinstance(session, dict):
        raise _wrong("session", "an object")
    if session.get("type", "realtime") == "transcription":
        raise _no_transcription("session.type")
    if session.get("type", "realtime") != "realtime":
        raise _wrong("session.type", "realtime")
    model_name(session.get("model", ""), "session.model")
    try:
        msgpack.packb(session)
    except (ValueError, OverflowError):  # half a surrogate pair, or a number of more than 64 bits
        raise _wrong("session", "text and numbers that can be sent on") from None
    if _is_deeper(session, _MAX_DEPTH):
        raise _wrong("session", f"at most {_MAX_DEPTH} objects and arrays in each other")
    return session


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A session made of both; where both name a field, ``over`` wins."""
    out = {**under, **over}
    for piece in _PIECES:
        if isinstance(under.get(piece), dict) and isinstance(over.get(piece), dict):
            out[piece] = merged(under[piece], over[piece])
    return out


def model_name(value: object, param: str = "model") -> str:
    """``value``, if it can be a model's name. Raises Refusal otherwise."""
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise _wrong(param, "a name of at most 128 ASCII characters")
    return value


def _is_deeper(value: object, than: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return than < 0 or any(_is_deeper(each, than - 1) for each in inner)


def _no_transcription(param: str) -> Refusal:
    message = "Sessions that only transcribe are not served here: a session is of type 'realtime'."
    return Refusal(400, message, code="invalid_value", param=param)


def _twice(param: str) -> Refusal:
    return Refusal(400, f"Duplicate parameter: '{param}' may be there once.", code="invalid_value", param=param)


def _wrong(param: str, expected: str) -> Refusal:
    return Refusal(400, f"Invalid value for '{param}': expected {expected}.", code="invalid_value", param=param)


def _object(text: bytes, param: str) -> dict[str, Any]:
    def constant(name: str) -> Never:
        raise ValueError(f"{name} is not JSON")

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):
            raise ValueError(f"{digits[:32]} is too large")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("an object has the same name twice")
        return found

    try:
        value = json.loads(text.decode(), parse_constant=constant, parse_float=number, object_pairs_hook=once)
    except (ValueError, RecursionError) as e:
        raise Refusal(400, f"The {param} is not JSON: {e}", code="invalid_json", param=param) from None
    if not isinstance(value, dict):
        raise _wrong(param, "an object")
    return value


def _bytes(part: Any) -> bytes:
    if isinstance(part, web.FileField):
        return part.file.read()
    return part.encode() if isinstance(part, str) else bytes(part)


def _sdp(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "the SDP is not UTF-8", code="invalid_offer", param="sdp") from None
