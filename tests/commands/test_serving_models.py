"""The models' server over HTTP, to those who mean no good: what they send is refused, and what they hold is bounded."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from fuzzing import Request, fresh_seed, hammer, wav

from firsthop.serve_models import served
from transceiver.engine import Message, frames

KEY = b"a-key-of-this-test"
_HEAD = b"Host: models\r\nAuthorization: Bearer " + KEY + b"\r\n"


class Ready:
    """An engine whose models answer at once."""

    async def start(self) -> None:
        pass

    async def transcribe(self, pcm: bytes, rate: int, *, draft: bool = False) -> str:
        frames.client_frame(frames.packed(frames.Transcribe(1, pcm, rate))[frames.HEAD_BYTES :])
        return "heard"

    async def ended(self, pcm: bytes, rate: int) -> float:
        return 1.0

    async def answer(self, call: int, messages: Sequence[Message], *, most_tokens: int) -> AsyncGenerator[str, None]:
        turns = tuple(frames.Turn(message["role"], message["content"]) for message in messages)
        frames.client_frame(frames.packed(frames.Answer(1, call, turns, most_tokens))[frames.HEAD_BYTES :])
        yield "so"

    async def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        frames.client_frame(frames.packed(frames.Speak(1, text))[frames.HEAD_BYTES :])
        yield bytes(2)

    def forget(self, call: int) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    listening = socket.create_server(("127.0.0.1", 0))
    async with served(Ready(), KEY, listening):
        yield listening.getsockname()


def form(sound: bytes) -> bytes:
    parts = (("model", b"whisper-1"), ("response_format", b"text"), ('file"; filename="a.wav', sound))
    head = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n'
    text = b"".join(head.format(name).encode() + value + b"\r\n" for name, value in parts)
    return text + b"--x--\r\n"


CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "so"}]}], "stream": True, "max_tokens": 3}
SAY = {"input": "good day", "model": "tts-1", "voice": "alloy", "response_format": "pcm", "speed": 1}


def requests() -> list[Request]:
    def post(path: str, kind: str, body: bytes) -> list[Request]:
        line = f"POST /v1/{path} HTTP/1.1\r\n".encode()
        about = _HEAD + f"Content-Type: {kind}\r\n".encode()
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        return [
            Request(line + about + b"Content-Length: {length}\r\n\r\n", body),
            Request(b"", line + about + b"Content-Length: %d\r\n\r\n" % len(body) + body),
            Request(line + about, chunked),
            Request(line + about + b"Content-Encoding: deflate\r\nContent-Length: {length}\r\n\r\n", body),
        ]

    found = [Request(b"", b"GET /v1/models HTTP/1.1\r\n" + _HEAD + b"\r\n")]
    for body in (CHAT, {**CHAT, "stream": False}):
        found += post("chat/completions", "application/json", json.dumps(body).encode())
    for said in (json.dumps(SAY), r'{"input": "\ud800\u0000"}'):
        found += post("audio/speech", "application/json", said.encode())
    for sound in (wav(), wav(2, 48000)):
        found += post("audio/transcriptions", "multipart/form-data; boundary=x", form(sound))
    return found


def _odd_parts(test: Any) -> Any:
    for odd in ("BadContentDispositionHeader", "BadContentDispositionParam"):
        test = pytest.mark.filterwarnings(f"ignore::aiohttp.{odd}")(test)
    return test


async def hammered(address: tuple[str, int], caplog: pytest.LogCaptureFixture, seconds: float) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    statuses = await hammer(address, requests(), random.Random(fresh_seed()), seconds)
    assert not faults
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    # There may be too many at once, of which some have hung up.
    assert not {status for status in statuses if status >= 500 and status != 503}
    assert {200, 400} <= statuses
    async with aiohttp.request("GET", "http://{}:{}/healthz".format(*address)) as reply:
        assert reply.status == 200


async def over(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed the connection, and said nothing; waits for that."""
    async with asyncio.timeout(30):
        return not await reader.read()


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    monkeypatch.setattr("edge.signaling.connection._IDLE_S", 0.1)
    reader, writer = await asyncio.open_connection(*address)
    assert await over(reader)
    writer.close()


async def test_one_address_has_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthop.serve_models._MOST_OF_ONE", 4)
    listening = socket.create_server(("127.0.0.1", 0))
    async with served(Ready(), KEY, listening):
        four = [await asyncio.open_connection(*listening.getsockname()) for _ in range(4)]
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await over(reader)
        four[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: models\r\n\r\n")
        assert (await four[0][0].readline()).split()[1] == b"200"
        for _, each in (*four, (reader, writer)):
            each.close()


@_odd_parts
async def test_mutated_requests_are_refused(address: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    await hammered(address, caplog, 0.5)


@pytest.mark.trials
@pytest.mark.timeout(1200)
@_odd_parts
async def test_ten_minutes_of_mutated_requests_are(address: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    await hammered(address, caplog, 600)
