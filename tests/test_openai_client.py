"""OpenAI's own Python client against a running edge, as its users have it: only the base URL is another."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from lab.appliance import Appliance

DEADLINE_S = 60
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


async def response(connection: Any) -> tuple[Any, list[Any]]:
    """The next response that is done, and all events until then."""
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in connection:
            seen.append(event)
            assert event.type != "error", event.error.message
            if event.type == "response.done":
                return event.response, seen
    raise AssertionError("the connection ended")


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
    spoken = "".join(event.delta for event in events if event.type == "response.output_audio_transcript.delta")
    assert "sunny, 21 degrees" in spoken
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
        async with asyncio.timeout(DEADLINE_S):
            async for event in connection:
                if event.type == "error":
                    break
    assert event.type == "error"
    assert event.error.event_id == "mine"
