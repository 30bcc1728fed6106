"""OpenAI's own Python client against a running edge, as its users have it: only the base URL is another."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter
from saying import LONG, PAUSE, RATE_HZ, picture, spoken
from waiting import eventually

from lab.appliance import Appliance

DEADLINE_S = 60
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
PIECE = RATE_HZ * 2 // 10  # bytes of 100 ms
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    directory: Path = tmp_path_factory.mktemp("openai-client")
    with Appliance(directory, http_port=18080, media_port=13478) as appliance:
        yield appliance


def client(house: Appliance) -> AsyncOpenAI:
    return AsyncOpenAI(api_key=house.token, base_url=f"{house.url}/v1")


async def until(connection: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    """All events up to the first that is ``wanted``, each as the client's own types have it."""
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in connection:
            seen.append(event)
            SERVER_EVENT.validate_python(event.to_dict())
            if wanted(event):
                return seen
            assert event.type != "error", event.error.message
    raise AssertionError("the connection ended")


def is_a(*types: str) -> Callable[[Any], bool]:
    return lambda event: event.type in types


async def response(connection: Any) -> tuple[Any, list[Any]]:
    """The next response that is done, and all events until then."""
    seen = await until(connection, is_a("response.done"))
    return seen[-1].response, seen


def transcript(events: list[Any]) -> str:
    """What the agent says in them."""
    return "".join(event.delta for event in events if event.type == "response.output_audio_transcript.delta")


async def speak(connection: Any, text: str) -> None:
    pcm = await spoken(text) + PAUSE
    for at in range(0, len(pcm), PIECE):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + PIECE]).decode())


async def say(connection: Any, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})


async def test_a_function_is_called_and_its_output_spoken(house: Appliance) -> None:
    async with client(house).realtime.connect(model="offline") as connection:
        await connection.session.update(session={"type": "realtime", "tools": [WEATHER]})
        await say(connection, "What is the weather in Paris?")
        await connection.response.create()
        asked, _ = await response(connection)
        (call,) = asked.output
        assert (call.type, call.name) == ("function_call", "get_weather")
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 21 degrees"}
        await connection.conversation.item.create(item=output)
        await connection.response.create()
        answered, events = await response(connection)
    assert answered.status == "completed"
    assert "sunny, 21 degrees" in transcript(events)
    pcm = b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta")
    assert len(pcm) > 24000  # half a second of speech at the least


async def test_text_is_answered_in_text(house: Appliance) -> None:
    async with client(house).realtime.connect(model="parrot") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await say(connection, "hello")
        await connection.response.create()
        answered, events = await response(connection)
    assert answered.status == "completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "hello"


async def test_what_is_wrong_names_the_event_that_was(house: Appliance) -> None:
    async with client(house).realtime.connect(model="parrot") as connection:
        await connection.response.cancel(event_id="mine")
        event = (await until(connection, is_a("error")))[-1]
    assert event.error.event_id == "mine"


async def test_speech_is_heard_and_answered_in_speech(house: Appliance) -> None:
    async with client(house).realtime.connect(model="offline") as connection:
        turns: Any = {"type": "server_vad", "silence_duration_ms": 300}
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": turns}}})
        updated = (await until(connection, is_a("session.updated")))[-1]
        assert updated.session.audio.input.turn_detection.silence_duration_ms == 300
        await speak(connection, "The birch canoe slid on the smooth planks.")
        answered, events = await response(connection)
        heard = next(e for e in events if e.type == "conversation.item.input_audio_transcription.completed")
        await connection.conversation.item.retrieve(item_id=heard.item_id)
        item = (await until(connection, is_a("conversation.item.retrieved")))[-1].item
        await connection.conversation.item.delete(item_id=heard.item_id)
        await until(connection, is_a("conversation.item.deleted"))
    types = [event.type.removeprefix("input_audio_buffer.") for event in events]
    assert types[:3] == ["speech_started", "speech_stopped", "committed"]
    assert answered.status == "completed"
    assert heard.transcript
    assert item.content[0].transcript == heard.transcript
    assert transcript(events)


async def test_a_picture_arrives_whole(house: Appliance) -> None:
    image = picture()
    async with client(house).realtime.connect(model="offline") as connection:
        content: Any = [{"type": "input_image", "image_url": image}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        item = (await until(connection, is_a("conversation.item.done")))[-1].item
        assert [part.type for part in item.content] == ["input_image"]
        await connection.response.create()
        _, events = await response(connection)
    assert f"{round(len(image.partition(',')[2]) * 3 / 4 / 1000)} kilobytes" in transcript(events)


async def test_a_caller_who_speaks_up_is_given_the_floor(house: Appliance) -> None:
    async with client(house).realtime.connect(model="offline") as connection:
        await say(connection, LONG)
        await connection.response.create()
        first = (await until(connection, is_a("response.output_audio.delta")))[-1]
        await speak(connection, "Please be quiet now.")
        interrupted, events = await response(connection)
        assert "input_audio_buffer.speech_started" in [event.type for event in events]
        assert (interrupted.status, interrupted.status_details.reason) == ("cancelled", "turn_detected")
        await connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=20)
        events = await until(connection, is_a("conversation.item.truncated"))
        assert events[-1].item_id == first.item_id
        if not any(event.type == "response.done" for event in events):
            answered, _ = await response(connection)
            assert answered.status == "completed"


async def test_a_response_is_cancelled(house: Appliance) -> None:
    async with client(house).realtime.connect(model="offline") as connection:
        await say(connection, LONG)
        await connection.response.create()
        await until(connection, is_a("response.output_audio.delta"))
        await connection.response.cancel()
        ended, _ = await response(connection)
    assert (ended.status, ended.status_details.reason) == ("cancelled", "client_cancelled")


async def test_who_hangs_up_leaves_nothing(house: Appliance) -> None:
    async with client(house).realtime.connect(model="parrot") as connection:
        await until(connection, is_a("session.created"))
        assert house.metrics("transceiver")[("firsthop_transceiver_sessions",)] >= 1
    await eventually(lambda: house.metrics("transceiver")[("firsthop_transceiver_sessions",)] == 0)
