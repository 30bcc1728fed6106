"""Agents of another rate than their session's: what they hear and say is the same sound."""

from __future__ import annotations

from itertools import permutations
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from responding import Response, said
from sounds import tone

from runtime.config import Agents
from transceiver.agents import Base, Cue, Item, Settings, loopback, parrot
from transceiver.agents import Line as AnyLine
from transceiver.talk.rates import adapted

RATES = (8000, 16000, 24000, 48000)
HZ, LOUD = 440, 8000
Rate = Literal[8000, 16000, 24000, 48000]


class Line:
    """A line that writes down what is said."""

    config = Agents()

    def __init__(self) -> None:
        self.said = bytearray()
        self.stops = 0

    def say(self, pcm: bytes) -> None:
        self.said += pcm

    def stop(self) -> None:
        self.stops += 1

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None: ...
    def emit(self, event: dict[str, Any]) -> None: ...

    turn = ""

    def transcribing(self, item: str, delta: str) -> None: ...
    def cue(self, cue: Cue) -> None: ...
    def transcribed(self, item: str, text: str) -> None: ...


class Listening(Base):
    """Says back what it hears, and writes the rest down."""

    rate_hz: ClassVar[Rate] = 16000

    def __init__(self, line: AnyLine) -> None:
        super().__init__(line)
        self.frames: list[int] = []
        self.items: list[Item] = []
        self.cancels: list[object] = []
        self.responses: list[object] = []

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.frames.append(len(pcm))
        self.line.say(pcm)

    def committed(self, item: Item) -> None:
        self.items.append(item)

    def respond(self, response: Any) -> None:
        self.responses.append(response)

    def cancelled(self, response: Any) -> None:
        self.cancels.append(response)


def off_tone(pcm: bytes, rate_hz: int) -> float:
    """How much of it is something else than the tone, as a part of the tone: what a sine of any phase does not fit."""
    sound = np.frombuffer(pcm, np.int16).astype(float)
    at = 2 * np.pi * HZ * np.arange(len(sound)) / rate_hz
    waves = np.stack([np.sin(at), np.cos(at)], axis=1)
    fit, *_ = np.linalg.lstsq(waves, sound, rcond=None)
    assert np.hypot(*fit) == pytest.approx(LOUD, rel=0.05)
    return float(np.abs(sound - waves @ fit).max() / LOUD)


@pytest.mark.parametrize(("session_hz", "agent_hz"), list(permutations(RATES, 2)))
def test_a_tone_goes_through_an_agent_of_another_rate_without_a_gap(session_hz: int, agent_hz: int) -> None:
    kind = type("Agent", (Listening,), {"rate_hz": agent_hz})
    line = Line()
    agent = adapted(kind, line, session_hz)
    for n, frame in enumerate(tone(HZ, 50, session_hz, LOUD), 1):
        agent.heard(frame, True)
        assert len(line.said) == n * len(frame), "a frame is said for each that is heard"
    assert set(agent.frames) == {2 * agent_hz // 50}
    late = 2 * session_hz // 1000 * 8  # both filters
    assert off_tone(bytes(line.said[late:]), session_hz) < 0.02


def test_an_agent_of_the_session_s_rate_is_used_as_it_is() -> None:
    assert type(adapted(loopback.Agent, Line(), 24000)) is loopback.Agent


def test_items_have_the_agent_s_rate_and_all_of_their_sound() -> None:
    agent = adapted(Listening, Line(), 8000)
    spoken = Item("one", role="user", pcm=b"".join(tone(HZ, 20, 8000, LOUD)))
    agent.resume(None, [said("hello"), spoken])
    agent.committed(Item("two", role="user", pcm=spoken.pcm))
    assert [item.id for item in agent.items] == ["item_1", "one", "two"]
    for item in agent.items[1:]:
        assert len(item.pcm) == 2 * len(spoken.pcm)
        assert off_tone(item.pcm[2000:-2000], 16000) < 0.02
    assert len(spoken.pcm) == 20 * 320, "the session's own are as they were"


def test_a_response_is_answered_and_its_sound_has_the_session_s_rate_to_its_end() -> None:
    class Parrot(parrot.Agent):
        rate_hz: ClassVar[Rate] = 48000

    sound = b"".join(tone(HZ, 20, 16000, LOUD))
    response = Response([Item("one", role="user", pcm=sound)], Settings())
    adapted(Parrot, Line(), 16000).respond(response)
    assert response.ended == "done"
    assert 0 <= len(response.pcm) - len(sound) <= 2 * 2 * 16, "two milliseconds of silence come before, at most"
    assert off_tone(response.pcm[200:-200], 16000) < 0.02


def test_the_response_that_is_cancelled_is_the_one_that_was_asked_for() -> None:
    agent = adapted(Listening, Line(), 8000)
    response = Response([])
    response.settled = False  # type: ignore[attr-defined]  # as the host's have it
    agent.respond(response)
    agent.cancelled(response)
    assert agent.cancels == agent.responses
    assert len(agent.cancels) == 1


def test_a_stop_ends_what_is_being_said() -> None:
    line = Line()
    agent = adapted(Listening, line, 8000)
    frames = tone(HZ, 2, 8000, LOUD)
    agent.heard(frames[0], True)
    agent.line.stop()
    agent.heard(bytes(len(frames[0])), False)
    assert line.stops == 1
    assert len(line.said) == 2 * len(frames[0])
