"""The bodies of requests to the models by OpenAI's HTTP API, read strictly. Pure."""

from __future__ import annotations

import hashlib
import io
import json
import wave
from collections.abc import Collection
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from transceiver.engine import Message
from transceiver.engine.ears import LONGEST_S
from transceiver.engine.sound import LEAST_HZ, MOST_HZ
from transceiver.engine.voice import MOST_CHARACTERS
from transceiver.engine.weights import EARS, MIND, VOICE

__all__ = ["EARS_NAMES", "MIND_NAMES", "VOICE_NAMES", "BadRequest", "Chat", "Speech", "check_model", "read", "sound_of"]

# Beside their own names, those that clients use where they name none.
EARS_NAMES = (EARS.name, "whisper-1")
MIND_NAMES = (MIND.name, "default")
VOICE_NAMES = (VOICE.name, "tts-1")
_SYSTEM = "You are a helpful assistant. Answer in one or two short sentences."


class BadRequest(Exception):
    """The answer to a request that cannot be: an HTTP status, and the error in the body."""

    def __init__(
        self, message: str, *, status: int = 400, code: str = "invalid_value", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class _Part(Struct):
    type: Literal["text", "input_text", "output_text"]
    text: str


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[_Part], Meta(max_length=64)] | None = None

    def plain(self) -> Message:
        parts = self.content if isinstance(self.content, list) else []
        text = self.content if isinstance(self.content, str) else "\n".join(part.text for part in parts)
        match self.role:
            case "developer":
                return {"role": "system", "content": text}
            case "tool":  # it knows none, and is told what came of one
                return {"role": "user", "content": text}
            case role:
                return {"role": role, "content": text}


class Chat(Struct):
    """``POST /v1/chat/completions``. Nothing else in it is heeded: no temperature (it answers greedily), no tools."""

    messages: Annotated[list[_Message], Meta(min_length=1, max_length=1024)]
    model: str = MIND.name
    stream: bool = False
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None

    @property
    def most_tokens(self) -> int:
        """Of the answer."""
        return min(self.max_completion_tokens or self.max_tokens or 256, 512)

    @property
    def plain(self) -> list[Message]:
        """The messages, the first of which is always a system's. Raises BadRequest where none is for an answer."""
        plain = [message.plain() for message in self.messages]
        if plain[0]["role"] != "system":
            plain.insert(0, {"role": "system", "content": _SYSTEM})
        if len(plain) == 1:
            raise BadRequest("messages: there is none to answer", param="messages")
        return plain

    @property
    def call(self) -> int:
        """A number that is the same for each turn of a conversation, and another one where the first words differ."""
        begins = json.dumps(self.plain[:2]).encode()
        return int.from_bytes(hashlib.blake2b(begins, digest_size=7).digest(), "big")


class Speech(Struct):
    """``POST /v1/audio/speech``. There is one voice, whichever is asked for."""

    input: Annotated[str, Meta(min_length=1, max_length=MOST_CHARACTERS)]
    model: str = VOICE.name
    voice: Any = None
    response_format: Literal["pcm", "wav"] = "wav"
    speed: Annotated[float, Meta(ge=1, le=1)] = 1
    stream_format: Literal["audio"] = "audio"


class Sound(NamedTuple):
    """Mono PCM16."""

    pcm: bytes
    rate: int


_decoders = {shape: msgspec.json.Decoder(shape) for shape in (Chat, Speech)}


def read(shape: type[Any], body: bytes) -> Any:
    """The body as ``shape``, which is Chat or Speech. Raises BadRequest."""
    try:
        return _decoders[shape].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise BadRequest(str(e)[:300]) from None


def check_model(asked: str, names: Collection[str]) -> None:
    """Raises BadRequest for a model that is none of ``names``."""
    if asked not in names:
        why = f"no model called {asked[:100]!r}: there is {', '.join(names)}"
        raise BadRequest(why, status=404, code="model_not_found", param="model")


def sound_of(file: bytes) -> Sound:
    """The sound in a WAV file of 16-bit PCM; of several channels the mean. Raises BadRequest."""
    try:
        with wave.open(io.BytesIO(file)) as wav:
            channels, width, rate, frames = wav.getparams()[:4]
            if width != 2:
                raise BadRequest(f"file: WAV of {8 * width} bits: only 16-bit PCM is heard", param="file")
            if not LEAST_HZ <= rate <= MOST_HZ:
                raise BadRequest(f"file: {rate} Hz: only {LEAST_HZ} to {MOST_HZ} are heard", param="file")
            data = wav.readframes(min(frames, LONGEST_S * rate + 1))
    except (wave.Error, EOFError, RuntimeError, ValueError):
        raise BadRequest("file: only WAV files of 16-bit PCM are heard", param="file") from None
    whole = len(data) // (2 * channels)
    if whole > LONGEST_S * rate:
        raise BadRequest(f"file: only {LONGEST_S} s at a time are heard", param="file")
    if channels > 1:
        each = np.frombuffer(data[: whole * 2 * channels], "<i2").reshape(whole, channels)
        data = each.mean(axis=1).astype("<i2").tobytes()
    return Sound(data[: whole * 2], rate)
