"""The agent ``realtime`` with an upstream that finds the turns: it hears all as it comes and begins responses."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from responding import Line, Response, living, said, upstream_of
from waiting import eventually

from runtime.config import Agents, Upstream
from transceiver.agents import Item, Settings
from transceiver.agents.realtime import Agent

FRAME = b"\x05\x00" * 480
VAD = {"type": "server_vad", "silence_duration_ms": 300, "create_response": True, "interrupt_response": True}
SETTINGS = Settings(more={"audio": {"input": {"turn_detection": VAD}}})
SPEECH = Item(id="spoken", role="user", pcm=FRAME * 50)
STARTED, STOPPED, COMMITTED = (
    {"type": f"input_audio_buffer.{what}", "item_id": "i1"}
    for what in ("speech_started", "speech_stopped", "committed")
)


def created(id_: str = "r1") -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": id_}}


def words(text: str, id_: str = "r1") -> dict[str, Any]:
    return {"type": "response.output_audio_transcript.delta", "delta": text, "response_id": id_, "item_id": f"of {id_}"}


def sound(ms: int, id_: str = "r1") -> dict[str, Any]:
    delta = b64encode(bytes(48 * ms)).decode()
    return {"type": "response.output_audio.delta", "delta": delta, "response_id": id_, "item_id": f"of {id_}"}


def done(id_: str = "r1", status: str = "completed", **details: Any) -> dict[str, Any]:
    return {"type": "response.done", "response": {"id": id_, "status": status, "status_details": details}}


class Server:
    """An upstream that finds the turns, whatever it is asked. It says what the test has it say."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.heard = bytearray()
        self.sockets: list[web.WebSocketResponse] = []
        self.refuses = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            event = json.loads(message.data)
            if event["type"] == "input_audio_buffer.append":
                self.heard += b64decode(event["audio"])
                continue
            self.asked.append(event)
            if event["type"] == "session.update":
                await socket.send_json({"type": "session.updated", "session": event["session"]})
            elif event["type"] == "input_audio_buffer.clear":
                error = {"message": "unknown event", "event_id": event["event_id"]}
                await socket.send_json({"type": "error", "error": error})
        return socket

    async def says(self, *events: dict[str, Any]) -> None:
        for event in events:
            await self.sockets[-1].send_json(event)

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.asked]


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    made = Server()
    async with upstream_of(made.handle, monkeypatch, timeout_s=60.0):
        yield made


def patient_for(monkeypatch: pytest.MonkeyPatch, timeout_s: float) -> None:
    monkeypatch.setattr(
        Line, "config", Agents(realtime=Line.config.realtime.model_copy(update={"timeout_s": timeout_s}))
    )


async def leading(agent: Agent, settings: Settings = SETTINGS) -> Line:
    """Has the agent connect, and the session told that upstream finds the turns."""
    line = agent.line
    assert isinstance(line, Line)
    agent.configured(settings)
    await eventually(lambda: agent._live is not None)
    agent.heard(FRAME, False)
    assert line.cues == ["mine"]
    return line


def errors(line: Line) -> list[str]:
    return [event["error"]["message"] for event in line.events if event["type"] == "error"]


async def test_it_hears_all_as_it_comes_and_finds_turns_as_the_client_asked(upstream: Server) -> None:
    agent = Agent(Line())
    async with living(agent):
        await leading(agent)
        for _ in range(9):
            agent.heard(FRAME, True)
        await eventually(lambda: bytes(upstream.heard) == FRAME * 10)
    turns = [event["session"]["audio"]["input"]["turn_detection"] for event in upstream.asked if "session" in event]
    assert turns == [None, VAD]
    assert "input_audio_buffer.commit" not in upstream.kinds()


async def test_a_turn_of_upstream_s_is_answered_by_what_it_begins(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([SPEECH], SETTINGS)
    async with living(agent):
        line = await leading(agent)
        transcribed = "conversation.item.input_audio_transcription.completed"
        await upstream.says(STARTED, STOPPED, COMMITTED, {"type": transcribed, "item_id": "i1", "transcript": "hello"})
        await upstream.says(created(), words("Hi."), sound(20))
        await eventually(lambda: line.cues == ["mine", "began", "ended", "answer"])
        agent.committed(SPEECH)
        agent.respond(response)
        await upstream.says(done())
        await eventually(lambda: response.ended == "done")
    assert (response.said, response.pcm, line.texts) == ("Hi.", bytes(960), {"spoken": "hello"})
    assert "response.create" not in upstream.kinds()
    assert errors(line) == []


async def test_the_turn_that_is_being_spoken_at_the_beginning_is_the_session_s(upstream: Server) -> None:
    agent = Agent(Line())
    async with living(agent):
        agent.configured(SETTINGS)
        await eventually(lambda: agent._live is not None)
        agent.heard(FRAME, True)
        assert agent.line.cues == []  # type: ignore[attr-defined]
        agent.heard(FRAME, False)
        assert agent.line.cues == ["mine"]  # type: ignore[attr-defined]
        await eventually(lambda: len(upstream.heard) == 960)


async def test_a_turn_that_the_session_found_is_told_at_once_with_the_silence_that_ends_it(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([said("before"), SPEECH], SETTINGS)
    async with living(agent):
        agent.configured(SETTINGS)
        agent.respond(response)
        await eventually(lambda: len(upstream.heard) == len(SPEECH.pcm) + 48000)
        agent.heard(FRAME, False)
        await upstream.says(STARTED, STOPPED, COMMITTED, created(), words("Hi."), done())
        await eventually(lambda: response.ended == "done")
        assert agent.line.cues == [], "nobody is interrupted by it"  # type: ignore[attr-defined]
        agent.heard(FRAME, False)
        assert agent.line.cues == ["mine"]  # type: ignore[attr-defined]
    assert [event["item"]["content"][0]["text"] for event in upstream.asked if "item" in event] == ["before"]


async def test_a_client_that_commits_its_turns_keeps_finding_them(upstream: Server) -> None:
    agent = Agent(Line())
    async with living(agent):
        agent.configured(Settings(more={"audio": {"input": {"turn_detection": None}}}))
        await eventually(lambda: agent._live is not None)
        agent.heard(FRAME, False)
        assert agent.line.cues == []  # type: ignore[attr-defined]


async def test_a_function_s_output_is_told_and_the_next_response_asked_for(upstream: Server) -> None:
    agent = Agent(Line())
    first = Response([SPEECH], SETTINGS)
    async with living(agent):
        line = await leading(agent)
        call = {"name": "dial", "arguments": "{}", "call_id": "c", "response_id": "r1"}
        await upstream.says(STARTED, STOPPED, COMMITTED, created())
        await upstream.says({"type": "response.function_call_arguments.done", **call}, done())
        await eventually(lambda: "answer" in line.cues)
        agent.committed(SPEECH)
        agent.respond(first)
        await eventually(lambda: first.ended == "done")
        items = [SPEECH, Item("f", "function_call", name="dial", arguments="{}", call_id="c")]
        items.append(Item("o", "function_call_output", call_id="c", text="busy"))
        second = Response(items, SETTINGS, id="resp_2")
        agent.respond(second)
        await eventually(lambda: "response.create" in upstream.kinds())
        await upstream.says(created("r2"), words("Busy.", "r2"), done("r2"))
        await eventually(lambda: second.ended == "done")
    assert first.calls == [("dial", "{}")]
    assert [event["item"]["type"] for event in upstream.asked if "item" in event] == ["function_call_output"]


async def test_what_was_heard_of_a_response_that_is_cut_is_told(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([], SETTINGS)
    async with living(agent):
        line = await leading(agent)
        await upstream.says(created(), words("One two three."), sound(3000))
        await eventually(lambda: "answer" in line.cues)
        agent.respond(response)
        await eventually(lambda: len(response.pcm) == 3000 * 48)
        await upstream.says(STARTED)
        await eventually(lambda: "began" in line.cues)
        response.heard_ms = 500
        agent.cancelled(response)
        await eventually(lambda: "conversation.item.truncate" in upstream.kinds())
        # What upstream still says of it is dropped, and the next answer is another.
        await upstream.says(sound(20), done(status="cancelled", reason="turn_detected"), STOPPED)
        await upstream.says(created("r2"), words("Yes?", "r2"), done("r2"))
        await eventually(lambda: line.cues == ["mine", "answer", "began", "ended", "answer"])
        second = Response([], SETTINGS, id="resp_2")
        agent.respond(second)
        await eventually(lambda: second.ended == "done")
    (cut,) = [event for event in upstream.asked if event["type"] == "conversation.item.truncate"]
    assert (cut["item_id"], cut["audio_end_ms"]) == ("of r1", 500)
    assert "response.cancel" not in upstream.kinds(), "upstream has done that"
    assert (second.said, len(upstream.sockets), errors(line)) == ("Yes?", 1, [])


async def test_a_response_that_the_client_cancels_is_cancelled_upstream(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([], SETTINGS)
    async with living(agent):
        await leading(agent)
        await upstream.says(created(), sound(20))
        agent.respond(response)
        await eventually(lambda: response.pcm != b"")
        agent.cancelled(response)
        await eventually(lambda: "response.cancel" in upstream.kinds())
    assert upstream.asked[-1]["response_id"] == "r1"


@pytest.mark.parametrize(
    ("status", "details", "why"),
    [
        ("incomplete", {"reason": "max_output_tokens"}, "upstream: the response is incomplete: max_output_tokens"),
        ("cancelled", {}, "upstream: the response is cancelled"),
        ("failed", {"error": {"message": "no memory"}}, "upstream: no memory"),
    ],
)
async def test_what_is_not_finished_has_failed_and_the_client_is_told(
    upstream: Server, status: str, details: dict[str, Any], why: str
) -> None:
    agent = Agent(Line())
    first, second = Response([], SETTINGS), Response([], SETTINGS, id="resp_2")
    async with living(agent):
        line = await leading(agent)
        await upstream.says(created(), words("I think"), done(status=status, **details))
        agent.respond(first)
        await eventually(lambda: first.ended)
        assert (first.ended, errors(line)) == (why, [why])
        await upstream.says(created("r2"), words("Yes.", "r2"), done("r2"))
        agent.respond(second)
        await eventually(lambda: second.ended)
    assert (second.ended, len(upstream.sockets)) == ("done", 1), "the connection hears on"


async def test_one_that_answers_twice_is_heard_twice(upstream: Server) -> None:
    agent = Agent(Line())
    responses = [Response([], SETTINGS), Response([], SETTINGS, id="resp_2")]
    async with living(agent):
        line = await leading(agent)
        await upstream.says(
            created(), words("One."), done(), created("r2"), words("Two.", "r2"), done("r2"), done("r2")
        )
        for n, response in enumerate(responses, 1):
            await eventually(lambda n=n: line.cues.count("answer") == n)
            agent.respond(response)
            await eventually(lambda response=response: response.ended == "done")
    assert [response.said for response in responses] == ["One.", "Two."]


async def test_one_that_answers_nothing_is_told_of(upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    patient_for(monkeypatch, 1.0)
    agent = Agent(Line())
    async with living(agent):
        line = await leading(agent)
        await upstream.says(STARTED, STOPPED)
        await eventually(lambda: errors(line) == ["upstream: nothing came for 1 s"])


async def test_one_that_floods_with_what_nobody_takes_is_left(upstream: Server) -> None:
    agent = Agent(Line())
    async with living(agent):
        line = await leading(agent)
        await upstream.says(created(), *[words("x") for _ in range(300)])
        await eventually(lambda: line.cues[-1] == "yours")
        assert errors(line) == ["upstream: it says more than can be passed on"]
        response = Response([], SETTINGS)
        agent.respond(response)
        await eventually(lambda: len(upstream.sockets) == 2)


async def test_one_that_goes_away_leaves_the_turns_to_the_session_and_is_reached_again(upstream: Server) -> None:
    agent = Agent(Line())
    first, second = Response([], SETTINGS), Response([SPEECH], SETTINGS, id="resp_2")
    async with living(agent):
        line = await leading(agent)
        await upstream.says(created(), words("I"))
        agent.respond(first)
        await eventually(lambda: first.said == "I")
        await upstream.sockets[0].close()
        await eventually(lambda: first.ended)
        assert (first.ended, line.cues[-1]) == ("upstream: the connection broke", "yours")
        assert errors(line) == [first.ended]
        agent.respond(second)
        await eventually(lambda: len(upstream.sockets) == 2 and bytes(upstream.heard).endswith(bytes(48000)))
        await upstream.says(created(), words("Hi."), done())
        await eventually(lambda: second.ended == "done")
        agent.heard(FRAME, False)
        assert line.cues[-1] == "mine"


async def test_one_that_refuses_costs_nothing_until_an_answer_is_wanted(upstream: Server) -> None:
    upstream.refuses = True
    line = Line()
    agent = Agent(line)
    response = Response([SPEECH], SETTINGS)
    async with living(agent):
        agent.configured(SETTINGS)
        agent.heard(FRAME, False)
        await eventually(lambda: not agent._beside)
        assert (errors(line), line.cues) == ([], [])
        agent.respond(response)
        await eventually(lambda: response.ended)
    assert response.ended.startswith("upstream: 503")
    assert errors(line) == [response.ended]


async def test_what_upstream_has_not_taken_of_the_caller_s_voice_is_bounded(upstream: Server) -> None:
    agent = Agent(Line())
    async with living(agent):
        await leading(agent)
        for _ in range(1000):  # without a turn of the loop in which they could be sent
            agent.heard(FRAME, True)
        assert len(agent._unsent) == 96000


async def test_of_many_errors_the_client_is_told_some(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([], SETTINGS)
    async with living(agent):
        line = await leading(agent)
        await upstream.says(*[{"type": "error", "error": {"message": "no"}}] * 500, created(), done())
        await eventually(lambda: "answer" in line.cues)
        assert errors(line) == ["upstream: no"] * 16
        agent.respond(response)
        await eventually(lambda: response.ended == "done")


async def test_garbage_is_passed_over(upstream: Server) -> None:
    agent = Agent(Line())
    response = Response([], SETTINGS)
    async with living(agent):
        await leading(agent)
        await upstream.says({"type": 7}, {"type": "response.done"}, {"type": "error", "error": 7}, {})
        for odd in ("", "[", "7", "[" * 5000):
            await upstream.sockets[-1].send_str(odd)
        await upstream.says(created(), {**sound(1), "delta": "***"}, words("Hi."), done())
        await eventually(lambda: "answer" in agent.line.cues)  # type: ignore[attr-defined]
        agent.respond(response)
        await eventually(lambda: response.ended)


async def test_one_that_closes_at_once_is_quoted(upstream: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "error", "error": {"message": "all slots are in use"}})
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", full)
    async with TestServer(app) as server:
        url = str(server.make_url("/")).replace("http://", "ws://")
        monkeypatch.setattr(Line, "config", Agents(realtime=Upstream(url=url)))
        agent, response = Agent(Line()), Response([SPEECH], SETTINGS)
        async with living(agent), asyncio.timeout(60):
            agent.respond(response)
            await eventually(lambda: response.ended)
    assert response.ended == "upstream: all slots are in use"
