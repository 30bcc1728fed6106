"""The agent ``offline``: its rules, its voice and its ears."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import datetime
from typing import Any

import pytest
from responding import Line, Response, living, said
from waiting import eventually

from transceiver.agents import Item, Settings, offline
from transceiver.speech.brain import answer, tool_call
from transceiver.speech.ears import Ears
from transceiver.speech.espeak import speak
from transceiver.speech.sentences import Sentences
from transceiver.speech.tasks import Failure

# Each speaks like the next: what one espeak-ng makes of them may be heard wrongly by another pocketsphinx.
PHRASES = (
    *("what time is it", "what day is it today", "tell me a story", "what is two plus three", "thank you"),
    *("what is the weather in paris", "how are you", "no thank you", "yes please", "spell the word hello"),
)
NOON = datetime(2026, 3, 4, 12, 5)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Tells the weather",
    "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("hello", "Hello! What can I do for you?"),
        ("what time is it", "It is 12:05."),
        ("what day is it", "Today is Wednesday, the 4 of March."),
        ("how much is two plus forty one", "That is 43."),
        ("what is 12 divided by 8", "That is 1.5."),
        ("seven divided by zero", "Nobody can divide by zero."),
        ("three hundred five minus six", "That is 299."),
        ("spell the word edge", "edge is spelt E, D, G, E."),
        ("how are you today", "Every packet in its place, thank you. And you?"),
        ("the birch canoe", "You said: the birch canoe."),
        ("", "I did not hear any words. Please say that again."),
        ("plus", "You said: plus."),
    ],
)
def test_the_rules(asked: str, wanted: str) -> None:
    assert answer(asked, NOON) == wanted


def test_a_story_has_several_sentences() -> None:
    assert len(Sentences().push(answer("tell me a story", NOON))) >= 3


def test_a_function_is_called_whose_words_are_in_the_request() -> None:
    assert tool_call("what is the weather in Paris?", [WEATHER]) == ("get_weather", '{"city": "Paris"}')
    assert tool_call("tell me a story", [WEATHER]) is None


@pytest.mark.parametrize("odd", [{}, {"name": 7}, {"name": "weather", "parameters": {"required": 3}}, {"name": None}])
def test_odd_functions_do_no_harm(odd: dict[str, Any]) -> None:
    tool_call("weather 7", [odd])


def test_sentences_lose_nothing() -> None:
    text = "Dr. No said: yes. And then? He left.\n" + "x" * 1000 + " end"
    cutter = Sentences()
    found = [sentence for i in range(0, len(text), 7) for sentence in cutter.push(text[i : i + 7])]
    assert "".join([*found, cutter.rest()]) == text
    assert max(map(len, found)) <= 400


async def answered(response: Response, line: Line | None = None) -> Response:
    agent = offline.Agent(line or Line())
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: response.ended)
    return response


async def test_text_is_answered_in_text() -> None:
    response = await answered(Response([said("hello")], Settings(modality="text")))
    assert (response.written, response.said, response.pcm) == ("Hello! What can I do for you?", "", b"")
    assert response.ended == "done"


async def test_a_function_is_called_and_its_output_spoken() -> None:
    settings = Settings(tools=(WEATHER,))
    response = await answered(Response([said("the weather in Rome")], settings))
    assert [(name, json.loads(text)) for name, text in response.calls] == [("get_weather", {"city": "Rome"})]
    output = Item(id="out", kind="function_call_output", text="sunny", call_id="c")
    response = await answered(
        Response([said("the weather in Rome"), output], Settings(modality="text", tools=(WEATHER,)))
    )
    assert response.written == "The answer is: sunny."


async def spoken(text: str, voice: str) -> bytes:
    async with aclosing(speak(text, voice)) as speech:
        return b"".join([piece async for piece in speech])


async def test_its_phrases_are_heard_and_answered_in_speech() -> None:
    line = Line()
    items = [Item(id=phrase, role="user", pcm=await spoken(phrase, "en-us")) for phrase in PHRASES]
    for item in items:
        response = await answered(Response([item]), line)
        assert response.ended == "done"
        assert response.said
        assert len(response.pcm) > 24000
    heard = [phrase for phrase in PHRASES if line.texts[phrase] == phrase]
    assert len(heard) >= 0.8 * len(PHRASES), line.texts


async def test_what_is_no_phrase_does_not_become_one() -> None:
    ears = Ears()
    try:
        heard = await ears.transcribe(await spoken("my favourite colour is green", "en-us"))
    finally:
        await ears.close()
    assert {"favorite", "color", "green"} & set(heard.split()), heard


@pytest.mark.parametrize("voice", ["alloy", "ash", "zz-nowhere"])
async def test_a_voice_that_espeak_does_not_have_is_its_english_one(voice: str) -> None:
    response = await answered(Response([said("hello")], Settings(voice=voice)))
    assert response.ended == "done"
    assert response.pcm


async def test_of_a_picture_its_size_is_said() -> None:
    picture = Item(id="a", role="user", images=("data:image/jpeg;base64," + "A" * 400_000,))
    response = await answered(Response([picture], Settings(modality="text")))
    assert response.written == "I see a picture of 300 kilobytes."


async def test_a_cancelled_story_stops() -> None:
    agent = offline.Agent(Line())
    response = Response([said("tell me a story")])
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: response.pcm)
        agent.cancelled(response)
        await eventually(lambda: not agent._tasks)
        assert not response.ended


async def test_without_espeak_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install espeak-ng" in (await answered(Response([said("hello")]))).ended
    with pytest.raises(Failure):
        await anext(speak("hello"))


async def test_a_turn_of_silence_is_answered_too() -> None:
    response = await answered(Response([Item(id="a", role="user", pcm=bytes(4801))], Settings(modality="text")))
    assert response.ended == "done"
