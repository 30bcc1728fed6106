"""The events of a session in memory, and whole conversations over its data channel."""

from __future__ import annotations

import json
from typing import Any

import pytest
from session_run import (
    Call,
    Recorder,
    Slow,
    a_call,
    ends_with,
    of_type,
    until,
)

from caller.voice import generated
from rtc.codecs.opus import SILENCE, Encoder
from transceiver.agents import parrot
from wire import ufrag

# --- events ---


async def test_the_first_event_says_that_the_session_is_created() -> None:
    async with a_call() as call:
        await call.open_channel()
        await until(lambda: call.events)
        assert call.events[0]["type"] == "session.created"
        assert call.events[0]["session"]["id"] == ufrag.call_id(call.session.ufrag)
        assert call.events[0]["event_id"]


async def test_the_callers_events_reach_the_agent_and_the_agents_the_caller() -> None:
    async with a_call() as call:
        channel = await call.open_channel()
        channel.send('{"type": "its.own"}')
        await until(lambda: {"type": "its.own"} in Recorder.last.happened)
        Recorder.last.line.emit({"type": "its.own.answer", "n": 1})
        await until(lambda: of_type(call, "its.own.answer"))
        assert of_type(call, "its.own.answer")[0]["event_id"]


@pytest.mark.parametrize("message", ["", "{", "[]", '"type"', "{}", '{"type": 1}', b"\xff\xfe", "[" * 60000])
async def test_what_is_no_event_gets_an_error_event(message: str | bytes) -> None:
    async with a_call() as call:
        channel = await call.open_channel()
        channel.send(message)
        await until(lambda: any(event["type"] == "error" for event in call.events))
        error = next(event["error"] for event in call.events if event["type"] == "error")
        assert error["code"] == "invalid_event"
        assert not call.session.ended


async def test_emitting_without_a_channel_is_dropped() -> None:
    async with a_call() as call:
        Recorder.last.line.emit({"type": "x"})
        assert not call.session.ended


def phrase(seconds: float) -> list[bytes]:
    """Opus packets of somebody who speaks, and then is silent for a second."""
    encoder, pcm = Encoder(24000), generated(seconds + 4, seed=3).pcm(24000)
    spoken = pcm[: round(seconds * 48000) // 960 * 960] + bytes(48000)
    return [encoder.encode(spoken[at : at + 960]) for at in range(0, len(spoken), 960)]


async def says(call: Call, packets: list[bytes]) -> None:
    for payload in packets:
        call.speak(payload)
        heard = len(call.rtp)
        await until(lambda heard=heard: len(call.rtp) > heard)  # type: ignore[misc]


# --- conversations ---


async def test_parrot_converses_over_the_data_channel() -> None:
    async with a_call(parrot.Agent) as call:
        channel = await call.open_channel()
        channel.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "instructions": "sing"}}))
        await until(lambda: of_type(call, "session.updated"))
        await says(call, phrase(1.5))
        await until(lambda: of_type(call, "output_audio_buffer.started"))
        types = [event["type"] for event in call.events]
        wanted = ["session.created", "session.updated", "input_audio_buffer.speech_started"]
        wanted += ["input_audio_buffer.committed", "response.created", "response.output_audio_transcript.delta"]
        wanted += ["response.done", "output_audio_buffer.started"]
        assert [type_ for type_ in types if type_ in wanted] == wanted
        await until(lambda: sum(packet.payload != SILENCE for packet in call.rtp) > 20)
        channel.send('{"type": "output_audio_buffer.clear"}')
        await until(lambda: of_type(call, "conversation.item.truncated"))
        assert of_type(call, "conversation.item.truncated")[0]["audio_end_ms"] >= 400


async def test_parrot_says_nothing_where_no_response_is_wanted() -> None:
    async with a_call(parrot.Agent) as call:
        channel = await call.open_channel()
        asked = {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}}
        channel.send(json.dumps({"type": "session.update", "session": asked}))
        await until(lambda: of_type(call, "session.updated"))
        await says(call, phrase(1.0))
        await until(lambda: of_type(call, "input_audio_buffer.committed"))
        assert of_type(call, "response.created") == []
        channel.send('{"type": "response.create"}')
        await until(lambda: of_type(call, "output_audio_buffer.started"))


async def test_a_picture_fits_through_the_data_channel() -> None:
    async with a_call(parrot.Agent) as call:
        channel = await call.open_channel()
        picture = {"type": "input_image", "image_url": "data:image/jpeg;base64," + "A" * 1_500_000}
        item = {"id": "it", "type": "message", "role": "user", "content": [picture]}
        channel.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await until(lambda: of_type(call, "conversation.item.done"))
        assert of_type(call, "conversation.item.done")[0]["item"]["id"] == "it"


async def test_who_watches_sees_and_says_what_the_client_does() -> None:
    async with a_call(parrot.Agent, connected=False) as call:
        seen: list[dict[str, Any]] = []
        call.session.talk.watchers.add(b"signaling", lambda text, *_: seen.append(json.loads(text)))
        call.session.talk.client_event('{"type": "session.update", "session": {"instructions": "sing"}}')
        await call.connect()
        await until(lambda: seen)
        assert seen[0]["session"]["instructions"] == "sing"
        await call.open_channel()
        await until(lambda: call.events)
        assert [event["type"] for event in seen] == ["session.updated", "session.created"]


async def test_an_agent_that_raises_in_its_thread_ends_its_call_and_says_so() -> None:
    async with a_call(Slow) as call:
        channel = await call.open_channel()
        channel.send('{"type": "its.own"}')
        await ends_with(call, "agent_failed")
        await until(lambda: of_type(call, "error"))
        assert of_type(call, "error")[0]["error"]["code"] == "agent_failed"
