"""The part of a transceiver that is about hand-overs: it takes calls, gives them away, and answers for those that left.

What comes for a call that is just between two transceivers waits until it is settled which of them has it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runtime import logs
from transceiver.handover.abroad import Abroad
from transceiver.handover.drain import SPEAKS_S, Drain
from transceiver.handover.leaving import Leaving
from transceiver.handover.line import NotTaken
from transceiver.handover.neighbours import Neighbourhood
from transceiver.handover.taking import Taking
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.socket_session import SocketSession
from transceiver.state import SessionState, StateError
from transceiver.talk.understudy import Understudy
from wire import messages
from wire.control import Control
from wire.handoffs import Warm
from wire.keys import ClusterKeys
from wire.messages import Message, Neighbour, Request
from wire.naming import number_of, transceiver_name
from wire.ufrag import transceiver_of

__all__ = ["Desk", "House"]

_MOST_KEPT = 256  # messages for calls that are between two transceivers
_MOST_TRIES = 3  # for a call that cannot stay
_LOOK_S = 0.05
_TELL_HOMES_S = 3.0


@dataclass(frozen=True, slots=True)
class House:
    """What the desk needs of its transceiver. ``room(agent)`` raises an error where there is none for another call,
    ``take_up(state, understudy)`` makes a session that goes on here, perhaps with an agent that was warmed for it, and
    ``understudy(state, agent)`` such an agent; ``handle`` does what a message says, ``took`` and ``gone`` are told of
    calls that come and go."""

    keys: Callable[[], ClusterKeys]
    calls: Callable[[], list[Session]]
    sockets: Callable[[], list[SocketSession]]
    room: Callable[[str], None]
    take_up: Callable[[SessionState, Understudy | None], Session]
    understudy: Callable[[SessionState, str], Understudy]
    took: Callable[[Session], None]
    gone: Callable[[Session], None]
    handle: Callable[[bytes, Control[Any]], None]


class Desk:
    """The desk of the transceiver ``number``; ``generation`` tells it from another process with that id."""

    def __init__(self, number: int, generation: str, routing: Routing, link: Link, house: House) -> None:
        self._house, self._link, self._routing, self._number = house, link, routing, number
        self._tasks: set[asyncio.Task[None]] = set()
        name = transceiver_name(number, generation)
        self._neighbours = Neighbourhood(number, random.Random())  # noqa: S311  # nothing secret
        self._leaving = Leaving(name, house.keys, routing, link, house.gone)
        self._taking = Taking(routing, house.room, house.take_up, self._took, house.understudy)
        self._kept: deque[tuple[bytes, Control[Any]]] = deque()
        self._drain: Drain | None = None
        self._draining: asyncio.Task[None] | None = None
        self._for_good = False
        self._told_at = 0.0
        self.handlers: dict[type[Message], Callable[..., None]] = {
            messages.Neighbours: self._heard_of,
            messages.Steered: lambda peer, said: routing.steered(peer, said.addresses),
            messages.NotSteered: lambda peer, said: self._leaving.not_steered(peer, said.ufrag),
            messages.Reserve: self._reserve,
            messages.Part: lambda peer, request, said: link.control(peer, self._taking.part(peer, said), request),
            Warm: self._warm,
            messages.Take: lambda peer, request, said: link.control(peer, self._taking.take(peer, said), request),
            messages.GoOn: self._go_on,
            messages.Dropped: self._dropped,
            messages.Moved: self._lives,
        }

    @property
    def reserved(self) -> int:
        """The number of places that are kept for calls to come."""
        return len(self._taking)

    @property
    def draining(self) -> bool:
        """Whether new calls go elsewhere: always in a drain for good, else where another transceiver has room."""
        return self._drain is not None and (self._for_good or bool(self._neighbours.present(time.monotonic())))

    @property
    def neighbours(self) -> int:
        """The number of other transceivers that would take calls now."""
        return len(self._neighbours.present(time.monotonic()))

    @property
    def quiet(self) -> bool:
        """Whether nothing has come lately for calls that left."""
        return self._leaving.quiet(time.monotonic())

    @property
    def drained(self) -> tuple[int, int]:
        """How many calls have been handed over since a drain began, and of how many; zeros where there is none."""
        return (self._drain.moved, self._drain.all_of_them) if self._drain is not None else (0, 0)

    def answers(self, peer: bytes, control: Control[Any]) -> bool:
        """Whether a message was about a call that has left, or is on its way. It is passed on, refused with the
        transceiver that has the call, or waits."""
        message = control.message
        name = getattr(message, "ufrag", None)
        if name is None or type(message) in self.handlers:
            return False
        if name in self._taking or any(call.away for call in self._house.calls() if call.ufrag == name):
            if len(self._kept) < _MOST_KEPT:
                self._kept.append((peer, control))
                return True
            return False
        to = self._leaving.where(name)
        if to is None:
            return False
        if isinstance(message, Request):
            why = messages.Refused(code="moved", message=f"the call is at transceiver {to}", param=str(to))
            self._link.control(peer, why, control.request)
        else:
            self._leaving.pass_on_control(peer, name, message)
        return True

    async def hand_over(self, call: Session, to: Neighbour) -> None:
        """Hands a call over. Raises NotTaken or StateError where it stays."""
        try:
            await self._leaving.hand_over(call, to)
        finally:
            self._take_kept()

    def abroad(self, call: Session, to: Neighbour, agent: str) -> Abroad:
        """The agent of another transceiver, to be warmed for a call that is to move there with it. Raises RequestError
        where it is this one."""
        if to.id == self._number:
            raise RequestError("the call is at that transceiver", "invalid_request")
        return self._leaving.abroad(call, to, agent, self._take_kept)

    def check_open(self) -> None:
        """Raises RequestError where no calls are taken any more."""
        if self.draining:
            raise RequestError("this transceiver is about to leave", "draining")

    def begin_drain(self, *, for_good: bool = True) -> None:
        """Hands all calls over from now on, also those that come meanwhile. ``for_good`` takes no new ones, whether
        there is another transceiver or not, and ends WebSocket sessions, whose clients connect elsewhere."""
        self._for_good = self._for_good or for_good
        if self._draining is None:
            self._drain = Drain(self._house.calls, self.hand_over, self._choose)
            self._draining = asyncio.create_task(self._drain.run())
            self._draining.add_done_callback(_complain)
            logs.get().info("draining", calls=len(self._house.calls()), sockets=len(self._house.sockets()))

    async def empty(self) -> None:
        """Waits until no session is left, and nothing comes any more that has to be passed on."""
        since = time.monotonic()
        while self._house.calls() or self._house.sockets() or not self.quiet:
            for session in self._house.sockets():
                if session.quiet or time.monotonic() - since >= SPEAKS_S:
                    session.end("shutdown")
            await asyncio.sleep(_LOOK_S)
        logs.get().info("drained", moved=self.drained[0])

    def move(self, call: Session) -> bool:
        """Hands a call over soon, because this process cannot serve it. Returns whether there is anybody to take it."""
        if self._leaving.goes(call):
            return True
        if not call.movable or not self._neighbours.present(time.monotonic()):
            return False
        self._begin(self._move(call))
        return True

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _move(self, call: Session) -> None:
        to = self._choose(set())
        if self._leaving.goes(call):
            return
        if to is not None:
            with suppress(NotTaken, StateError):
                await self.hand_over(call, to)
                return
        call.end("overloaded")

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        self._taking.sweep(now)
        self._leaving.sweep(asyncio.get_running_loop().time())
        homes: dict[int, list[Session]] = {}
        for call in self._house.calls():
            # Its ufrag names another transceiver, so a worker that begins anew has to be told, and so has that one.
            if not call.away and (home := transceiver_of(call.ufrag.encode())) != self._number:
                self._routing.remind(call.transport)
                homes.setdefault(home, []).append(call)
        if now - self._told_at >= _TELL_HOMES_S:
            self._told_at = now
            for number, calls in homes.items():
                if (there := self._neighbours.find(number, now)) is not None:
                    self._begin(self._leaving.tell_home(there, calls))
        self._take_kept()

    def close(self) -> None:
        """Ends what waits, and all links."""
        for task in (*self._tasks, *([self._draining] if self._draining else [])):
            task.cancel()
        self._taking.close()
        self._leaving.close()

    async def closed(self) -> None:
        """Waits, for a short while, until nothing of agents that were dropped runs any more."""
        await self._taking.closed()

    def _choose(self, but: set[int]) -> Neighbour | None:
        return self._neighbours.choose(but, time.monotonic())

    def _heard_of(self, peer: bytes, said: messages.Neighbours) -> None:
        self._neighbours.heard(peer, said, time.monotonic())

    def _lives(self, peer: bytes, said: messages.Moved) -> None:
        """Takes note of where a call is whose ufrag names this transceiver; believed only of who says it of itself, and
        of a call that is not here."""
        name, there = said.ufrags[0], self._neighbours.find(said.to, time.monotonic())
        here = name in self._taking or name.encode() in self._routing.transports
        if number_of(peer) == said.to and transceiver_of(name.encode()) == self._number and there and not here:
            self._leaving.lives(there, said.ufrags)

    def _reserve(self, peer: bytes, request: int, said: messages.Reserve) -> None:
        if self._drain is not None:
            raise RequestError("this transceiver is about to leave", "draining")
        self._link.control(peer, self._taking.reserve(peer, said), request)

    def _warm(self, peer: bytes, request: int, said: Warm) -> None:
        self._taking.warm(peer, said, lambda reply: self._link.control(peer, reply, request))

    def _go_on(self, peer: bytes, said: messages.GoOn) -> None:
        self._taking.go_on(peer, said)
        self._take_kept()

    def _dropped(self, peer: bytes, said: messages.Dropped) -> None:
        self._taking.dropped(peer, said)
        self._take_kept()

    def _took(self, session: Session) -> None:
        self._leaving.came_back(session.ufrag)
        self._house.took(session)

    def _take_kept(self) -> None:
        kept, self._kept = self._kept, deque()
        for peer, control in kept:
            self._house.handle(peer, control)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logs.get().error("the drain failed", exc_info=error)
