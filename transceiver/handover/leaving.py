"""The leaving of calls: each is handed over to another transceiver, between two of its frames, and what comes for it
later is passed on.

At any time one of the two has the call. It is here until the other one has understood its state (``call.taken``) and is
told that it goes on (``call.go_on``); where that one dies, refuses or is late, the call goes on here, with the numbers
that it had, because nothing was sent meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import zmq

from rtc.ice.lite import Path
from runtime import logs
from transceiver import state
from transceiver.counters import HANDOVER_TIME, HANDOVERS, RX_DATAGRAMS, TX_DATAGRAMS
from transceiver.handover.abroad import Abroad, with_agent
from transceiver.handover.copying import Copying
from transceiver.handover.line import Line, NotTaken
from transceiver.links.elsewhere import Elsewhere
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.session import Session
from transceiver.state import StateError
from wire import messages
from wire.control import Control
from wire.frames import Data
from wire.keys import ClusterKeys
from wire.messages import MAX_NAMES, MAX_PATHS, MAX_STATE_BYTES, Message, Neighbour
from wire.naming import edge_of, number_of
from wire.ufrag import call_id
from wire.versions import MOVES

__all__ = ["Leaving"]

_CONNECT_S = 1.0
_RESERVE_S = 1.0
_TAKE_S = 0.3  # in which the caller hears nothing
_TOLD_AGAIN_S = 1.0
_QUIET_S = 3.0  # a caller that sends nothing but checks sends one every 2.5 s
_MOST = 1 << 14  # calls that left, of which something is remembered
_AT_ONCE, _PAUSE_S = 16, 0.02  # messages about calls whose ufrags name one transceiver: a link holds 32


@dataclass(slots=True)
class _Left:
    """A call that left. ``told_at`` is when each worker was last told where it is, ``used_at`` when something was last
    passed on, and ``unsteered`` are workers that know no way there."""

    elsewhere: Elsewhere
    to: Neighbour
    used_at: float
    told_at: dict[bytes, float] = field(default_factory=dict)
    unsteered: set[bytes] = field(default_factory=set)


class Leaving:
    """The calls that leave and those that left. ``name`` is this transceiver's on links to others; ``gone(session)`` is
    told of each call that is here no more."""

    def __init__(
        self,
        name: bytes,
        keys: Callable[[], ClusterKeys],
        routing: Routing,
        link: Link,
        gone: Callable[[Session], None],
    ) -> None:
        self._name, self._keys, self._routing, self._link, self._gone = name, keys, routing, link, gone
        number = number_of(name)
        assert number is not None
        self._number = number
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self._lines: dict[int, Line] = {}
        self._going: set[Session] = set()
        self._left: dict[bytes, _Left] = {}  # by the ufrag that names the call

    def goes(self, session: Session) -> bool:
        """Whether the call is being handed over now."""
        return session in self._going

    async def hand_over(self, session: Session, to: Neighbour) -> None:
        """Hands a connected call over. Raises NotTaken or StateError where it stays here."""
        line = self._line(to)
        copying = Copying(session, line)

        async def give() -> float:
            await self._prepare(session, line, session.talk.agent_name)
            return await self._give(session, line, to, copying)

        await self._handed_over(session, to, give)

    def abroad(self, session: Session, to: Neighbour, agent: str, settled: Callable[[], None]) -> Abroad:
        """The agent of another transceiver, for a call that is to move there with it; ``settled()`` is called when it
        has moved, or stays after all."""
        line = self._line(to)
        copying = Copying(session, line)

        async def prepare() -> None:
            await self._prepare(session, line, agent)

        async def give(agent: str) -> None:
            try:
                await self._handed_over(session, to, lambda: self._give(session, line, to, copying, agent))
            finally:
                settled()

        return Abroad(session, agent, line, copying, prepare, give)

    async def _handed_over(self, session: Session, to: Neighbour, give: Callable[[], Awaitable[float]]) -> None:
        if session in self._going:
            raise StateError("the call is being handed over already")
        self._going.add(session)
        began = time.monotonic()
        try:
            took_s = await give()
        except (NotTaken, StateError) as e:
            code = e.code if isinstance(e, NotTaken) else "not_movable"
            HANDOVERS[code if code in ("gone", "too_large", "not_movable") else "refused"] += 1
            logs.get().info("a call stays", call=call_id(session.ufrag), to=to.id, code=code, why=str(e))
            raise
        finally:
            self._going.discard(session)
        HANDOVERS["moved"] += 1
        HANDOVER_TIME.of("away").add(round(1e9 * took_s))
        logs.get().info(
            "moved",
            call=call_id(session.ufrag),
            to=to.id,
            away_ms=round(1000 * took_s, 1),
            ms=round(1000 * (time.monotonic() - began), 1),
        )

    async def _prepare(self, session: Session, line: Line, agent: str) -> None:
        watchers = {who for who in session.talk.watchers if isinstance(who, bytes)}
        await line.ready(self._routing.workers_of(session.transport) | watchers, _CONNECT_S)
        await line.ask(messages.Reserve(ufrag=session.ufrag, agent=agent), _RESERVE_S)

    async def _give(self, session: Session, line: Line, to: Neighbour, copying: Copying, agent: str = "") -> float:
        """Gives the call away, with another agent where ``agent`` names one that waits for it, or takes it back.
        Returns how long it was nobody's, in seconds."""
        try:
            await copying.go_ahead()
            await session.hold()
            await copying.go_ahead()
            await session.ticked()  # most of the 20 ms until the next frame are left then
            value = session.leave()
        except BaseException:
            line.tell(messages.Dropped(ufrag=session.ufrag))
            if not session.ended:
                session.stay()
            raise
        began, elsewhere = time.monotonic(), self._routing.depart(session.transport)
        try:
            rest, parts = copying.rest(with_agent(value, agent) if agent else value)
            data = state.encoded(rest)
            paths = [(path.address, worker) for path, worker in elsewhere.paths.items()]
            if len(data) > MAX_STATE_BYTES or len(paths) > MAX_PATHS:
                raise NotTaken("too_large", f"the call's state has {len(data)} bytes")
            await line.ask(messages.Take(ufrag=session.ufrag, state=data, parts=parts, paths=paths), _TAKE_S)
            session.unkeep()  # first, so that the call never has two who go on with it
            if not line.tell(messages.GoOn(ufrag=session.ufrag)):
                raise NotTaken("gone", f"transceiver {to.id} is away")
        except BaseException:
            line.tell(messages.Dropped(ufrag=session.ufrag))
            self._routing.arrive(session.transport, elsewhere)
            session.stay()
            elsewhere.opens(self._routing.take_again)
            raise
        took_s = time.monotonic() - began
        self._begin_to_pass_on(elsewhere, to)
        session.forsake()
        self._gone(session)
        return took_s

    def _begin_to_pass_on(self, elsewhere: Elsewhere, to: Neighbour) -> None:
        elsewhere.to = to.id
        left = self._left[elsewhere.ufrags[0]] = _Left(elsewhere, to, time.monotonic())
        elsewhere.opens(lambda worker, path, datagram: self._pass_on(left, worker, path, datagram))
        for peer in self._link.listeners(MOVES):
            self._tell_moved(left, peer)
        while len(self._left) > _MOST:
            oldest = next(iter(self._left))
            self._routing.forget(self._left.pop(oldest).elsewhere)

    def lives(self, at: Neighbour, ufrags: Sequence[str]) -> None:
        """Takes note that a call which an earlier process of this transceiver's gave away is at that one."""
        names = tuple(name.encode() for name in ufrags)
        known = self._left.get(names[0])
        if known is not None and known.to.id == at.id:
            return
        if known is not None:
            self._routing.forget(known.elsewhere)
        elsewhere = Elsewhere(names, (), {})
        self._routing.expect(elsewhere)
        self._begin_to_pass_on(elsewhere, at)

    async def tell_home(self, home: Neighbour, calls: Iterable[Session]) -> None:
        """Tells the transceiver that the ufrags of these calls name that they are here."""
        line = self._line(home)
        with suppress(NotTaken):
            await line.ready((), _CONNECT_S)
            for n, call in enumerate(calls, 1):
                names = dict.fromkeys((call.ufrag, *call.transport.ice.ufrags))
                if call.ended or call.away:
                    continue
                if not line.tell(messages.Moved(ufrags=list(names)[:MAX_NAMES], to=self._number)):
                    break
                if n % _AT_ONCE == 0:
                    await asyncio.sleep(_PAUSE_S)

    def came_back(self, ufrag: str) -> None:
        """Takes note that a call that had left is here again."""
        left = self._left.pop(ufrag.encode(), None)
        if left is not None:
            self._routing.forget(left.elsewhere)

    # --- what comes later

    def where(self, ufrag: str) -> int | None:
        """The transceiver to which the call has moved."""
        left = self._left.get(ufrag.encode())
        return left.to.id if left is not None else None

    def pass_on_control(self, peer: bytes, ufrag: str, message: Message) -> None:
        """Passes on what a process of an edge says to a call that left."""
        left = self._left.get(ufrag.encode())
        if left is not None:
            left.used_at = time.monotonic()
            self._line(left.to).pass_on_control(peer, message)

    def not_steered(self, worker: bytes, ufrag: str) -> None:
        """Takes note that the worker knows no way to where the call is: its datagrams go on coming here."""
        left = self._left.get(ufrag.encode())
        if left is not None and worker in left.told_at:
            left.unsteered.add(worker)

    def quiet(self, now: float) -> bool:
        """Whether nothing has come lately that had to be passed on, and nobody needs this process any more."""
        return all(now - left.used_at > _QUIET_S for left in self._left.values())

    def sweep(self, now: float) -> None:
        """Closes links that are not used; called about once a second."""
        for line in [line for line in self._lines.values() if line.idle(now)]:
            del self._lines[line.id]
            line.close()

    def close(self) -> None:
        """Ends all links."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._context.destroy(linger=200)

    def _line(self, to: Neighbour) -> Line:
        line = self._lines.get(to.id)
        if line is not None and line.endpoint != to.endpoint:
            line.close()
            line = None
        if line is None:
            back = lambda process, said: self._pass_back(to.id, process, said)  # noqa: E731
            line = self._lines[to.id] = Line(self._context, to, self._name, self._keys(), back)
        return line

    def _pass_on(self, left: _Left, worker: bytes, path: Path, datagram: bytes) -> None:
        now = time.monotonic()
        RX_DATAGRAMS["passed_on"] += 1
        left.used_at = now
        self._line(left.to).pass_on(worker, path.address, datagram)
        # It should know better: it has forgotten, or has just begun.
        if now - left.told_at.get(worker, 0.0) > _TOLD_AGAIN_S and worker not in left.unsteered:
            if worker in self._link.listeners(MOVES):
                self._tell_moved(left, worker)
            left.told_at[worker] = now

    def _tell_moved(self, left: _Left, peer: bytes, more: Iterable[bytes] = ()) -> None:
        left.told_at[peer] = time.monotonic()
        paths = left.elsewhere.paths
        addresses = [path.address for path, worker in paths.items() if worker == peer]
        names = [name.decode() for name in left.elsewhere.ufrags[:MAX_NAMES]]
        said = messages.Moved(ufrags=names, to=left.to.id, addresses=[*more, *addresses][:MAX_NAMES])
        self._link.control(peer, said)

    def _pass_back(self, number: int, process: bytes, said: Data | Control[Any]) -> None:
        """Passes on what the transceiver ``number`` says to a process of an edge, of a call that it has."""
        if isinstance(said, Data):
            for address, datagram in said.datagrams():
                elsewhere = self._routing.elsewhere(Path(edge_of(process), address))
                if elsewhere is not None and elsewhere.to == number:
                    self._used(elsewhere)
                    self._link.send(process, address, datagram)
                else:
                    TX_DATAGRAMS["no_path"] += 1
            return
        message = said.message
        if isinstance(message, messages.PathUp):
            self._path_up(number, process, message)
        elif isinstance(message, messages.PathDown):
            path = Path(edge_of(process), message.address)
            elsewhere = self._routing.elsewhere(path)
            if elsewhere is not None and elsewhere.to == number:
                self._routing.leaves(elsewhere, path)
                self._link.control(process, message)

    def _path_up(self, number: int, process: bytes, up: messages.PathUp) -> None:
        path = Path(edge_of(process), up.address)
        elsewhere = self._routing.elsewhere(up.ufrag.encode())
        if elsewhere is None or elsewhere.to != number or len(elsewhere.paths) >= MAX_PATHS:
            return
        self._routing.goes_by(elsewhere, path, process)
        if self._routing.elsewhere(path) is elsewhere:
            self._link.control(process, up)
            with suppress(KeyError):
                self._tell_moved(self._left[elsewhere.ufrags[0]], process, (up.address,))

    def _used(self, elsewhere: Elsewhere) -> None:
        left = self._left.get(elsewhere.ufrags[0])
        if left is not None:
            left.used_at = time.monotonic()
