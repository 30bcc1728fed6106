"""The keeper of calls: it writes the state of each into the vault, so that the next process can go on with them.

A call is written now and then: often while somebody speaks, and else when anything has happened. The numbers that it
uses meanwhile are counted beside what was written. What SCTP sends waits until the call is written: a peer that has an
acknowledgement never sends again, and one that has a message knows what the next process must know too. So do events to
edges whose clients watch the call.

A call that has been answered and is not connected yet is written once: nobody knows more of it than the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial

from msgspec.structs import replace

from rtc.ice.lite import Path
from runtime import logs
from transceiver.counters import KEPT, KEPT_TIME, REVIVED
from transceiver.links.elsewhere import Elsewhere
from transceiver.links.routing import Routing
from transceiver.session import Session
from transceiver.state import SessionState, StateError
from transceiver.survival import half_open
from transceiver.survival.half_open import Answered
from transceiver.survival.record import Counts, Record, jumped, read, written
from transceiver.survival.shelf import Shelf, parts_at
from transceiver.survival.vault import Vault
from transceiver.talk.telling import Telling, TellingState
from wire.naming import edge_of
from wire.ufrag import call_id

__all__ = ["Keeper", "Kept"]

_EVERY_S = 0.5
_AT_LEAST_EVERY_S = 2.0  # the call in which nothing happens
_PACKETS = 200  # that are sent at most between two states, so that none is older than what is sent in 4 s
_HURRIED_S = 0.02  # between two writes of one call
_ROUND_S, _AT_ONCE_S = 0.02, 0.001
_MOST_BYTES = 1 << 20  # of a state that is kept, besides its parts: writing it takes a millisecond
_BYTES_A_S = 10 << 20  # of one call: a state is written as often as its size permits
_PIECE_BYTES = 256 << 10  # of a call's parts, written at once
_MOST_TRIES = 2
_WELL_AFTER_S = 5.0
_WHOLE, _PIECE = KEPT_TIME.of("state"), KEPT_TIME.of("piece")


class Kept:
    """The keeping of one call, as its transport sees it."""

    def __init__(
        self, keeper: Keeper, session: Session, slot: int, shelf: Shelf, tries: int = 0, counts: Counts = (0, 0)
    ) -> None:
        self.session, self.slot, self.tries = session, slot, tries
        self.began, self.written_at, self.looked_at = time.monotonic(), 0.0, 0.0
        self._keeper = keeper
        self.rest_s = _HURRIED_S
        self.shelf = shelf
        self.calm: Hashable = None  # what the session's ``calm`` was when it was written
        self._rtp_memory, self._rtcp_memory = shelf.vault.counters(slot)
        self._rtp, self._rtcp = counts
        self._most = sum(counts) + _PACKETS
        self._waiting: list[Callable[[], None]] = []  # what sends, in order
        self._due: asyncio.Handle | None = None
        self.complained = False  # once of each call

    def sends_rtp(self) -> None:
        """Counts a packet that is about to be sent, where a kill cannot undo it."""
        self._rtp += 1
        self._rtp_memory[0] = self._rtp
        if self._rtp + self._rtcp > self._most:
            self._keeper.write(self)

    def sends_rtcp(self) -> None:
        """Counts a compound that is about to be sent, in the same way."""
        self._rtcp += 1
        self._rtcp_memory[0] = self._rtcp
        if self._rtp + self._rtcp > self._most:
            self._keeper.write(self)

    @property
    def counts(self) -> Counts:
        """What was counted, which is in memory from then on, whoever has cleared that meanwhile."""
        self._rtp_memory[0], self._rtcp_memory[0] = counts = self._rtp, self._rtcp
        return counts

    def after(self, send: Callable[[], None]) -> None:
        """Has something sent when the call is written, which is soon, and not while SCTP is at work. So what waits is
        no more than SCTP has in flight, and acknowledgements and events of a tenth of a second."""
        self._waiting.append(send)
        if self._due is None:
            self.write_in(max(0.0, self.written_at + self.rest_s - time.monotonic()))

    @property
    def may_wait(self) -> bool:
        """Whether what is written already stands for the call: it has not sent too much since."""
        return self._rtp + self._rtcp <= self._most

    def due(self, now: float) -> bool:
        """Whether the call is to be written again. What is lost of a call in which nothing happens is time alone."""
        self.looked_at = now
        calm = self.session.calm
        return calm is None or calm != self.calm or now - self.written_at >= _AT_LEAST_EVERY_S

    def write_in(self, wait_s: float) -> None:
        """Has the call written then."""
        if self._due is not None:
            self._due.cancel()
        self._due = asyncio.get_running_loop().call_later(wait_s, self._keeper.write, self)

    def stay(self) -> None:
        """Has the call written at once where something waits, because it was away and goes on here."""
        if self._waiting:
            self._keeper.write(self)

    def leave(self) -> None:
        """Forgets the call, because it ends or goes on elsewhere."""
        self._keeper.forget(self)

    def postpone(self, now: float) -> None:
        """Takes note that the call was due, and could not be written."""
        self.written_at = self.looked_at = now
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def is_written(self, now: float) -> None:
        """Lets go what has waited. Nothing of a call that is away may be sent: its state has left."""
        self.postpone(now)
        self._most = self._rtp + self._rtcp + _PACKETS
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            send()


class Keeper:
    """The keeper of one process's calls in ``vault``; without one nothing is kept. ``take_up(state, elapsed_s)`` makes
    a session that is away still, or raises StateError; ``took(session)`` has each that goes on here, and
    ``reopen(answered, elapsed_s)`` makes one of an answer, or raises StateError."""

    def __init__(
        self,
        vault: Vault | None,
        routing: Routing,
        take_up: Callable[[SessionState, float], Session],
        took: Callable[[Session], None],
        reopen: Callable[[Answered, float], Session],
    ) -> None:
        self._on = vault is not None
        self._vault = vault or Vault(memoryview(b""))
        self._routing, self._take_up, self._took, self._reopen = routing, take_up, took, reopen
        self._free = list(range(self._vault.slots - 1, -1, -1))
        self._kept: OrderedDict[Session, Kept] = OrderedDict()  # what was looked at longest ago comes first
        self._answered: dict[Session, int] = {}  # calls that have not connected, and their slots
        self._log = logs.get()

    def __len__(self) -> int:
        """The number of calls that are kept."""
        return len(self._kept)

    def answered(self, session: Session) -> None:
        """Keeps what the call's answer has fixed, until the call is connected, or over."""
        if not self._on:
            return
        slot = self._answered.get(session)
        if slot is None and not self._free:
            KEPT["no_room"] += 1
            return
        try:
            data = half_open.written(session.answered(), time.monotonic())
        except StateError:
            KEPT["too_large"] += 1
            return
        self._put_answer(session, self._free.pop() if slot is None else slot, data)
        KEPT["written"] += 1

    def _put_answer(self, session: Session, slot: int, data: bytes) -> None:
        self._answered[session] = slot
        session.unanswer = partial(self._unanswer, session)
        self._vault.put(slot, data)

    def _unanswer(self, session: Session) -> None:
        slot = self._answered.pop(session, None)
        if slot is not None:
            self._vault.clear(slot)
            self._free.append(slot)

    def begin_soon(self, session: Session) -> None:
        """Keeps a call that is just about to be connected."""
        if self._on:
            asyncio.get_running_loop().call_soon(self.begin, session)

    def begin(self, session: Session) -> None:
        """Keeps a connected call from now on, or goes on with that."""
        if not session.movable:
            return
        if (kept := self._kept.get(session)) is not None:
            kept.stay()
            return
        slot = self._answered.pop(session, None)
        if slot is None and not self._free:
            KEPT["no_room"] += 1
            return
        slot = self._free.pop() if slot is None else slot  # the answer stands there until the call does
        kept = self._kept[session] = session.transport.kept = Kept(self, session, slot, Shelf(self._vault, slot))
        self.write(kept)

    def write(self, kept: Kept) -> None:
        """Writes a call now. One that cannot be written is not kept, until it can be."""
        session, now = kept.session, time.monotonic()
        self._kept.move_to_end(session)
        if session.away:  # what waits, waits for what becomes of it
            kept.postpone(now)
            return
        if kept.tries and now - kept.began > _WELL_AFTER_S:
            kept.tries = 0
        weight = session.weight
        kept.rest_s = max(_HURRIED_S, weight / _BYTES_A_S)
        whole = True
        try:
            if weight <= _MOST_BYTES:
                whole = self._put(kept, now)
                (_WHOLE if whole else _PIECE).add(round(1e9 * (time.monotonic() - now)))
            elif kept.may_wait:  # a large event is handled soon
                whole = False
            else:  # nobody's state may hold up other calls
                raise StateError("too large to be kept")
            if not whole and kept.may_wait:
                kept.write_in(_HURRIED_S)
                return
            if whole:
                KEPT["written"] += 1
            else:
                KEPT["late"] += 1
                self._vault.clear(kept.slot)
        except (StateError, ValueError):
            KEPT["too_large"] += 1
            if not kept.complained:
                kept.complained = True
                self._log.warning("a call is too large to be kept for now", call=call_id(session.ufrag), bytes=weight)
            self._give_up(kept)
        except Exception as e:
            KEPT["failed"] += 1
            self._log.error("a call cannot be kept", call=call_id(session.ufrag), exc_info=e)
            self._give_up(kept)
        kept.is_written(now)
        if not whole:
            kept.write_in(_HURRIED_S)

    def _put(self, kept: Kept, now: float) -> bool:
        """Writes the call's parts, a piece of them at a time, and then its state. Returns whether that is done."""
        session, shelf = kept.session, kept.shelf
        if not shelf.work(_PIECE_BYTES):
            return False
        state = session.snapshot()
        shelf.offer(state.parts)
        if not shelf.work(_PIECE_BYTES):
            return False
        paths, told, places = self._routing.ways(session.transport), _told(session), shelf.places(state.parts)
        self._vault.put(kept.slot, written(state, kept.counts, now, paths, kept.tries, told, places))
        kept.calm = session.calm
        shelf.keep_only(state.parts)
        return True

    def forget(self, kept: Kept) -> None:
        """Keeps that call no more."""
        if self._kept.pop(kept.session, None) is None:
            return
        self._give_up(kept)
        self._free.append(kept.slot)
        kept.session.transport.kept = None
        kept.is_written(time.monotonic())

    def _give_up(self, kept: Kept) -> None:
        self._vault.clear(kept.slot)
        kept.shelf.clear()

    async def run(self) -> None:
        """Writes calls that have not been written for a while, a few at a time, and never returns."""
        while True:
            await asyncio.sleep(_ROUND_S)
            began = now = time.monotonic()
            for session, kept in list(self._kept.items()):
                if now - kept.looked_at < _EVERY_S or now - began > _AT_ONCE_S:
                    break
                if kept.due(now):
                    self.write(kept)
                    now = time.monotonic()
                else:
                    self._kept.move_to_end(session)

    # --- after a crash

    def revive(self) -> int:
        """Goes on with the calls that a predecessor kept, and returns how many these are."""
        for slot in range(self._vault.slots):
            data = self._vault.get(slot)
            if data is None:
                self._clear(slot)  # garbage is none of ours
                continue
            try:
                (self._stand_by if half_open.is_one(data) else self._revive)(slot, data)
            except StateError as e:
                self._clear(slot)
                self._log.error("a call of the process before does not go on", why=str(e))
        return len(self._kept) + len(self._answered)

    def _stand_by(self, slot: int, data: bytes) -> None:
        try:
            answered, at, tries = half_open.read(data)
            again = half_open.written(answered, at, tries + 1)
            if tries < _MOST_TRIES:
                self._vault.put(slot, again)  # this process may die of it, too
                session = self._reopen(answered, max(0.0, time.monotonic() - at))
        except ValueError as e:
            REVIVED["unusable"] += 1
            raise StateError(str(e)) from None
        if tries >= _MOST_TRIES:
            REVIVED["died_again"] += 1
            raise StateError(f"{_MOST_TRIES} processes died soon after they took it up: {call_id(answered.ufrag)}")
        self._free.remove(slot)
        self._put_answer(session, slot, again)
        REVIVED["half_open"] += 1

    def _clear(self, slot: int) -> None:
        self._vault.clear(slot)
        self._vault.free_parts(slot, 0, self._vault.parts_bytes)

    def _revive(self, slot: int, data: bytes) -> None:
        record, state = self._read(slot, data)
        if record.tries >= _MOST_TRIES:
            REVIVED["died_again"] += 1
            raise StateError(f"{_MOST_TRIES} processes died soon after they took it up: {call_id(state.ufrag)}")
        # What is kept from now on is what is used from now on: this process may die before it writes the first time.
        rtp, rtcp = self._vault.counters(slot)
        counts = rtp[0], rtcp[0]
        tries = record.tries + 1
        try:
            state = jumped(state, record.counts, counts)
            self._vault.put(slot, written(state, counts, record.at, record.paths, tries, record.told, record.places))
            session = self._take_up(state, max(0.0, time.monotonic() - record.at))
        except StateError:
            REVIVED["unusable"] += 1
            raise
        self._free.remove(slot)
        for told in record.told:
            telling = session.talk.watchers.get(told.who)
            if isinstance(telling, Telling):
                telling.take_up(told)
        paths = {Path(edge_of(worker), address): worker for address, worker in record.paths}
        self._routing.arrive(session.transport, Elsewhere((), (), paths))
        self._took(session)
        session.pass_over(counts[0] - record.counts[0])
        shelf = Shelf(self._vault, slot)
        shelf.take_up(state.parts, record.places)
        self._kept[session] = session.transport.kept = kept = Kept(self, session, slot, shelf, tries, counts)
        REVIVED["taken_up"] += 1
        session.stay()
        if not session.ended:
            self.write(kept)

    def _read(self, slot: int, data: bytes) -> tuple[Record, SessionState]:
        try:
            record, state = read(data)
            return record, replace(state, parts=parts_at(self._vault, slot, record.places))
        except ValueError as e:
            REVIVED["unusable"] += 1
            raise StateError(str(e)) from None


def _told(session: Session) -> tuple[TellingState, ...]:
    """What the processes of edges that watch may not have got."""
    watchers = session.talk.watchers
    tellings = ((who, watchers.get(who)) for who in watchers)
    return tuple(t.export(who) for who, t in tellings if isinstance(who, bytes) and isinstance(t, Telling))
