"""A talk in a protocol that is not OpenAI's: one of lines, which has nothing of the other's."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import pytest

from runtime.config import Agents
from transceiver.agents import Base, Line
from transceiver.counters import ENDS
from transceiver.talk.protocol import Conversation, Partner, Seat, Surroundings
from transceiver.talk.talk import Talk


class Chat:
    """Passes each line on to the agent as an event, shouted."""

    seat: Seat  # which nobody asks for here

    def __init__(self, partner: Partner, around: Surroundings) -> None:
        self.partner, self.around = partner, around
        self.answering: str | None = None
        self.closed = False

    @property
    def created(self) -> dict[str, Any]:
        return {"line": "welcome"}

    def begin(self) -> None:
        self.partner.event({"line": "begin"})

    def client_event(self, text: str | bytes, now: float) -> None:
        self.partner.event({"line": str(text).upper()})

    def hear(self, pcm: bytes, now: float) -> bool:
        return False

    def tick(self, now: float) -> bool:
        return False

    def pressed(self, digit: str, received_at: int) -> None: ...

    turn = ""

    def transcribing(self, item: str, delta: str) -> None: ...
    def transcribed(self, item: str, text: str) -> None: ...

    def hush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class Lines:
    """The protocol of such a session."""

    session: ClassVar[dict[str, Any]] = {}

    def converse(self, partner: Partner, around: Surroundings, *, rate_hz: int, media: bool) -> Conversation:
        self.chat = Chat(partner, around)
        return self.chat

    def write(self, event: dict[str, Any]) -> tuple[dict[str, Any], str]:
        return event, event["line"]

    def error(self, code: str, message: str) -> dict[str, Any]:
        return {"line": f"! {code}"}

    def fit(self, event: dict[str, Any], text: str, most_bytes: int, asked: str | None) -> list[str]:
        return [text[:most_bytes]]


class Echo(Base):
    def event(self, event: dict[str, Any]) -> None:
        if event["line"] == "FALL":
            raise RuntimeError("it fell")
        self.line.emit(event)


class Eager(Echo):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        line.emit({"line": "early"})
        line.stop()
        line.transcribed("nothing", "yet")


def talk_of(agent: type[Base]) -> tuple[Talk, Lines, list[str]]:
    lines = Lines()
    talk = Talk("rtc_1", ("echo", agent), lines, config=Agents())
    told: list[str] = []
    talk.watchers.add("client", lambda text, *_: told.append(text))
    return talk, lines, told


async def test_what_was_said_before_the_beginning_is_heard_after_it_and_in_order() -> None:
    talk, _, told = talk_of(Echo)
    talk.client_event("one")
    talk.client_event("two")
    talk.greet()
    assert told == []
    talk.begin(lambda reason: None)
    talk.client_event("three")
    talk.greet()
    assert told == ["begin", "ONE", "TWO", "THREE", "welcome"]


async def test_an_agent_may_say_something_while_it_is_made() -> None:
    talk, _, told = talk_of(Eager)
    talk.begin(lambda reason: None)
    assert told == ["early", "begin"]


async def test_an_agent_that_raises_ends_its_talk_with_last_words_in_its_protocol() -> None:
    talk, lines, told = talk_of(Echo)
    before = Counter(ENDS)
    talk.begin(talk.end)
    talk.client_event("fall")
    assert told == ["begin", "! agent_failed"]
    assert lines.chat.closed
    assert Counter(ENDS) - before == Counter(agent_failed=1)
    talk.client_event("more")
    talk.greet()
    assert told == ["begin", "! agent_failed"]
    await talk.joined()


@pytest.mark.parametrize(("reason", "words"), [("hangup", []), ("expired", ["! session_expired"])])
async def test_a_client_is_told_of_an_end_that_it_did_not_ask_for(reason: str, words: list[str]) -> None:
    talk, _, told = talk_of(Echo)
    talk.begin(lambda reason: None)
    talk.end(reason)
    assert told == ["begin", *words]


async def test_where_the_client_knows_already_nothing_is_said() -> None:
    talk, _, told = talk_of(Echo)
    talk.begin(lambda reason: None)
    talk.end("shutdown", in_words=False)
    assert told == ["begin"]
