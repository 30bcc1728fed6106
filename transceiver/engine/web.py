"""The models as a server of OpenAI's HTTP API: transcriptions, chat completions and speech."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import struct
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from transceiver.engine import VOICE_RATE_HZ, Engine, EngineError
from transceiver.engine.bodies import (
    EARS_NAMES,
    MIND_NAMES,
    VOICE_NAMES,
    BadRequest,
    Chat,
    Speech,
    check_model,
    read,
    sound_of,
)
from transceiver.engine.frames import MOST_PCM_BYTES

__all__ = ["app_of"]

# They quote what a client sent, and would be kept for ever, and a line on standard error, for each that is new.
for _odd in (aiohttp.BadContentDispositionHeader, aiohttp.BadContentDispositionParam):
    warnings.simplefilter("ignore", _odd)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOST_AT_ONCE = 16  # of a file of 11 MiB each, at most
_MOST_JSON = 256 << 10
_MOST_FILE = 2 * MOST_PCM_BYTES + 4096  # in stereo
_MOST_FIELD = 4096
_MOST_FIELDS = 16
_READS_S = 30.0  # that one piece of an answer may wait for its reader, and a body for its writer
_OWNER = "firsthop"


def app_of(engine: Engine, key: bytes | None) -> web.Application:
    """The server's application. Without a ``key`` anyone may ask."""
    serving = _Serving(engine)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if key is not None and request.path != "/healthz" and not _may(request, key):
                raise BadRequest("no key, or a wrong one", status=401, code="invalid_api_key")
            return await handler(request)
        except BadRequest as e:
            return _error(e.status, str(e), e.code, e.param)
        except EngineError as e:
            return _error(503, str(e), "busy" if e.busy else "models_failed", None)
        except web.HTTPException as e:
            return _error(e.status, e.reason, "invalid_request", None)
        except (web.RequestPayloadError, HttpProcessingError):
            return _error(400, "the body cannot be read", "invalid_request", None)
        except TimeoutError:
            return _error(408, "the request did not come to its end", "timeout", None)

    app = web.Application(middlewares=[guarded], client_max_size=_MOST_JSON)
    app.router.add_get("/healthz", serving.health)
    app.router.add_get("/v1/models", serving.models)
    app.router.add_post("/v1/audio/transcriptions", serving.transcription)
    app.router.add_post("/v1/chat/completions", serving.chat)
    app.router.add_post("/v1/audio/speech", serving.speech)
    return app


def _may(request: web.Request, key: bytes) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    return hmac.compare_digest(given.strip().encode(errors="replace"), key) and kind.lower() == "bearer"


def _error(status: int, message: str, code: str, param: str | None) -> web.Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "code": code, "param": param}}
    headers = {"Retry-After": "1"} if status == 503 else {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return web.json_response(body, status=status, headers=headers)


class _Serving:
    """The handlers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._now = 0

    async def health(self, request: web.Request) -> web.Response:
        """Whether the models are loaded."""
        await self._engine.start()
        return web.Response(text="ok\n")

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``"""
        names = (EARS_NAMES[0], MIND_NAMES[0], VOICE_NAMES[0])
        each = [{"id": name, "object": "model", "created": 0, "owned_by": _OWNER} for name in names]
        return web.json_response({"object": "list", "data": each})

    async def transcription(self, request: web.Request) -> web.Response:
        """``POST /v1/audio/transcriptions``: a WAV file, and ``response_format`` json or text."""
        with self._room():
            async with asyncio.timeout(_READS_S):
                fields = await _form(request)
            check_model(fields.get("model", b"").decode(errors="replace"), EARS_NAMES)
            if fields.get("language", b"en") not in (b"en", b""):
                raise BadRequest("language: English alone is understood", param="language")
            form = fields.get("response_format", b"json")
            if form not in (b"json", b"text") or fields.get("stream", b"false").lower() not in (b"false", b"0"):
                raise BadRequest("response_format: json or text, and not as a stream", param="response_format")
            if "file" not in fields:
                raise BadRequest("file: there is none", param="file")
            sound = await asyncio.to_thread(sound_of, fields["file"])
            text = await self._engine.transcribe(sound.pcm, sound.rate)
        return web.Response(text=text + "\n") if form == b"text" else web.json_response({"text": text})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``, as one answer or as server-sent events."""
        with self._room():
            chat: Chat = read(Chat, await _body(request))
            check_model(chat.model, MIND_NAMES)
            pieces = self._engine.answer(chat.call, chat.plain, most_tokens=chat.most_tokens)
            about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": MIND_NAMES[0]}
            async with aclosing(pieces):
                if chat.stream:
                    return await self._events(request, chat, pieces, {**about, "object": "chat.completion.chunk"})
                said = [piece async for piece in pieces]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(said)},
            "finish_reason": _reason(len(said), chat),
        }
        return web.json_response({**about, "object": "chat.completion", "choices": [choice]})

    async def speech(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/audio/speech``: PCM16 at 24 kHz, or the same as WAV, as it is made."""
        with self._room():
            asked: Speech = read(Speech, await _body(request))
            check_model(asked.model, VOICE_NAMES)
            wav = asked.response_format == "wav"
            pieces = self._engine.speak(asked.input)
            async with aclosing(pieces):
                first = await anext(pieces, b"")  # what fails before the first sound is an answer of its own
                reply = web.StreamResponse(headers={"Content-Type": "audio/wav" if wav else "audio/pcm"})
                await reply.prepare(request)
                await _write(reply, (_wav_head() if wav else b"") + first)
                async for pcm in pieces:
                    await _write(reply, pcm)
            await reply.write_eof()
            return reply

    async def _events(
        self, request: web.Request, chat: Chat, pieces: AsyncGenerator[str, None], about: dict[str, Any]
    ) -> web.StreamResponse:
        def event(delta: dict[str, str], reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return b"data: " + json.dumps({**about, "choices": [choice]}).encode() + b"\n\n"

        first = await anext(pieces, "")
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await reply.prepare(request)
        await _write(reply, event({"role": "assistant", "content": first}))
        count = 1
        try:
            async for piece in pieces:
                count += 1
                await _write(reply, event({"content": piece}))
        except EngineError as e:
            error = {"error": {"message": str(e), "type": "server_error", "code": "models_failed", "param": None}}
            await _write(reply, b"data: " + json.dumps(error).encode() + b"\n\n")
            return reply
        await _write(reply, event({}, _reason(count, chat)) + b"data: [DONE]\n\n")
        await reply.write_eof()
        return reply

    def _room(self) -> _Room:
        if self._now >= _MOST_AT_ONCE:
            raise EngineError("too many requests at once", busy=True)
        return _Room(self)


class _Room:
    """A place among the requests that are served at once."""

    def __init__(self, serving: _Serving) -> None:
        self._serving = serving

    def __enter__(self) -> None:
        self._serving._now += 1

    def __exit__(self, *_: object) -> None:
        self._serving._now -= 1


async def _body(request: web.Request) -> bytes:
    async with asyncio.timeout(_READS_S):
        return await request.read()


async def _form(request: web.Request) -> dict[str, bytes]:
    """The fields of a form, the file among them. Raises BadRequest."""
    if not request.content_type.startswith("multipart/"):
        raise BadRequest("the body is no multipart/form-data")
    fields: dict[str, bytes] = {}
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader) or len(fields) >= _MOST_FIELDS:
                raise BadRequest("the body is no plain form")
            name = (part.name or "")[:100]
            most = _MOST_FILE if name == "file" else _MOST_FIELD
            data = bytearray()
            while chunk := await part.read_chunk(1 << 16):
                data += chunk
                if len(data) > most:
                    raise BadRequest(f"{name}: more than {most} bytes", status=413, code="too_large", param=name)
            fields[name] = bytes(data)
    except (ValueError, KeyError, AssertionError, RuntimeError) as e:
        raise BadRequest(f"the form cannot be read: {str(e)[:200]}") from None
    return fields


async def _write(reply: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_READS_S):
        await reply.write(data)


def _reason(pieces: int, chat: Chat) -> str:
    return "length" if pieces >= chat.most_tokens else "stop"


def _wav_head() -> bytes:
    """Of a file whose length nobody knows yet."""
    endless, rate = 0xFFFFFFFF, VOICE_RATE_HZ
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", endless, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return head + struct.pack("<4sI", b"data", endless)
