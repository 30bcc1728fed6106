"""The agents, each on a line that writes down what it is asked to do."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from transceiver import agents
from transceiver.agents import Base, echo, parrot


class Line:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def say(self, pcm: bytes) -> None:
        self.asked.append(("say", pcm))

    def stop(self) -> None:
        self.asked.append(("stop",))

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.asked.append(("opus", payload, timestamp, marker))

    def emit(self, event: dict[str, Any]) -> None:
        self.asked.append(("emit", event))

    def transcribed(self, item: str, text: str) -> None:
        self.asked.append(("transcribed", item, text))


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * 480


def phrase(agent: Base, numbers: range) -> bytes:
    """A turn of these frames, as a session tells of it: the edge first, then the frame; the frame, then the edge."""
    agent.speech_started()
    for number in numbers:
        agent.heard(frame(number), number != numbers[-1])
    agent.speech_stopped()
    return b"".join(frame(number) for number in numbers)


def said(line: Line) -> list[bytes]:
    return [asked[1] for asked in line.asked if asked[0] == "say"]


# --- the folder ---


def test_every_file_of_the_folder_is_an_agent_with_a_class_agent() -> None:
    files = {path.stem for path in Path(agents.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(agents.names()) == files
    for name in agents.names():
        found = agents.find(name)
        assert found is not None
        assert found.__name__ == "Agent"
        assert issubclass(found, Base)
        assert found.hears in ("pcm", "opus")
        assert found.__module__ == f"transceiver.agents.{name}"
        assert inspect.getdoc(found)


def test_names_are_sorted() -> None:
    assert agents.names() == sorted(agents.names())
    assert {"echo", "parrot"} <= set(agents.names())


@pytest.mark.parametrize(
    "name",
    ["", "Parrot", "parrot ", "nobody", "__init__", "..", "os", "echo.Agent", "../echo", "transceiver.agents.echo"],
)
def test_nothing_else_can_be_asked_for(name: str) -> None:
    assert agents.find(name) is None


@pytest.mark.parametrize("name", agents.names())
def test_every_agent_takes_everything_that_a_call_brings(name: str) -> None:
    found = agents.find(name)
    assert found is not None
    agent = found(Line())
    agent.heard(frame(1), False)
    agent.heard_opus(b"\xf8\xff\xfe", 0xFFFFFFFF, True)
    agent.speech_stopped()
    agent.speech_started()
    agent.speech_started()
    agent.event({"type": "response.create"})
    agent.event({"type": ""})
    agent.close()


def test_the_base_hears_and_says_nothing() -> None:
    line = Line()
    phrase(Base(line), range(5))
    assert line.asked == []


# --- echo ---


def test_echo_sends_every_packet_straight_back() -> None:
    line = Line()
    agent = echo.Agent(line)
    assert agent.hears == "opus"
    agent.heard_opus(b"a", 1, True)
    agent.heard_opus(b"", 961, False)
    assert line.asked == [("opus", b"a", 1, True), ("opus", b"", 961, False)]


# --- parrot ---


def test_parrot_says_back_what_was_said_when_the_turn_ends() -> None:
    line = Line()
    agent = parrot.Agent(line)
    agent.speech_started()
    for number in range(10):
        agent.heard(frame(number), True)
    assert said(line) == []
    agent.speech_stopped()
    assert said(line) == [b"".join(frame(number) for number in range(10))]


def test_parrot_includes_the_300_ms_before_speech_was_noticed() -> None:
    line = Line()
    agent = parrot.Agent(line)
    for number in range(50):
        agent.heard(frame(number), False)
    agent.speech_started()
    for number in range(50, 60):
        agent.heard(frame(number), True)
    agent.speech_stopped()
    assert said(line) == [b"".join(frame(number) for number in range(35, 60))]


def test_parrot_stops_when_it_is_spoken_over() -> None:
    line = Line()
    agent = parrot.Agent(line)
    phrase(agent, range(10))
    line.asked.clear()
    agent.speech_started()
    assert line.asked == [("stop",)]


def test_a_second_phrase_has_nothing_of_the_first() -> None:
    line = Line()
    agent = parrot.Agent(line)
    phrase(agent, range(10))
    for number in range(100, 103):
        agent.heard(frame(number), False)
    agent.speech_started()
    for number in range(103, 110):
        agent.heard(frame(number), True)
    agent.speech_stopped()
    assert said(line)[1] == b"".join(frame(number) for number in range(100, 110))


def test_parrot_keeps_30_seconds_at_most() -> None:
    line = Line()
    agent = parrot.Agent(line)
    agent.speech_started()
    for number in range(5000):
        agent.heard(frame(number), True)
    agent.speech_stopped()
    assert said(line) == [b"".join(frame(number) for number in range(3500, 5000))]


def test_silence_alone_is_not_answered() -> None:
    line = Line()
    agent = parrot.Agent(line)
    for _ in range(500):
        agent.heard(frame(0), False)
    assert line.asked == []
