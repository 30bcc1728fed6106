"""The models themselves, where they are installed: they hear what they say, answer, and hold the agent pipeline's
conversations."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import TestServer
from paths import SUPPORT
from responding import Line, Response, living, said
from waiting import eventually

from runtime.config import Agents, Engine, Pipeline
from transceiver.agents import Item, Settings, pipeline
from transceiver.engine import EngineError, Message, weights
from transceiver.engine.client import Client
from transceiver.engine.starting import socket_of
from transceiver.engine.web import app_of

pytestmark = pytest.mark.skipif(weights.trouble() is not None, reason=str(weights.trouble()))

SYSTEM: Message = {"role": "system", "content": "You are a helpful voice assistant. Answer in one short sentence."}
_PATIENCE_S = 100.0


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The section of an engine that runs for all tests of this file, because somebody is connected."""
    section = Engine(run=tmp_path_factory.mktemp("engine"), idle_s=1, calls=2)

    async def start() -> None:
        client = Client(section)
        await client.start()
        keeper.connect(str(socket_of(section.run)))
        await client.close()

    with socket.socket(socket.AF_UNIX) as keeper:
        asyncio.run(start())
        yield section


@pytest.fixture
async def engine(about: Engine) -> AsyncIterator[Client]:
    client = Client(about, patience_s=_PATIENCE_S)
    yield client
    await client.close()


async def spoken(engine: Client, text: str) -> bytes:
    async with aclosing(engine.speak(text)) as speech:
        return b"".join([pcm async for pcm in speech])


async def answered(engine: Client, call: int, messages: list[Message], most_tokens: int = 24) -> str:
    async with aclosing(engine.answer(call, messages, most_tokens=most_tokens)) as answer:
        return "".join([piece async for piece in answer])


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.parametrize(
    "text", ["What is the capital of France?", "Please tell me what time it is.", "Could you spell the word banana?"]
)
async def test_the_ears_hear_what_the_voice_says_at_its_rate_and_by_telephone(engine: Client, text: str) -> None:
    pcm = await spoken(engine, text)
    assert words(await engine.transcribe(pcm, 24000)) == words(text)
    every_third = np.frombuffer(pcm, "<i2")[::3]
    assert words(await engine.transcribe(every_third.astype("<i2").tobytes(), 8000)) == words(text)


def test_media_goes_first_and_memory_is_taken_from_it_first(about: Engine) -> None:
    def command(folder: Path) -> str:
        try:
            return (folder / "cmdline").read_text()
        except OSError:
            return ""

    (engine,) = [folder for folder in Path("/proc").glob("[0-9]*") if str(about.run) in command(folder)]
    assert os.getpriority(os.PRIO_PROCESS, int(engine.name)) == 10
    assert os.sched_getscheduler(int(engine.name)) == os.SCHED_BATCH
    assert int((engine / "oom_score_adj").read_text()) == 500


async def test_where_nobody_speaks_nothing_is_heard(engine: Client) -> None:
    noise = np.random.default_rng(1).normal(0, 500, 48000).astype("<i2").tobytes()
    tone = (8000 * np.sin(np.arange(48000) * 2 * np.pi * 440 / 24000)).astype("<i2").tobytes()
    for sound in (b"", bytes(96000), noise, tone):
        assert await engine.transcribe(sound, 24000) == ""


async def test_a_whole_question_sounds_finished_and_half_of_one_does_not(engine: Client) -> None:
    pcm = await spoken(engine, "Please spell the word banana, and tell me what time it is.")
    pause = bytes(9600)
    assert await engine.ended(pcm + pause, 24000) > 0.8
    assert await engine.ended(pcm[: len(pcm) * 6 // 10 & ~1] + pause, 24000) < 0.2


async def test_the_mind_answers_remembers_and_takes_more_calls_than_it_has_slots(engine: Client) -> None:
    messages: list[Message] = [SYSTEM, {"role": "user", "content": "What is the capital of France?"}]
    first = await answered(engine, 1, messages)
    assert "Paris" in first
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And of Italy?"}]
    others = (answered(engine, call, [SYSTEM, {"role": "user", "content": "Hello."}]) for call in range(2, 6))
    found = await asyncio.gather(answered(engine, 1, messages), *others)
    assert "Rome" in found[0]
    assert all(found)
    for call in range(1, 6):
        engine.forget(call)


async def test_more_than_fits_is_answered_too(engine: Client) -> None:
    history: list[Message] = [{"role": "user", "content": f"Number {i}. " + "word " * 100} for i in range(11)]
    assert await answered(engine, 1, [SYSTEM, *history, {"role": "user", "content": "Hello!"}], 4)
    with pytest.raises(EngineError, match="nothing to answer"):
        await answered(engine, 3, [SYSTEM])


async def test_pipeline_holds_a_conversation_with_them(engine: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    question = await spoken(engine, "What is the capital of France?")
    async with TestServer(app_of(engine, None)) as server:
        url = str(server.make_url("/v1"))
        section = Pipeline(transcription_url=url, chat_url=url, speech_url=url, timeout_s=_PATIENCE_S)
        monkeypatch.setattr(Line, "config", Agents(pipeline=section))
        line = Line()
        response = Response([Item("a", role="user", pcm=question)], Settings(instructions=SYSTEM["content"]))
        await _answered(line, response)
    assert words(line.texts["a"]) == words("What is the capital of France?")
    assert "Paris" in response.said
    heard = words(await engine.transcribe(response.pcm, 24000))
    assert {"capital", "france", "paris"} <= set(heard)


async def test_pipeline_thinks_by_llama_cpps_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = await asyncio.create_subprocess_exec(
        sys.executable, str(SUPPORT / "doubles/llama.py"), stdin=-1, stdout=-1, stderr=subprocess.DEVNULL
    )
    try:
        assert llama.stdout
        url = (await asyncio.wait_for(llama.stdout.readline(), _PATIENCE_S)).decode().strip() + "/v1"
        monkeypatch.setattr(Line, "config", Agents(pipeline=Pipeline(chat_url=url, timeout_s=_PATIENCE_S)))
        question = said("What is the capital of France?")
        response = Response([question], Settings(instructions=SYSTEM["content"], modality="text"))
        await _answered(Line(), response)
    finally:
        llama.kill()
        await llama.wait()
    assert response.written  # whatever: it does not answer greedily
    assert response.usage is not None
    assert response.usage["completion_tokens"] > 0


async def _answered(line: Line, response: Response) -> None:
    agent = pipeline.Agent(line)
    async with living(agent):
        for item in response.items:
            agent.committed(item)
        agent.respond(response)
        await eventually(lambda: bool(response.ended))
    assert response.ended == "done"


async def test_the_command_serves_them_until_it_is_told_to_end(about: Engine, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a-key-of-this-test\n")
    key.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"127.0.0.1:{free.getsockname()[1]}"
    serving = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "firsthop", "serve-models", "--listen", at, "--key-file", str(key)),
        env={**os.environ, "FIRSTHOP_AGENTS__ENGINE__RUN": str(about.run)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert serving.stderr
        while b"serving models" not in (line := await asyncio.wait_for(serving.stderr.readline(), _PATIENCE_S)):
            assert line
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer a-key-of-this-test"}) as http,
            http.post(f"http://{at}/v1/audio/speech", json={"input": "Hello."}) as reply,
        ):
            assert reply.status == 200
            assert len(await reply.read()) > 12000
    finally:
        serving.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(serving.wait(), _PATIENCE_S) == 0
