"""The frames between the engine and its clients, on a stream that its owner alone can open. Pure.

A frame is four bytes of length (little endian) and a map as msgpack. A client's requests have numbers of its choice;
the engine answers each with any number of pieces and one end.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "HEAD_BYTES",
    "MOST_BYTES",
    "MOST_PCM_BYTES",
    "VERSION",
    "Answer",
    "Cancel",
    "Done",
    "Ended",
    "Forget",
    "FrameError",
    "FromClient",
    "FromEngine",
    "Hello",
    "Piece",
    "Ping",
    "Pong",
    "Read",
    "Refused",
    "Speak",
    "Transcribe",
    "Turn",
    "client_frame",
    "engine_frame",
    "packed",
    "size_of",
]

VERSION = 2
"""It is in the socket's name: another release has an engine of its own."""
HEAD_BYTES = 4
MOST_PCM_BYTES = 60 * 48000 * 2
MOST_BYTES = MOST_PCM_BYTES + 4096
_MOST_MESSAGES = 2048
_MOST_TEXT = 256 << 10

Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Pcm = Annotated[bytes, Meta(max_length=MOST_PCM_BYTES)]
Text = Annotated[str, Meta(max_length=_MOST_TEXT)]


class FrameError(ValueError):
    """A frame that is none: too large, or with something else in it."""


class Turn(Struct, frozen=True):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


Messages = Annotated[tuple[Turn, ...], Meta(max_length=_MOST_MESSAGES)]


class Transcribe(Struct, frozen=True, tag="transcribe"):
    id: Number
    pcm: Pcm
    rate: int
    draft: bool = False


class Answer(Struct, frozen=True, tag="answer"):
    id: Number
    call: Number
    messages: Messages
    most_tokens: Annotated[int, Meta(ge=1, le=1 << 20)]


class Read(Struct, frozen=True, tag="read"):
    id: Number
    call: Number
    messages: Messages


class Speak(Struct, frozen=True, tag="speak"):
    id: Number
    text: Text


class Ended(Struct, frozen=True, tag="ended"):
    id: Number
    pcm: Pcm
    rate: int


class Cancel(Struct, frozen=True, tag="cancel"):
    id: Number


class Forget(Struct, frozen=True, tag="forget"):
    call: Number


class Ping(Struct, frozen=True, tag="ping"):
    id: Number


class Hello(Struct, frozen=True, tag="hello"):
    """The first frame of the engine's: it is loaded."""

    pid: int
    cuda: tuple[str, ...] = ()
    """The parts that compute on a GPU."""


class Piece(Struct, frozen=True, tag="piece"):
    id: Number
    text: str = ""
    pcm: bytes = b""


class Done(Struct, frozen=True, tag="done"):
    id: Number
    text: str = ""
    probability: float = 0.0


class Refused(Struct, frozen=True, tag="refused"):
    id: Number
    why: str
    busy: bool = False


class Pong(Struct, frozen=True, tag="pong"):
    id: Number
    waiting: dict[str, int] = {}
    """Requests that each part has, those that it is at included."""


FromClient = Transcribe | Answer | Read | Speak | Ended | Cancel | Forget | Ping
FromEngine = Hello | Piece | Done | Refused | Pong

_encoder = msgspec.msgpack.Encoder()
_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def packed(frame: FromClient | FromEngine) -> bytes:
    """The frame with its head."""
    body = _encoder.encode(frame)
    return struct.pack("<I", len(body)) + body


def size_of(head: bytes) -> int:
    """The length of what follows. Raises FrameError where nobody sends so much."""
    (size,) = struct.unpack("<I", head)
    if size > MOST_BYTES:
        raise FrameError(f"a frame of {size} bytes")
    return int(size)


def client_frame(body: bytes) -> FromClient:
    """What a client sent. Raises FrameError."""
    try:
        return _client.decode(body)
    except (ValueError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise FrameError(str(e)[:200]) from None


def engine_frame(body: bytes) -> FromEngine:
    """What the engine sent. Raises FrameError."""
    try:
        return _engine.decode(body)
    except (ValueError, RecursionError) as e:  # msgspec's own errors are ValueErrors
        raise FrameError(str(e)[:200]) from None
