"""The models by OpenAI's HTTP API: OpenAI's own client is answered, and nonsense gets an error that says why."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp.test_utils import TestServer
from doubles.models import Models

from runtime.config import Engine
from transceiver.engine.client import Client
from transceiver.engine.server import Server
from transceiver.engine.starting import socket_of
from transceiver.engine.web import app_of

KEY = "a-key-of-this-test"


@dataclass
class Api:
    """The server, and two clients of it."""

    models: Models
    sdk: openai.AsyncOpenAI
    http: aiohttp.ClientSession

    async def refused(self, method: str, path: str, **body: Any) -> tuple[int, str]:
        async with self.http.request(method, path, **body) as reply:
            return reply.status, (await reply.json())["error"]["message"]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    models = Models()
    listens = asyncio.Event()
    serving = asyncio.create_task(Server(models, idle_s=60).serve(socket_of(tmp_path), listens.set))
    await listens.wait()
    engine = Client(Engine(run=tmp_path), command=("false",))
    async with TestServer(app_of(engine, KEY.encode())) as server:
        url = str(server.make_url("/"))
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            openai.AsyncOpenAI(base_url=f"{url}v1", api_key=KEY, max_retries=0) as sdk,
            aiohttp.ClientSession(url, headers=headers) as http,
        ):
            yield Api(models, sdk, http)
    models.gate.set()
    await engine.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def wav(pcm: bytes, rate: int = 16000, channels: int = 1, width: int = 2) -> bytes:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return made.getvalue()


async def test_openais_client_hears_thinks_and_speaks_by_it(api: Api) -> None:
    heard = await api.sdk.audio.transcriptions.create(model="whisper-1", file=("turn.wav", wav(b"hello there!")))
    assert heard.text == "hello there!"
    plain = await api.sdk.audio.transcriptions.create(
        model="whisper-tiny.en", file=("turn.wav", wav(b"hello there!")), response_format="text"
    )
    assert str(plain) == "hello there!\n"
    whole = await api.sdk.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "one two"}], max_completion_tokens=3
    )
    assert whole.choices[0].message.content == "one two one "
    assert whole.choices[0].finish_reason == "length"
    async with await api.sdk.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "one two"}], max_tokens=3, stream=True
    ) as stream:
        deltas = [chunk.choices[0] async for chunk in stream]
    assert "".join(delta.delta.content or "" for delta in deltas) == "one two one "
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "length"]
    async with api.sdk.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="good day", response_format="pcm"
    ) as speech:
        assert b"".join([pcm async for pcm in speech.iter_bytes()]) == b"goodday"
    assert {model.id async for model in api.sdk.models.list()} == {"whisper-tiny.en", "smollm2-135m-instruct", "hibari"}


async def test_speech_as_wav_is_a_wav_file(api: Api) -> None:
    async with api.http.post("/v1/audio/speech", json={"input": "four more", "model": "hibari"}) as reply:
        data = await reply.read()
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24000)
    assert data[44:] == b"fourmore"


async def test_of_several_channels_the_mean_is_heard(api: Api) -> None:
    left, right = b"\x40\x00" * 2, b"\x42\x00" * 2
    both = b"".join(left[i : i + 2] + right[i : i + 2] for i in (0, 2))
    heard = await api.sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav(both, channels=2)))
    assert heard.text == "A\0A\0".rstrip()


@pytest.mark.parametrize("given", ["", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", f"bearer {KEY[:-1]}", "Bearer \xe9"])
async def test_without_the_key_nothing_is_served(api: Api, given: str) -> None:
    url = api.http._base_url
    async with aiohttp.ClientSession(url, headers={"Authorization": given} if given else {}) as stranger:
        async with stranger.get("/v1/models") as reply:
            assert reply.status == 401
        async with stranger.post("/v1/chat/completions", json={}) as reply:
            assert reply.status == 401
        async with stranger.get("/healthz") as reply:
            assert reply.status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "why"),
    [
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "system", "content": "x"}]}, 400, "none to answer"),
        ("chat/completions", {"messages": [{"role": "pope", "content": "x"}]}, 400, "role"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "type"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 2}, 400, "n"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": "gpt-9"}, 404, "gpt-9"),
        ("chat/completions", [], 400, "object"),
        ("audio/speech", {"input": ""}, 400, "input"),
        ("audio/speech", {"input": "x" * 4097}, 400, "input"),
        ("audio/speech", {"input": "x", "response_format": "mp3"}, 400, "mp3"),
        ("audio/speech", {"input": "x", "model": "tts-9"}, 404, "tts-9"),
        ("audio/speech", {"input": "x", "speed": 2}, 400, "speed"),
        ("audio/speech", {"input": "x" * (300 << 10)}, 413, ""),
        ("audio/transcriptions", {}, 400, "multipart"),
        ("no/such", {}, 404, ""),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(api: Api, path: str, body: Any, status: int, why: str) -> None:
    found, message = await api.refused("POST", f"/v1/{path}", json=body)
    assert found == status
    assert why in message


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ({"file": b"RIFFnonsense"}, 400, "WAV"),
        ({"file": wav(b"12", width=1)}, 400, "8 bits"),
        ({"file": wav(b"12", rate=4000)}, 400, "4000 Hz"),
        ({"file": wav(bytes(16000 * 2 * 61))}, 400, "60 s"),
        ({"file": bytes(12 << 20)}, 413, "more than"),
        ({"file": wav(b"12"), "language": "de"}, 400, "English"),
        ({"file": wav(b"12"), "response_format": "srt"}, 400, "response_format"),
        ({"file": wav(b"12"), "model": "whisper-9"}, 404, "whisper-9"),
        ({}, 400, "there is none"),
    ],
)
async def test_what_cannot_be_heard_is_refused_with_the_reason(
    api: Api, fields: dict[str, Any], status: int, why: str
) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in {"model": "whisper-1", **fields}.items():
        if name == "file":
            form.add_field(name, io.BytesIO(value), filename="a.wav")
        else:
            form.add_field(name, value)
    found, message = await api.refused("POST", "/v1/audio/transcriptions", data=form)
    assert found == status
    assert why in message


async def test_a_form_that_is_none_is_refused(api: Api) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        found, _ = await api.refused(
            "POST", "/v1/audio/transcriptions", data=b"--y\r\n\r\n", headers={"Content-Type": content_type}
        )
        assert found == 400


async def test_a_model_that_fails_and_one_that_has_no_room_are_503(api: Api) -> None:
    with pytest.raises(openai.InternalServerError, match="RuntimeError"):
        await api.sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav(b"fail")))
    api.models.gate.clear()

    async def heard() -> int:
        form = aiohttp.FormData({"model": "whisper-1"}, default_to_multipart=True)
        form.add_field("file", wav(b"wait"), filename="a.wav")
        async with api.http.post("/v1/audio/transcriptions", data=form) as reply:
            if reply.status == 503:
                assert reply.headers["Retry-After"] == "1"
                api.models.gate.set()
            return reply.status

    assert sorted(await asyncio.gather(*(heard() for _ in range(17)))) == [200] * 16 + [503]


async def test_a_client_that_leaves_in_mid_answer_stops_it(api: Api) -> None:
    words = {"messages": [{"role": "user", "content": "on " * 100}], "stream": True, "max_tokens": 512}
    async with api.http.post("/v1/chat/completions", json=words) as reply:
        assert await reply.content.readline()
        reply.close()
    again = await api.sdk.chat.completions.create(model="default", messages=[{"role": "user", "content": "a"}])
    assert again.choices[0].message.content
