"""The admission of sessions, and the relief of a process that has too many: each needs a place of ``max_sessions``, and
a share of what the machine can do, as it was measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from runtime import logs
from transceiver import agents
from transceiver.load import Load
from transceiver.places import Full, room_for
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.sessions import AnySession, Sessions
from wire.ufrag import call_id

__all__ = ["Admission", "Relief"]

_USUAL = "opus/48000/2"  # the codec of most calls
_MOVES_S = 10.0  # that a call may take to move away


class Admission:
    """The admission to ``held``, of at most ``most`` sessions. ``reserved`` is the number of places that are kept for
    calls on their way."""

    def __init__(self, held: Sessions, load: Load, most: int, reserved: Callable[[], int]) -> None:
        self._held, self._load, self._most, self._reserved = held, load, most, reserved

    @property
    def taken(self) -> int:
        """The number of sessions, and of places that are kept."""
        return len(self._held) + self._reserved()

    def rooms(self) -> dict[str, int]:
        """The number of calls that can be let in now, by agent, if all were of that one."""
        live, hard = self._held.kinds, max(0, self._most - self.taken)
        rooms = {name: self._load.room((name, _USUAL), live) for name in agents.names()}
        return {name: hard if room is None else min(hard, room) for name, room in rooms.items()}

    def place(
        self, agent: str, codec: str = _USUAL, owner: str = "", holder: str = "", *, half_open: bool
    ) -> Session | None:
        """The call whose place a new session takes, because it has had time to connect; None where there is room
        without that. ``owner``, ``holder`` and ``half_open`` are as of ``places.room_for``. Raises RequestError where
        there is no place."""
        most = self._load.most((agent, codec), self._held.kinds, self._most)
        return self._found(owner, holder, self.taken, most, half_open=half_open)

    def look(self, agent: str, owner: str, holder: str, waiting: int) -> None:
        """Raises RequestError where ``place`` would for one more offer behind so many that are ``waiting``."""
        most = self._load.most((agent, _USUAL), self._held.kinds, self._most)
        self._found(owner, holder, self.taken + waiting, most, half_open=True)

    def _found(self, owner: str, holder: str, taken: int, most: int, *, half_open: bool) -> Session | None:
        calls, now = self._held.calls.values(), time.monotonic()
        try:
            return room_for(owner, holder, calls, now, taken=taken, most=most, half_open=half_open)
        except Full as e:
            raise RequestError(str(e), e.code) from None

    def change(self, session: AnySession, agent: str) -> None:
        """Raises RequestError where a session that is here could not be served in time with that agent."""
        live = self._held.kinds
        live[session.kind] -= 1
        room = self._load.room((agent, session.kind[1]), +live)
        if room is not None and room < 1:
            raise RequestError(f"this transceiver has no room for a call of {agent}", "full")


class Relief:
    """The relief of ``held``. ``move(call)`` begins to move a call to another process, if there is one for it."""

    def __init__(self, held: Sessions, move: Callable[[Session], bool]) -> None:
        self._held, self._move = held, move
        self._leaving: WeakKeyDictionary[AnySession, float] = WeakKeyDictionary()

    def give(self, calls: int, now: float) -> None:
        """Has so many of the newest calls leave, so that the others are served in time; those that are leaving already
        count, and one always stays. One that could be moved is here for a while yet; one that is still here after that
        is ended."""
        begun = [session for session in self._held if session.talk.begun and not session.ended]
        served = [session for session in begun if now >= self._leaving.get(session, 0.0)]
        more = min(calls - (len(begun) - len(served)), len(served) - 1)
        for session in sorted(served, key=lambda session: session.began, reverse=True)[: max(0, more)]:
            again = session in self._leaving
            moves = not again and isinstance(session, Session) and self._move(session)
            self._leaving[session] = now + _MOVES_S
            call = call_id(session.ufrag)
            logs.get().warning("too many calls to be served in time: one leaves", call=call, moves=moves)
            if not moves:
                session.end("overloaded")
