"""The agent ``realtime`` against an upstream of its own, a good one and bad ones."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from responding import Line, Response, living, said, upstream_of
from waiting import eventually

from runtime.config import Agents, Upstream
from transceiver.agents import Item, Settings, realtime
from transceiver.speech.tasks import Failure
from transceiver.speech.words import whole

SPEECH = Item(id="a", role="user", pcm=b"\x01\x02" * 30000)


def event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


class Server:
    """Answers ``response.create`` with ``answers``; ``how`` it does otherwise is the test's."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.connections = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.how = "well"
        self.answers: list[str | bytes] = [
            event("response.output_audio_transcript.delta", delta="Hi."),
            event("response.output_audio.delta", delta=b64encode(b"\x03\x04" * 100).decode()),
            event("response.done", response={"status": "completed", "usage": {"total_tokens": 3}}),
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        assert request.query["model"] == "gpt-realtime"
        if self.how == "refuses":
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        await socket.send_str(event("session.created"))
        async for message in socket:
            asked = json.loads(message.data)
            self.asked.append(asked)
            if asked["type"] != "response.create" or self.how == "hangs":
                continue
            if self.how == "closes":
                await socket.close()
                break
            if self.how == "breaks off":
                assert request.transport
                request.transport.close()
                break
            for answer in self.answers:
                if isinstance(answer, str):
                    await socket.send_str(answer)
                else:
                    await socket.send_frame(answer, WSMsgType.TEXT)
        return socket


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    made = Server()
    async with upstream_of(made.handle, monkeypatch, timeout_s=30.0, turns="session"):
        yield made


async def answer(response: Response) -> Response:
    agent = realtime.Agent(Line())
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: response.ended)
    return response


async def test_a_turn_is_relayed_and_its_answer_streamed_back(upstream: Server) -> None:
    response = await answer(Response([SPEECH], Settings(instructions="Be kind.")))
    assert (response.ended, response.said, response.pcm) == ("done", "Hi.", b"\x03\x04" * 100)
    assert response.usage == {"total_tokens": 3}
    session = upstream.asked[0]["session"]
    assert session["instructions"] == "Be kind."
    assert session["audio"]["input"]["turn_detection"] is None
    kinds = [asked["type"] for asked in upstream.asked]
    append = "input_audio_buffer.append"
    assert kinds == ["session.update", append, append, "input_audio_buffer.commit", "response.create"]
    assert b"".join(b64decode(asked["audio"]) for asked in upstream.asked[1:3]) == SPEECH.pcm


async def test_text_and_function_calls(upstream: Server) -> None:
    upstream.answers[:2] = [
        event("response.output_text.delta", delta="One moment."),
        event("response.function_call_arguments.done", name="dial", arguments="{}", call_id="c"),
    ]
    response = await answer(Response([said("dial")], Settings(modality="text")))
    assert (response.written, response.calls) == ("One moment.", [("dial", "{}")])
    assert upstream.asked[1]["item"]["content"] == [{"type": "input_text", "text": "dial"}]


async def test_what_upstream_cuts_within_a_character_is_used(upstream: Server) -> None:
    upstream.answers[:1] = [
        event("response.output_audio_transcript.delta", delta="Hi \ud83d"),
        event("response.output_audio_transcript.delta", delta="\ude00!"),
        b'{"type":"response.output_audio_transcript.delta","delta":"\xf0\x9f"}',
        event("response.function_call_arguments.done", name="dial", arguments='{"a":"\ude00"}', call_id="\ud83d"),
    ]
    response = await answer(Response([said("hello")]))
    assert whole(response.said) == "Hi 😀!\ufffd"
    assert response.calls == [("dial", '{"a":"\ufffd"}')]
    assert (response.ended, response.pcm) == ("done", b"\x03\x04" * 100)
    assert upstream.connections == 1


async def test_an_error_with_half_a_character_is_told(upstream: Server) -> None:
    upstream.answers = [event("error", error={"message": "too much \ud83d"})]
    response = await answer(Response([said("hello")]))
    assert response.ended == "upstream: too much \ufffd"


async def test_what_upstream_knows_is_not_told_again(upstream: Server) -> None:
    agent = realtime.Agent(Line())
    first, second = Response([said("one")]), Response([said("one"), said("two", 2)], id="resp_2")
    async with living(agent):
        for response in (first, second):
            agent.respond(response)
            await eventually(lambda response=response: response.ended == "done")
    created = [asked["item"] for asked in upstream.asked if asked["type"] == "conversation.item.create"]
    assert [item["content"][0]["text"] for item in created] == ["one", "two"]
    assert upstream.connections == 1


@pytest.mark.parametrize("how", ["refuses", "hangs", "closes", "breaks off"])
async def test_a_bad_upstream_costs_one_response_and_the_next_connects_again(
    upstream: Server, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "hangs":
        hasty = Line.config.realtime.model_copy(update={"timeout_s": 1.0})
        monkeypatch.setattr(Line, "config", Agents(realtime=hasty))
    agent = realtime.Agent(Line())
    first, second = Response([said("one")]), Response([said("one"), said("two", 2)], id="resp_2")
    async with living(agent):
        upstream.how = how
        agent.respond(first)
        await eventually(lambda: first.ended)
        assert first.ended.startswith("upstream: ")
        upstream.how = "well"
        upstream.asked.clear()
        agent.respond(second)
        await eventually(lambda: second.ended)
    assert second.ended == "done"
    # The new connection knows nothing: it is told all of the conversation.
    assert len([asked for asked in upstream.asked if asked["type"] == "conversation.item.create"]) == 2


async def test_garbage_is_passed_over(upstream: Server) -> None:
    upstream.answers[:0] = [
        "",
        "\x00{",
        "[" * 5000,
        "7",
        "{}",
        event("response.output_audio.delta", delta="***"),
        event("response.output_audio.delta", delta=7),
        event("response.output_text.delta"),
        event("response.function_call_arguments.done", name=7),
    ]
    response = await answer(Response([said("hello")]))
    assert (response.ended, response.pcm) == ("done", b"\x03\x04" * 100)


@pytest.mark.parametrize(
    "answered",
    [
        event("error", error={"message": "no such voice"}),
        event(
            "response.done", response={"status": "failed", "status_details": {"error": {"message": "no such voice"}}}
        ),
    ],
)
async def test_what_upstream_says_went_wrong_is_said(upstream: Server, answered: str) -> None:
    upstream.answers = [answered]
    assert (await answer(Response([said("hello")]))).ended == "upstream: no such voice"


@pytest.mark.parametrize("status", ["incomplete", "cancelled"])
async def test_what_upstream_does_not_finish_has_failed_and_the_client_is_told(upstream: Server, status: str) -> None:
    details = {"reason": "content_filter"}
    upstream.answers[-1] = event("response.done", response={"status": status, "status_details": details})
    line = Line()
    agent, response = realtime.Agent(line), Response([said("hello")])
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: response.ended)
    assert response.ended == f"upstream: the response is {status}: content_filter"
    assert [event["error"]["message"] for event in line.events] == [response.ended]


async def test_a_cancelled_response_makes_way_for_the_next(upstream: Server) -> None:
    upstream.how = "hangs"
    agent = realtime.Agent(Line())
    first, second = Response([said("one")]), Response([said("two", 2)], id="resp_2")
    async with living(agent):
        agent.respond(first)
        await eventually(lambda: upstream.asked)
        agent.cancelled(first)
        upstream.how = "well"
        agent.respond(second)
        await eventually(lambda: second.ended)
    assert (first.ended, second.ended) == ("", "done")


async def test_a_key_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "config", Agents(realtime=Upstream(key_file=Path("/nowhere/key"))))
    async with asyncio.timeout(60):
        assert (await answer(Response([]))).ended == "agents.realtime.key_file: No such file or directory"


async def test_what_upstream_heard_is_told_by_our_name_of_the_item(upstream: Server) -> None:
    upstream.answers[:0] = [
        event("input_audio_buffer.committed", item_id="theirs"),
        event("conversation.item.input_audio_transcription.completed", item_id="theirs", transcript="hello"),
        event("conversation.item.input_audio_transcription.completed", item_id="nobody's", transcript="odd"),
    ]
    line = Line()
    agent = realtime.Agent(line)
    asked = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    response = Response([SPEECH], Settings(more=asked))
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: response.ended)
    assert line.texts == {"a": "hello"}
    assert upstream.asked[0]["session"]["audio"]["input"]["transcription"] == {"model": "whisper-1"}


async def test_a_connection_that_breaks_between_two_turns_is_made_again(upstream: Server) -> None:
    agent = realtime.Agent(Line())
    first, second = Response([said("one")]), Response([said("two", 2)], id="resp_2")
    async with living(agent):
        agent.respond(first)
        await eventually(lambda: first.ended)
        await upstream.sockets[0].close()
        await eventually(lambda: agent._reading is None or agent._reading.done())
        agent.respond(second)
        await eventually(lambda: second.ended)
    assert (second.ended, upstream.connections) == ("done", 2)


async def test_who_takes_its_place_tells_another_upstream_connection_the_whole_conversation(upstream: Server) -> None:
    first, second = Response([said("one")]), Response([said("one"), said("two", 2)], id="resp_2")
    for response in (first, second):
        agent = realtime.Agent(Line())
        async with living(agent):
            agent.resume(None, response.items)
            agent.respond(response)
            await eventually(lambda response=response: response.ended == "done")
    created = [asked["item"] for asked in upstream.asked if asked["type"] == "conversation.item.create"]
    assert [item["content"][0]["text"] for item in created] == ["one", "one", "two"]
    assert upstream.connections == 2


async def test_one_that_takes_a_call_over_tells_upstream_before_it_is_asked(upstream: Server) -> None:
    agent = realtime.Agent(Line())
    async with living(agent):
        await agent.warm(Settings(instructions="Be kind."), [said("one")])
        await eventually(lambda: len(upstream.asked) == 2)
        assert upstream.asked[0]["session"]["instructions"] == "Be kind."
        assert upstream.asked[1]["item"]["content"] == [{"type": "input_text", "text": "one"}]
        response = Response([said("one"), said("two", 2)])
        agent.respond(response)
        await eventually(lambda: response.ended == "done")
    created = [asked["item"] for asked in upstream.asked if asked["type"] == "conversation.item.create"]
    assert [item["content"][0]["text"] for item in created] == ["one", "two"]
    assert upstream.connections == 1


def answers_with(words: str, **call: str) -> list[str]:
    """What upstream says: those words, and a function call if that is given."""
    called = [event("response.function_call_arguments.done", **call)] if call else []
    done = event("response.done", response={"status": "completed"})
    return [event("response.output_audio_transcript.delta", delta=words), *called, done]


async def test_what_upstream_made_itself_is_not_told_again(upstream: Server) -> None:
    agent = realtime.Agent(Line())
    upstream.answers = answers_with("Hi.", name="dial", arguments="{}", call_id="call_1")
    items = [said("one")]
    async with living(agent):
        first = Response(list(items))
        agent.respond(first)
        await eventually(lambda: first.ended == "done")
        items += [
            Item("item_2", role="assistant", text="Hi."),
            Item("item_3", "function_call", name="dial", arguments="{}", call_id="call_1"),
            Item("item_4", "function_call_output", call_id="call_1", text="busy"),
            Item("item_5", role="assistant", text="Hi."),  # of somebody else's: it was said once
        ]
        second = Response(list(items), id="resp_2")
        agent.respond(second)
        await eventually(lambda: second.ended == "done")
    created = [asked["item"] for asked in upstream.asked if asked["type"] == "conversation.item.create"]
    assert [(item["type"], item.get("role")) for item in created] == [
        ("message", "user"),
        ("function_call_output", None),
        ("message", "assistant"),
    ]
    assert upstream.connections == 1


async def test_an_answer_that_was_not_heard_to_its_end_is_told_over_another_connection(upstream: Server) -> None:
    agent = realtime.Agent(Line())
    upstream.answers = answers_with("I think that it is late.")
    async with living(agent):
        first = Response([said("one")])
        agent.respond(first)
        await eventually(lambda: first.ended == "done")
        cut = Item("item_2", role="assistant", text="I think that")
        second = Response([said("one"), cut, said("what?", 3)], id="resp_2")
        agent.respond(second)
        await eventually(lambda: second.ended == "done")
    assert upstream.connections == 2
    created = [asked["item"] for asked in upstream.asked if asked["type"] == "conversation.item.create"]
    assert [item["content"][0]["text"] for item in created] == ["one", "one", "I think that", "what?"]


async def test_one_whose_upstream_refuses_it_takes_nothing_over(upstream: Server) -> None:
    upstream.how = "refuses"
    agent = realtime.Agent(Line())
    async with living(agent):
        with pytest.raises(Failure, match="upstream: 401"):
            await agent.warm(Settings(), [said("one")])
