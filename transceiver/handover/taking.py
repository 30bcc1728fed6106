"""The taking of calls that other transceivers hand over.

A place is reserved first, so that no call is asked to be silent for a refusal. What is taken up waits, and sends
nothing, until the other transceiver says that the call goes on here. Where that does not come, it is dropped.

A call that is to get another agent with that has it warmed first, beside the one that it has there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from rtc.ice.lite import Path
from runtime import logs
from transceiver import state
from transceiver.counters import HANDOVER_TIME, TAKEN
from transceiver.handover.copying import Arriving
from transceiver.links.elsewhere import Elsewhere
from transceiver.links.routing import Routing
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.state import SessionState, StateError
from transceiver.talk.agent_host import NotReady
from transceiver.talk.understudy import Understudy
from wire import messages
from wire.handoffs import Warm, Warmed
from wire.naming import edge_of, is_transceiver, through
from wire.ufrag import call_id

__all__ = ["Taking"]

_WAITS_S = 2.0
_MOST = 64  # places that are reserved at once, and calls that wait
_WARM_S = 30.0
_MOMENT_S = 15.0  # for so long a call is waited for whose agent is warm: it comes when nobody speaks, within ten
_MOST_WARM = 8  # agents that wait for calls
_MOST_WORDS = 1000  # of an agent's that it says of itself
_MOST_BYTES = 256 << 20  # of all that went ahead of these


@dataclass(slots=True)
class _Waiting:
    """What waits: a place for a call, with nothing but its agent's name, or the call."""

    peer: bytes
    until: float
    session: Session | None = None
    elsewhere: Elsewhere | None = None
    came_at: float = 0.0
    parts: Arriving = field(default_factory=Arriving)
    agent: str = ""
    warming: asyncio.Task[None] | None = None
    understudy: Understudy | None = None  # which has the call when it comes


class Taking:
    """The calls that are about to be this transceiver's. ``room(agent)`` raises RequestError where there is none for
    a call with that agent, ``take_up(state, understudy)`` makes a session of a state, ``took(session)`` has each that
    goes on here, and ``understudy(state, agent)`` makes an agent that is to be warmed for a session."""

    def __init__(
        self,
        routing: Routing,
        room: Callable[[str], None],
        take_up: Callable[[SessionState, Understudy | None], Session],
        took: Callable[[Session], None],
        understudy: Callable[[SessionState, str], Understudy],
    ) -> None:
        self._routing, self._room, self._take_up, self._took = routing, room, take_up, took
        self._understudy = understudy
        self._dropping: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        """The number of places that are kept for calls that have not come."""
        return len(self._waiting)

    def __contains__(self, ufrag: str) -> bool:
        """Whether that call has come, and waits."""
        waiting = self._waiting.get(ufrag)
        return waiting is not None and waiting.session is not None

    def reserve(self, peer: bytes, wanted: messages.Reserve) -> messages.Reserved:
        """Keeps a place. Raises RequestError."""
        self._check(peer)
        if len(self._waiting) >= _MOST:
            raise RequestError(f"{_MOST} calls are being handed over already", "full")
        self._room(wanted.agent)
        self._drop(wanted.ufrag)
        self._waiting[wanted.ufrag] = _Waiting(peer, time.monotonic() + _WAITS_S, agent=wanted.agent)
        return messages.Reserved()

    def part(self, peer: bytes, said: messages.Part) -> messages.PartTaken:
        """Takes a piece of what goes ahead of a call. Raises RequestError."""
        place = self._place(peer, said.ufrag)
        all_bytes = sum(waiting.parts.size for waiting in self._waiting.values()) + len(said.data)
        if all_bytes > _MOST_BYTES or not place.parts.put(said.part, said.data):
            self._drop(said.ufrag)
            raise RequestError("calls that are too large are being handed over", "too_large")
        place.until = max(place.until, time.monotonic() + _WAITS_S)
        return messages.PartTaken()

    def warm(self, peer: bytes, said: Warm, answer: Callable[[messages.Message], None]) -> None:
        """Has the agent warmed for which the place is; ``answer`` is given the reply, later. Raises RequestError."""
        place = self._place(peer, said.ufrag)
        if place.warming is not None:
            raise RequestError("an agent is being warmed for that call already", "invalid_request")
        if sum(waiting.warming is not None for waiting in self._waiting.values()) >= _MOST_WARM:
            raise RequestError(f"{_MOST_WARM} agents are being warmed at this transceiver", "full")
        try:
            value = state.decoded(said.state)
            value = replace(value, parts=place.parts.joined(value.parts, said.parts))
            place.understudy = self._understudy(value, place.agent)
        except ValueError as e:
            self._drop(said.ufrag)
            raise RequestError(str(e), "other_state") from None
        place.until = time.monotonic() + _WARM_S + _WAITS_S
        place.warming = asyncio.create_task(self._warm(said.ufrag, place, place.understudy, answer))

    async def _warm(
        self, name: str, place: _Waiting, understudy: Understudy, answer: Callable[[messages.Message], None]
    ) -> None:
        agent = understudy.talk.agent_name
        try:
            async with asyncio.timeout(_WARM_S):
                await understudy.ready()
        except NotReady as e:
            refusal = messages.Refused(code="handoff_failed", message=f"{agent} cannot take over: {e}"[:_MOST_WORDS])
        except TimeoutError:
            why = f"{agent} was not ready within {_WARM_S:g} s"
            refusal = messages.Refused(code="handoff_timeout", message=why)
        except Exception as e:
            logs.get().error("an agent was not warmed", agent=agent, exc_info=e)
            refusal = messages.Refused(code="internal_error", message="the transceiver failed: its log says why")
        else:
            place.until = time.monotonic() + _MOMENT_S
            logs.get().info("an agent waits for a call", call=call_id(name), agent=agent)
            answer(Warmed(agent=agent, packets=understudy.passes_packets))
            return
        logs.get().warning("an agent is not had by a call", call=call_id(name), agent=agent, why=refusal.message)
        answer(refusal)
        if self._waiting.get(name) is place:
            self._drop(name)

    def _place(self, peer: bytes, ufrag: str) -> _Waiting:
        self._check(peer)
        place = self._waiting.get(ufrag)
        if place is None or place.peer != peer or place.session is not None:
            raise RequestError("no place is reserved for that call", "full")
        return place

    def take(self, peer: bytes, said: messages.Take) -> messages.Taken:
        """Takes a call up, which then waits. Raises RequestError."""
        place, now = self._place(peer, said.ufrag), time.monotonic()
        try:
            value = state.decoded(said.state)
            if value.ufrag != said.ufrag:
                raise StateError("it is another call's")
            if place.warming is not None and not place.warming.done():
                raise StateError("its agent is not warm yet")
            value = replace(value, parts=place.parts.joined(value.parts, said.parts))
            session = self._take_up(value, place.understudy)
            place.parts, place.understudy = Arriving(), None
        except ValueError as e:
            self._drop(said.ufrag)
            TAKEN["refused"] += 1
            logs.get().warning("a call was not taken", call=call_id(said.ufrag), why=str(e))
            raise RequestError(str(e), "other_state") from None
        transport = session.transport
        names = tuple(name.encode() for name in dict.fromkeys((transport.ufrag, *transport.ice.ufrags)))
        paths = {Path(edge_of(worker), address): through(worker, peer) for address, worker in said.paths}
        place.session, place.until, place.came_at = session, now + _WAITS_S, now
        place.elsewhere = Elsewhere(names, transport.ssrcs, paths)
        self._routing.expect(place.elsewhere)
        return messages.Taken()

    def go_on(self, peer: bytes, said: messages.GoOn) -> None:
        """The call is this transceiver's."""
        waiting = self._waiting.get(said.ufrag)
        if waiting is None or waiting.peer != peer or waiting.session is None or waiting.elsewhere is None:
            return
        del self._waiting[said.ufrag]
        session, elsewhere = waiting.session, waiting.elsewhere
        self._routing.arrive(session.transport, elsewhere)
        self._took(session)
        try:
            session.stay()
        except Exception as e:  # of a state in which something was odd: the call is here, and ends here
            session.fail(e)
        elsewhere.opens(self._routing.take_again)
        TAKEN["taken"] += 1
        HANDOVER_TIME.of("taken").add(round(1e9 * (time.monotonic() - waiting.came_at)))
        agent, handed_off = session.talk.agent_name, waiting.warming is not None
        logs.get().info(
            "took a call over",
            call=call_id(said.ufrag),
            peer=peer.decode(errors="replace"),
            agent=agent,
            handed_off=handed_off,
        )

    def dropped(self, peer: bytes, said: messages.Dropped) -> None:
        """The call stays where it was."""
        waiting = self._waiting.get(said.ufrag)
        if waiting is not None and waiting.peer == peer:
            self._drop(said.ufrag)

    def sweep(self, now: float) -> None:
        """Drops what has waited for too long; ``now`` is in seconds, monotonic."""
        for name in [name for name, waiting in self._waiting.items() if now > waiting.until]:
            self._drop(name)

    def close(self) -> None:
        """Drops everything."""
        for name in list(self._waiting):
            self._drop(name)

    def _drop(self, name: str) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        if waiting.understudy is not None:
            task = asyncio.create_task(_let_go(waiting.warming, waiting.understudy))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)
        if waiting.session is None:
            return
        TAKEN["dropped"] += 1
        if waiting.elsewhere is not None:
            self._routing.forget(waiting.elsewhere)
        waiting.session.forsake()

    async def closed(self) -> None:
        """Waits, for a short while, until nothing of agents that were dropped runs any more."""
        await asyncio.gather(*self._dropping, return_exceptions=True)

    @staticmethod
    def _check(peer: bytes) -> None:
        if not is_transceiver(peer):
            raise RequestError("only a transceiver hands calls over", "invalid_request")


async def _let_go(warming: asyncio.Task[None] | None, understudy: Understudy) -> None:
    if warming is not None and warming is not asyncio.current_task():
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
    await understudy.drop()
