"""Hand-offs of agents in memory: a real session, what decides about its agents, and a link that writes down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from session_moves import MovingCall, a_moving_call
from waiting import eventually

from transceiver.agents import Base
from transceiver.handoffs import AnySession, Handoffs
from transceiver.links.link import Link
from transceiver.refusing import RequestError
from wire import messages
from wire.control import Control
from wire.messages import Message

EDGE = b"edge/signaling"


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
            cast(Link, self), self._live, lambda: [session()], self._find, self._room, self._once_more
        )

    def control(self, peer: bytes, message: Message, request: int | None = None) -> None:
        self.said.append(message)

    def ask(self, agent: str, owner: str = "", ufrag: str = "") -> None:
        """Asks for a hand-off. Raises RequestError where it does not begin."""
        self._request += 1
        said = messages.Handoff(ufrag=ufrag or self._session().ufrag, agent=agent, owner=owner)
        self.handoffs.handlers[messages.Handoff](EDGE, self._request, said)

    async def hand_off(self, agent: str) -> Message:
        """Asks for a hand-off, and returns the reply."""
        before = len(self.said)
        self.ask(agent)
        await eventually(lambda: len(self.said) > before)
        return self.said[-1]

    def listed(self, **wanted: Any) -> messages.Listed:
        """The sessions, as an edge is told."""
        self.handoffs.handlers[messages.List](EDGE, 1, messages.List(**wanted))
        found = self.said.pop()
        assert isinstance(found, messages.Listed)
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

    def _once_more(self, peer: bytes, control: Control[Any]) -> None:
        self.again.append(control.message)


@asynccontextmanager
async def a_call_of(first: str, agents: Mapping[str, type[Base]]) -> AsyncIterator[tuple[MovingCall, Desk]]:
    """A connected call of the agent ``first``, and the desk that hands it off to others of ``agents``."""
    async with a_moving_call(agents[first]) as call:
        desk = Desk(lambda: call.session, agents)
        call.session.talk.agent_name = first
        try:
            yield call, desk
        finally:
            await desk.handoffs.close()
