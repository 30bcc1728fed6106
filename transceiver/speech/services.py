"""Clients for three services of OpenAI's HTTP API, as any compatible server has them: transcription, chat and speech.

Every fault there becomes a Failure with a line for the client: refused, silent for too long, broken off, or nonsense.
All that they send is bounded.
"""

from __future__ import annotations

import contextlib
import io
import wave
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from runtime.config import Pipeline
from runtime.tracing.spans import NOTHING, Span
from transceiver.speech.tasks import Failure
from transceiver.speech.upstream import Asked, asked
from transceiver.speech.words import Words as Pieces
from transceiver.speech.words import loads, whole
from transceiver.turns import tokens

__all__ = ["Services", "ToolCall", "Words"]

_MOST_TEXT = 1 << 18  # bytes of one answer
_MOST_AUDIO = 24000 * 2 * 120  # of one sentence
_MOST_CALLS = 32


@dataclass(slots=True)
class ToolCall:
    name: str = ""
    arguments: str = ""
    id: str = ""


@dataclass(slots=True)
class Words:
    """The outcome of a chat beside its text."""

    calls: dict[int, ToolCall] = field(default_factory=dict)
    usage: dict[str, Any] | None = None


class Services:
    """One client of the services, for one call, made in the loop that uses it. Requests have spans ``under`` those that
    are given. Raises OSError where there is no key file."""

    def __init__(self, config: Pipeline) -> None:
        self._config = config
        key = config.key_file.read_text().strip() if config.key_file else ""
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.timeout_s, sock_read=config.timeout_s),
        )

    async def close(self) -> None:
        await self._http.close()

    async def transcribe(self, pcm: bytes, under: Span = NOTHING) -> str:
        """The words in 24 kHz mono PCM16. Raises Failure."""
        spoken = io.BytesIO()
        with wave.open(spoken, "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(24000)
            wav.writeframes(pcm)
        form = aiohttp.FormData()
        form.add_field("model", self._config.transcription_model)
        form.add_field("response_format", "json")
        form.add_field("file", spoken.getvalue(), filename="turn.wav", content_type="audio/wav")
        url = f"{self._config.transcription_url}/audio/transcriptions"
        model = self._config.transcription_model
        async with self._post("transcription", url, model, under, data=form) as (reply, _):
            text = _json("transcription", await _limited(reply)).get("text")
        if not isinstance(text, str):
            raise Failure("transcription: the answer has no text")
        return whole(text.strip())

    async def chat(self, request: dict[str, Any], words: Words, under: Span = NOTHING) -> AsyncGenerator[str, None]:
        """The answer piece by piece; tool calls and usage are put into ``words``. Raises Failure."""
        body = {"model": self._config.chat_model, "stream": True, "stream_options": {"include_usage": True}, **request}
        size = 0
        finished = False
        pieces = Pieces()
        url, model = f"{self._config.chat_url}/chat/completions", self._config.chat_model
        async with self._post("chat", url, model, under, json=body) as (reply, asking):
            # Lines longer than aiohttp's buffer raise ValueError.
            async for line in reply.content:
                size += len(line)
                if size > 16 * _MOST_TEXT:
                    raise Failure("chat: the answer does not end")
                name, _, value = line.strip().partition(b":")
                if name != b"data":
                    continue
                if value.strip() == b"[DONE]":
                    return
                event = _json("chat", value)
                if "error" in event:
                    raise Failure(f"chat: {_reason(event)}")
                delta, ended = _delta(event, words)
                if words.usage is not None:
                    asking.span.put(tokens(words.usage))
                finished = finished or ended
                if delta := pieces.push(delta):
                    yield delta
            if not finished:
                raise Failure("chat: the answer broke off")

    async def speak(self, text: str, voice: str, under: Span = NOTHING) -> AsyncGenerator[bytes, None]:
        """``text`` as 24 kHz mono PCM16, in whole samples. Raises Failure."""
        body = {
            "model": self._config.speech_model,
            "voice": voice or self._config.voice,
            "input": text,
            "response_format": "pcm",
        }
        size, odd = 0, b""
        url, model = f"{self._config.speech_url}/audio/speech", self._config.speech_model
        async with self._post("speech", url, model, under, json=body) as (reply, _):
            kind = reply.content_type
            if kind.startswith("text/") or kind == "application/json":
                raise Failure(f"speech: {kind} is no audio")
            async for chunk in reply.content.iter_chunked(9600):
                size += len(chunk)
                if size > _MOST_AUDIO:
                    raise Failure("speech: the audio does not end")
                pcm = odd + chunk
                whole = len(pcm) & ~1
                odd = pcm[whole:]
                if whole:
                    yield pcm[:whole]

    @contextlib.asynccontextmanager
    async def _post(
        self, what: str, url: str, model: str, under: Span, **body: Any
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Asked]]:
        try:
            with asked(what, under, model=model, url=url) as request:
                async with self._http.post(url, headers=request.headers, **body) as reply:
                    request.began(reply.status)
                    if reply.status != 200:
                        raise Failure(f"{what}: {reply.status} {_reason_of(await _limited(reply))}".rstrip())
                    yield reply, request
        except TimeoutError:
            raise Failure(f"{what}: nothing came for {self._config.timeout_s:g} s") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise Failure(f"{what}: {error or type(error).__name__}"[:300]) from None


async def _limited(reply: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > _MOST_TEXT:
            raise Failure("the answer does not end")
    return bytes(body)


def _json(what: str, data: bytes) -> dict[str, Any]:
    try:
        found = loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Failure(f"{what}: the answer is no JSON object")
    return found


def _reason_of(body: bytes) -> str:
    try:
        return _reason(_json("", body))
    except Failure:
        return ""


def _reason(event: dict[str, Any]) -> str:
    error = event.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "")[:200]


def _delta(event: dict[str, Any], words: Words) -> tuple[str, bool]:
    """The text of one event, and whether it is the last; tool calls are put together in ``words``."""
    usage, choices = event.get("usage"), event.get("choices")
    if isinstance(usage, dict):
        words.usage = usage
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return "", False
    delta = choice.get("delta")
    delta = delta if isinstance(delta, dict) else {}
    calls = delta.get("tool_calls")
    for piece in calls if isinstance(calls, list) else ():
        if not isinstance(piece, dict) or not isinstance(index := piece.get("index", 0), int):
            continue
        if index not in words.calls and len(words.calls) >= _MOST_CALLS:
            raise Failure("chat: more function calls than anyone makes")
        call = words.calls.setdefault(index, ToolCall())
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call.id += _text(piece.get("id"))
        call.name += _text(function.get("name"))
        call.arguments += _text(function.get("arguments"))
    return _text(delta.get("content")), choice.get("finish_reason") is not None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
