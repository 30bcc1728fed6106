"""The agent ``pipeline`` against services of its own, good ones and bad ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from responding import Line, Response, living, said
from waiting import eventually

from runtime.config import Agents, Pipeline
from transceiver.agents import Item, Settings, pipeline

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Services:
    """Speech to text, chat and text to speech; what a test wants otherwise it puts in place of these."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.deltas: list[dict[str, Any]] = [
            {"content": "Good morning, caller. "},
            {"content": "How are"},
            {"content": " you?"},
        ]
        self.transcription: Handler = self._transcription
        self.chat: Handler = self._chat
        self.speech: Handler = self._speech
        self.release = asyncio.Event()

    async def _transcription(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        assert form["file"].file.read(4) == b"RIFF"  # type: ignore[union-attr]
        return web.json_response({"text": " hello there "})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for delta in self.deltas:
            await reply.write(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
        await reply.write(b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\ndata: [DONE]\n\n')
        return reply

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        text = (await request.json())["input"]
        return web.Response(body=b"\x01\x02" * len(text), content_type="audio/pcm")

    async def hang(self, request: web.Request) -> web.StreamResponse:
        await self.release.wait()
        return web.Response()


@pytest.fixture
async def services(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    made = Services()

    async def transcription(request: web.Request) -> web.StreamResponse:
        return await made.transcription(request)

    async def chat(request: web.Request) -> web.StreamResponse:
        return await made.chat(request)

    async def speech(request: web.Request) -> web.StreamResponse:
        return await made.speech(request)

    app = web.Application()
    app.router.add_post("/v1/audio/transcriptions", transcription)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/audio/speech", speech)
    async with TestServer(app) as server:
        url = str(server.make_url("/v1"))
        section = Pipeline(transcription_url=url, chat_url=url, speech_url=url, timeout_s=30.0, instructions="")
        monkeypatch.setattr(Line, "config", Agents(pipeline=section))
        yield made
        made.release.set()


async def answer(response: Response, line: Line | None = None) -> Response:
    agent = pipeline.Agent(line or Line())
    async with living(agent):
        for item in response.items:
            agent.committed(item)
        agent.respond(response)
        await eventually(lambda: bool(response.ended))
    return response


async def test_speech_is_heard_answered_and_spoken(services: Services) -> None:
    line = Line()
    response = await answer(
        Response([Item(id="a", role="user", pcm=bytes(4800))], Settings(instructions="Be kind.")), line
    )
    assert response.ended == "done"
    assert line.texts == {"a": "hello there"}
    assert services.asked[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello there"},
    ]
    assert response.said == "Good morning, caller. How are you?"
    assert response.pcm == b"\x01\x02" * (len("Good morning, caller.") + len("How are you?"))
    assert response.usage == {"total_tokens": 7}


async def test_text_is_answered_in_text(services: Services) -> None:
    response = await answer(Response([said("hello")], Settings(modality="text")))
    assert (response.written, response.pcm, response.said) == ("Good morning, caller. How are you?", b"", "")


async def test_speech_begins_before_the_text_is_finished(services: Services) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        await reply.write(b'data: {"choices": [{"delta": {"content": "The first sentence. The"}}]}\n\n')
        await services.release.wait()
        await reply.write(b"data: [DONE]\n\n")
        return reply

    services.chat = slow
    agent = pipeline.Agent(Line())
    response = Response([said("hello")])
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: bool(response.pcm))
        assert not response.ended
        services.release.set()
        await eventually(lambda: response.ended == "done")
    assert response.said == "The first sentence. The"


async def test_function_calls_come_together_from_pieces(services: Services) -> None:
    services.deltas = [
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "dial", "arguments": '{"numb'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'er": 7}'}}]},
    ]
    tool = {"type": "function", "name": "dial", "parameters": {}}
    response = await answer(Response([said("dial seven")], Settings(tools=(tool,))))
    assert response.calls == [("dial", '{"number": 7}')]
    assert services.asked[0]["tools"] == [{"type": "function", "function": {"name": "dial", "parameters": {}}}]


async def test_characters_that_the_services_cut_are_whole(services: Services) -> None:
    spoken: list[str] = []

    async def transcription(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"text": "hello \\ud83d\xf0\x9f"}', content_type="application/json")

    async def speech(request: web.Request) -> web.StreamResponse:
        spoken.append((await request.json())["input"])
        return web.Response(body=b"\x01\x02", content_type="audio/pcm")

    services.transcription, services.speech = transcription, speech
    services.deltas = [{"content": "It is so. \ud83d"}, {"content": "\ude00, and \ude00."}]
    line = Line()
    response = await answer(Response([Item(id="a", role="user", pcm=bytes(4800))]), line)
    assert line.texts == {"a": "hello \ufffd\ufffd"}
    assert (response.ended, response.said) == ("done", "It is so. 😀, and \ufffd.")
    assert " ".join(spoken) == "It is so. 😀, and \ufffd."


async def test_a_cancelled_response_ends_at_once_and_the_next_one_is_made(services: Services) -> None:
    services.chat, good = services.hang, services.chat
    agent = pipeline.Agent(Line())
    first, second = Response([said("hello")]), Response([said("hello")], id="resp_2")
    async with living(agent):
        agent.respond(first)
        agent.cancelled(first)
        services.chat = good
        agent.respond(second)
        await eventually(lambda: second.ended == "done")
    assert not first.ended


def reply(status: int, body: str, kind: str = "application/json") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=kind)

    return handler


async def broken_off(request: web.Request) -> web.StreamResponse:
    stream = web.StreamResponse()
    await stream.prepare(request)
    await stream.write(b'data: {"choices": [{"delta": {"content": "Well, "}}]}\n\n')
    assert request.transport
    request.transport.close()
    return stream


@pytest.mark.parametrize("service", ["transcription", "chat", "speech"])
@pytest.mark.parametrize("how", ["refuses", "hangs", "closes", "garbage"])
async def test_a_bad_service_costs_one_response_and_not_the_call(
    services: Services, service: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "hangs":
        hasty = Line.config.pipeline.model_copy(update={"timeout_s": 1.0})
        monkeypatch.setattr(Line, "config", Agents(pipeline=hasty))
    bad = {
        "refuses": reply(429, '{"error": {"message": "too many"}}'),
        "hangs": services.hang,
        "closes": broken_off,
        "garbage": reply(200, "data: \x00[[[\n\n", "text/plain"),
    }
    good = getattr(services, service)
    setattr(services, service, bad[how])
    agent = pipeline.Agent(Line())
    first = Response([Item(id="a", role="user", pcm=bytes(480))])
    second = Response([Item(id="b", role="user", pcm=bytes(480))], id="resp_2")
    async with living(agent):
        agent.respond(first)
        await eventually(lambda: bool(first.ended))
        assert first.ended.startswith(f"{service}: ")
        if how == "refuses":
            assert first.ended == f"{service}: 429 too many"
        setattr(services, service, good)
        agent.respond(second)
        await eventually(lambda: second.ended == "done")


@pytest.mark.parametrize(
    "event",
    [
        '{"choices": 7}',
        '{"choices": [{"delta": {"tool_calls": [7, {"index": "x"}], "content": 3}}]}',
        "{}",
        '{"usage": []}',
    ],
)
async def test_odd_events_of_a_chat_are_passed_over(services: Services, event: str) -> None:
    services.chat = reply(200, f"data: {event}\n\n: comment\n\ndata: [DONE]\n\n", "text/event-stream")
    assert (await answer(Response([said("hello")]))).ended == "done"


async def test_a_key_file_that_is_not_there_is_said(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    section = Line.config.pipeline.model_copy(update={"key_file": Path("/nowhere/key")})
    monkeypatch.setattr(Line, "config", Agents(pipeline=section))
    assert (await answer(Response([said("hello")]))).ended == "agents.pipeline.key_file: No such file or directory"


async def test_who_takes_its_place_hears_only_what_nobody_has_understood_yet(services: Services) -> None:
    heard = Item(id="a", role="user", pcm=bytes(4800), text="good evening")
    unheard = Item(id="b", role="user", pcm=bytes(4800))
    line = Line()
    agent = pipeline.Agent(line)
    response = Response([heard, unheard])
    async with living(agent):
        agent.resume(None, [heard, unheard])
        await eventually(lambda: "b" in line.texts)
        agent.respond(response)
        await eventually(lambda: response.ended == "done")
    assert line.texts == {"b": "hello there"}
    assert [message["content"] for message in services.asked[0]["messages"]] == ["good evening", "hello there"]


# --- work in pauses, and what the host has settled


def paused(pcm: bytes, id_: str = "b") -> list[Item]:
    return [said("hello"), Item(id=id_, role="user", pcm=pcm)]


async def test_a_pause_is_transcribed_once_and_used_when_the_turn_ends(services: Services) -> None:
    line, heard = Line(), []
    whole = services._transcription

    async def counted(request: web.Request) -> web.StreamResponse:
        heard.append(request)
        return await whole(request)

    services.transcription = counted
    agent = pipeline.Agent(line)
    async with living(agent):
        agent.speech_paused(200, paused(bytes(4800)))
        await eventually(lambda: heard)
        assert line.texts == {}
        agent.committed(Item(id="b", role="user", pcm=bytes(19200)))
        await eventually(lambda: line.texts)
    assert (line.texts, len(heard)) == ({"b": "hello there"}, 1)


@pytest.mark.parametrize("how", ["speaks on", "another turn", "it failed"])
async def test_what_was_transcribed_too_early_is_thrown_away(services: Services, how: str) -> None:
    line, sizes = Line(), list[int]()

    async def sized(request: web.Request) -> web.StreamResponse:
        sizes.append(len((await request.post())["file"].file.read()))  # type: ignore[union-attr]
        if how == "it failed" and len(sizes) == 1:
            return web.Response(status=500)
        return web.json_response({"text": str(sizes[-1])})

    services.transcription = sized
    agent = pipeline.Agent(line)
    async with living(agent):
        agent.speech_paused(200, paused(bytes(4800), "a" if how == "another turn" else "b"))
        await eventually(lambda: sizes)
        if how == "speaks on":
            agent.speech_resumed()
        agent.committed(Item(id="b", role="user", pcm=bytes(9600)))
        await eventually(lambda: line.texts)
    assert line.texts == {"b": "9644"}


async def test_a_host_may_want_nothing_transcribed_early(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    section = Line.config.pipeline.model_copy(update={"transcribes_early": False})
    monkeypatch.setattr(Line, "config", Agents(pipeline=section))
    services.transcription = reply(500, "")
    agent = pipeline.Agent(Line())
    async with living(agent):
        agent.speech_paused(200, paused(bytes(4800)))
        assert agent._early is None


async def test_a_host_settles_what_a_session_leaves_open(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = {"instructions": "Be brief.", "max_tokens": 50, "temperature": 0.0}
    monkeypatch.setattr(Line, "config", Agents(pipeline=Line.config.pipeline.model_copy(update=settled)))
    await answer(Response([said("hello")], Settings(more={"max_output_tokens": "inf"})))
    await answer(Response([said("hello")], Settings(instructions="Sing.", more={"max_output_tokens": 20})))
    first, second = services.asked
    assert [asked["messages"][0]["content"] for asked in services.asked] == ["Be brief.", "Sing."]
    assert (first["max_tokens"], first["temperature"]) == (50, 0.0)
    assert second["max_tokens"] == 20


async def test_nothing_is_limited_that_nobody_limits(services: Services) -> None:
    await answer(Response([said("hello")]))
    assert not {"max_tokens", "temperature"} & set(services.asked[0])


@pytest.mark.parametrize(
    ("written_first", "first_piece", "spoken"),
    [
        ("To begin with, a long", "clause", "To begin with, "),
        ("To begin with, a long", "words", "To begin with, "),
        ("To begin with, a long", "sentence", ""),
        ("All that begins well and", "words", "All that begins well "),
        ("All that begins well and", "clause", ""),
    ],
)
async def test_the_first_piece_is_spoken_while_its_sentence_is_written(
    services: Services, monkeypatch: pytest.MonkeyPatch, written_first: str, first_piece: str, spoken: str
) -> None:
    section = Line.config.pipeline.model_copy(update={"first_piece": first_piece})
    monkeypatch.setattr(Line, "config", Agents(pipeline=section))
    written = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % written_first.encode())
        written.set()
        await services.release.wait()
        await stream.write(b'data: {"choices": [{"delta": {"content": " sentence, which ends. "}}]}\n\n')
        await stream.write(b"data: [DONE]\n\n")
        return stream

    services.chat = slow
    agent = pipeline.Agent(Line())
    response = Response([said("hello")])
    async with living(agent):
        agent.respond(response)
        await written.wait()
        await eventually(lambda: response.said == spoken)
        services.release.set()
        await eventually(lambda: response.ended == "done")
    assert response.said == f"{written_first} sentence, which ends. "
