"""Hand-offs of agents in memory: a real session, what decides about its agents, and a link that writes down."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, ClassVar, Literal, cast

from session_moves import MovingCall, a_moving_call
from session_run import until
from waiting import eventually

from transceiver.agents import Base, Item, Line, Response, Settings, echo, loopback, parrot
from transceiver.counters import AGENT_HANDOFFS
from transceiver.handoffs.desk import Handoffs
from transceiver.handover.abroad import Abroad
from transceiver.links.link import Link
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.sessions import AnySession
from wire import messages
from wire.control import Control
from wire.handoffs import Handoff, List, Listed
from wire.messages import Message, Neighbour

EDGE = b"edge/signaling"


class Noting(Base):
    """An agent that writes down what it is told, and answers when the test says so."""

    last: ClassVar[Noting]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.told: list[Any] = []
        self.responses: list[Response] = []
        type(self).last = self

    def configured(self, settings: Settings) -> None:
        self.told.append("configured")

    def heard(self, pcm: bytes, speaking: bool) -> None:
        if self.told[-1:] != ["heard"]:
            self.told.append("heard")

    def committed(self, item: Item) -> None:
        self.told.append(("committed", item.text))

    def respond(self, response: Response) -> None:
        self.responses.append(response)

    def cancelled(self, response: Response) -> None:
        self.told.append(("cancelled", response.id))

    def event(self, event: dict[str, Any]) -> None:
        self.told.append(event["type"])
        self.line.emit({"type": f"{type(self).__name__}.heard"})

    def state(self) -> object:
        return {"from": type(self).__name__}

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self.told.append(("resume", state, [item.text for item in items]))

    def close(self) -> None:
        self.told.append("close")


class First(Noting):
    last: ClassVar[Noting]


class Second(Noting):
    last: ClassVar[Noting]


class Slow(Noting):
    """Is warm when it is let."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    last: ClassVar[Noting]
    let: ClassVar[threading.Event]

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        line.emit({"type": "Slow.early"})

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        self.told.append(("warm", [item.text for item in items]))
        while not self.let.is_set():  # noqa: ASYNC110  # it is set in another thread
            await asyncio.sleep(0.01)


class NeverMade(Base):
    def __init__(self, line: Line) -> None:
        raise RuntimeError("no such model")


class NeverMadeInThread(NeverMade):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"


class NeverWarm(Base):
    def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        raise RuntimeError("no upstream")


class NeverWarmInThread(NeverWarm):
    runs: ClassVar[Literal["loop", "thread"]] = "thread"


class RefusesState(Noting):
    last: ClassVar[Noting]

    def resume(self, state: object, items: Sequence[Item]) -> None:
        if state is not None:
            raise ValueError("of another version")
        super().resume(state, items)


class At8(loopback.Agent):
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 8000


class At48(Noting):
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 48000
    last: ClassVar[Noting]


class Unknown(Noting):
    """Answers everything it is asked at once."""

    last: ClassVar[Noting]

    def respond(self, response: Response) -> None:
        response.text("at your service")
        response.done()


AGENTS: dict[str, type[Base]] = {
    "echo": echo.Agent,
    "loopback": loopback.Agent,
    "parrot": parrot.Agent,
    "first": First,
    "second": Second,
    "slow": Slow,
    "never-made": NeverMade,
    "never-made-in-thread": NeverMadeInThread,
    "never-warm": NeverWarm,
    "never-warm-in-thread": NeverWarmInThread,
    "refuses-state": RefusesState,
    "loopback-at-8": At8,
    "at-48": At48,
    "at-once": Unknown,
}


def made(kind: type[Noting]) -> bool:
    """Whether there is one, which has been told something."""
    return hasattr(kind, "last") and bool(kind.last.told)


def says(call: MovingCall, type_: str, **fields: Any) -> None:
    assert call.channel is not None
    call.channel.send(json.dumps({"type": type_, **fields}))


def writes(call: MovingCall, text: str) -> None:
    content = [{"type": "input_text", "text": text}]
    says(call, "conversation.item.create", item={"type": "message", "role": "user", "content": content})


def gained(before: Counter[str]) -> dict[str, int]:
    return dict(Counter(AGENT_HANDOFFS) - before)


def refused(reply: object, code: str) -> str:
    assert isinstance(reply, messages.Refused), reply
    assert reply.code == code
    return reply.message


async def heard_more(call: MovingCall, packets: int = 5) -> None:
    heard = len(call.rtp)
    await until(lambda: len(call.rtp) >= heard + packets)


def unbroken(call: MovingCall) -> None:
    """The caller got every packet, each 20 ms after the one before."""
    assert {(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(call.rtp)} == {1}
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(call.rtp)} == {960}


class Desk:
    """The hand-offs of one ``session()``, which may be another from time to time. ``said`` has the replies in order,
    ``again`` what was to be handled once more."""

    def __init__(self, session: Callable[[], AnySession], agents: Mapping[str, type[Base]]) -> None:
        self.said: list[Message] = []
        self.again: list[Message] = []
        self.full = False
        self._session, self._agents = session, agents
        self._request = 0
        self.handoffs = Handoffs(
            cast(Link, self), self._live, lambda: [session()], self._find, self._room, self._once_more, self._abroad
        )

    def control(self, peer: bytes, message: Message, request: int | None = None) -> None:
        self.said.append(message)

    def ask(self, agent: str, owner: str = "", ufrag: str = "") -> None:
        """Asks for a hand-off. Raises RequestError where it does not begin."""
        self._request += 1
        said = Handoff(ufrag=ufrag or self._session().ufrag, agent=agent, owner=owner)
        self.handoffs.handlers[Handoff](EDGE, self._request, said)

    async def hand_off(self, agent: str) -> Message:
        """Asks for a hand-off, and returns the reply."""
        before = len(self.said)
        self.ask(agent)
        await eventually(lambda: len(self.said) > before)
        return self.said[-1]

    def listed(self, **wanted: Any) -> Listed:
        """The sessions, as an edge is told."""
        self.handoffs.handlers[List](EDGE, 1, List(**wanted))
        found = self.said.pop()
        assert isinstance(found, Listed)
        return found

    def _live(self, ufrag: str, owner: str) -> AnySession | None:
        session = self._session()
        known = ufrag == session.ufrag and owner in ("", session.owner)
        return session if known and not session.ended and not session.talk.over else None

    def _find(self, name: str) -> tuple[str, type[Base]]:
        if name not in self._agents:
            raise RequestError(f"no agent called {name!r}: there is {', '.join(self._agents)}", "model_not_found")
        return name, self._agents[name]

    def _room(self, session: AnySession, agent: str) -> None:
        if self.full:
            raise RequestError("no room", "full")

    def _abroad(self, call: Session, to: Neighbour, agent: str) -> Abroad:
        raise AssertionError("there is no other transceiver")

    def _once_more(self, peer: bytes, control: Control[Any]) -> None:
        self.again.append(control.message)


@asynccontextmanager
async def a_call_of(first: str, agents: Mapping[str, type[Base]] = AGENTS) -> AsyncIterator[tuple[MovingCall, Desk]]:
    """A connected call of the agent ``first``, and the desk that hands it off to others of ``agents``."""
    async with a_moving_call(agents[first]) as call:
        desk = Desk(lambda: call.session, agents)
        call.session.talk.agent_name = first
        try:
            yield call, desk
        finally:
            await desk.handoffs.close()
