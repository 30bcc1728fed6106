"""What clients send: an SDP offer alone, or with a session as ``multipart/form-data``, or JSON. Bounded, and refused in
the words of the field at fault."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Never

import msgpack
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from edge.signaling.errors import Refusal

__all__ = ["MAX_BODY_BYTES", "Offer", "model_name", "read_json", "read_offer", "session_of"]

MAX_BODY_BYTES = 64 * 1024
_SESSION_TYPES = ("realtime", "transcription")
_MAX_DEPTH = 64  # who reads it need not think of its stack
_MODEL = re.compile(r"[\x21-\x7e]{0,128}")


@dataclass(frozen=True, slots=True)
class Offer:
    """An SDP offer, and the session that came with it or {}."""

    sdp: str
    session: dict[str, Any]


async def read_offer(request: web.Request) -> Offer:
    """The body of a call. Raises Refusal: 400, 413 or 415."""
    if request.content_type == "application/sdp":
        return Offer(_sdp(await request.read()), {})
    if request.content_type != "multipart/form-data":
        message = f"Content-Type is {request.content_type}, expected application/sdp or multipart/form-data"
        raise Refusal(415, message, param="content-type", headers={"Accept-Post": "application/sdp"})
    try:
        parts = await request.post()
        fields = {name: _bytes(parts[name]) for name in ("sdp", "session") if name in parts}
    except (ValueError, LookupError, AssertionError, HttpProcessingError):  # of aiohttp, for what is not multipart
        raise Refusal(400, "the multipart body cannot be read", param="body") from None
    if "sdp" not in fields:
        raise Refusal(400, "Missing required parameter: 'sdp'.", code="missing_required_parameter", param="sdp")
    session = _object(fields["session"], "session") if "session" in fields else {}
    return Offer(_sdp(fields["sdp"]), session_of(session))


async def read_json(request: web.Request) -> dict[str, Any]:
    """The object in a JSON body, {} where there is no body. Raises Refusal."""
    body = await request.read()
    if body and request.content_type != "application/json":
        message = f"Content-Type is {request.content_type}, expected application/json"
        raise Refusal(415, message, param="content-type")
    return _object(body, "body") if body else {}


def session_of(session: object) -> dict[str, Any]:
    """A session configuration that can be passed on; what it says is the transceiver's to judge. Raises Refusal."""
    if not isinstance(session, dict):
        raise _wrong("session", "an object")
    if session.get("type", "realtime") not in _SESSION_TYPES:
        raise _wrong("session.type", " or ".join(_SESSION_TYPES))
    model_name(session.get("model", ""), "session.model")
    try:
        msgpack.packb(session)
    except (ValueError, OverflowError):  # half a surrogate pair, or a number of more than 64 bits
        raise _wrong("session", "text and numbers that can be sent on") from None
    if _is_deeper(session, _MAX_DEPTH):
        raise _wrong("session", f"at most {_MAX_DEPTH} objects and arrays in each other")
    return session


def model_name(value: object, param: str = "model") -> str:
    """``value`` where it can be a model's name. Raises Refusal."""
    if not isinstance(value, str) or not _MODEL.fullmatch(value):
        raise _wrong(param, "a name of at most 128 ASCII characters")
    return value


def _is_deeper(value: object, than: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return than < 0 or any(_is_deeper(each, than - 1) for each in inner)


def _wrong(param: str, expected: str) -> Refusal:
    return Refusal(400, f"Invalid value for '{param}': expected {expected}.", code="invalid_value", param=param)


def _object(text: bytes, param: str) -> dict[str, Any]:
    def constant(name: str) -> Never:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(text, parse_constant=constant)
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
