"""OpenAI's agents package for Python against a running edge, as its users have it: only the URL is another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import function_tool, set_tracing_disabled
from agents.realtime import (
    RealtimeAgent,
    RealtimeModelSendSessionUpdate,
    RealtimeRunner,
    RealtimeSession,
    RealtimeSessionEvent,
)
from saying import LONG, PAUSE, RATE_HZ, picture, spoken
from waiting import eventually

from lab.appliance import Appliance

PIECE = RATE_HZ * 2 // 10  # bytes of 100 ms


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    directory: Path = tmp_path_factory.mktemp("openai-agents")
    with Appliance(directory, http_port=18081, media_port=13479) as appliance:
        yield appliance


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Talk:
    """A session, and what it told so far."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.events: list[RealtimeSessionEvent] = []

    async def listen(self) -> None:
        async for event in self.session:
            self.events.append(event)

    def of_type(self, type_: str) -> list[Any]:
        """The session's own events."""
        return [event for event in self.events if event.type == type_]

    def from_server(self, type_: str) -> list[dict[str, Any]]:
        """The server's, as they came."""
        raw = (event.data for event in self.events if event.type == "raw_model_event")
        return [event.data for event in raw if event.type == "raw_server_event" and event.data["type"] == type_]

    def ends(self) -> list[str]:
        """How each response ended, so far."""
        return [event["response"]["status"] for event in self.from_server("response.done")]

    async def speak(self, text: str) -> None:
        pcm = await spoken(text) + PAUSE
        for at in range(0, len(pcm), PIECE):
            await self.session.send_audio(pcm[at : at + PIECE])

    async def look_at(self, image: str) -> None:
        await self.session.send_message(
            {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": image}]}
        )

    def transcript(self, item_id: str) -> str:
        """Of an item, as the session's history has it."""
        history = self.of_type("history_updated")[-1].history
        (item,) = (item for item in history if item.item_id == item_id)
        return "".join(part.transcript or "" for part in item.content)


@pytest.fixture
async def talk(house: Appliance, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Talk]:
    """A session with the agent ``offline``. Whatever the client could not read, or was refused, fails the test."""
    set_tracing_disabled(True)
    agent = RealtimeAgent(name="caller", instructions="Speak English.", tools=[get_weather])
    settings: dict[str, Any] = {"turn_detection": {"type": "server_vad", "interrupt_response": True}}
    url = house.url.replace("http://", "ws://") + "/v1/realtime?model=offline"
    with caplog.at_level(logging.WARNING):
        session = await RealtimeRunner(agent).run(
            model_config={"api_key": house.token, "url": url, "initial_model_settings": settings}
        )
        async with session:
            talk = Talk(session)
            listening = asyncio.create_task(talk.listen())
            yield talk
        await listening
    assert [event.error for event in talk.of_type("error")] == []
    assert [record for record in caplog.records if record.name.startswith("openai.agents")] == []
    await eventually(lambda: house.metrics("transceiver")[("firsthop_transceiver_sessions",)] == 0)


async def test_a_session_is_made_and_changed(talk: Talk) -> None:
    await eventually(lambda: talk.from_server("session.updated"))
    session = talk.from_server("session.updated")[0]["session"]
    assert session["instructions"] == "Speak English."
    assert [tool["name"] for tool in session["tools"]] == ["get_weather"]
    update = RealtimeModelSendSessionUpdate(session_settings={"voice": "en-us+f3", "tracing": None})
    await talk.session.model.send_event(update)
    await eventually(
        lambda: any(
            event["session"]["audio"]["output"]["voice"] == "en-us+f3" for event in talk.from_server("session.updated")
        )
    )


async def test_speech_is_heard_and_answered_in_speech(talk: Talk) -> None:
    await talk.speak("The birch canoe slid on the smooth planks.")
    await eventually(talk.ends)
    heard = talk.from_server("conversation.item.input_audio_transcription.completed")[0]
    assert heard["transcript"]
    assert talk.transcript(heard["item_id"]) == heard["transcript"]
    answer = talk.of_type("audio")[0].item_id
    assert heard["transcript"] in talk.transcript(answer)
    assert sum(len(event.audio.data) for event in talk.of_type("audio")) > RATE_HZ


async def test_a_function_is_called_and_its_output_spoken(talk: Talk) -> None:
    await talk.session.send_message("What is the weather in Paris?")
    await eventually(lambda: len(talk.ends()) == 2)
    (called,) = talk.of_type("tool_end")
    assert called.output == "sunny in Paris"
    assert "sunny in Paris" in talk.transcript(talk.of_type("audio")[0].item_id)


async def test_a_picture_arrives_whole(talk: Talk) -> None:
    image = picture()
    await talk.look_at(image)
    await eventually(talk.ends)
    kilobytes = round(len(image.partition(",")[2]) * 3 / 4 / 1000)
    assert f"{kilobytes} kilobytes" in talk.transcript(talk.of_type("audio")[0].item_id)
    (item,) = (
        event["item"] for event in talk.from_server("conversation.item.added") if event["item"]["role"] == "user"
    )
    assert [part["type"] for part in item["content"]] == ["input_image"]


async def test_a_caller_who_speaks_up_is_given_the_floor(talk: Talk) -> None:
    await talk.session.send_message(LONG)
    await eventually(lambda: talk.of_type("audio"))
    await talk.speak("Please be quiet now.")
    await eventually(lambda: len(talk.ends()) == 2)
    assert talk.ends() == ["cancelled", "completed"]
    assert talk.from_server("response.done")[0]["response"]["status_details"]["reason"] == "turn_detected"
    item = talk.of_type("audio")[0].item_id
    assert [event.item_id for event in talk.of_type("audio_interrupted")] == [item]
    (truncated,) = talk.from_server("conversation.item.truncated")
    assert truncated["item_id"] == item


async def test_an_answer_is_interrupted_by_hand(talk: Talk) -> None:
    # The client cancels responses where the server would not.
    turns: Any = {"type": "server_vad", "interrupt_response": False}
    update = RealtimeModelSendSessionUpdate(session_settings={"turn_detection": turns, "tracing": None})
    await talk.session.model.send_event(update)
    await talk.session.send_message(LONG)
    await eventually(lambda: talk.of_type("audio"))
    await talk.session.interrupt()
    await eventually(talk.ends)
    assert talk.ends() == ["cancelled"]
    assert talk.from_server("response.done")[0]["response"]["status_details"]["reason"] == "client_cancelled"
    await eventually(lambda: talk.from_server("conversation.item.truncated"))
    assert talk.of_type("audio_interrupted")
