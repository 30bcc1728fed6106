"""Hand-offs of agents: a live session gets another one, which is warmed beside the one that it has, or at another
transceiver, to which the call then moves.

It takes over between two frames, when nobody speaks if that comes soon. Where it never gets ready, the present one
stays, and whoever asked is told why. A response in progress is finished by the agent that was asked for it; where the
call moves, it ends as far as it has come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runtime import logs
from transceiver.agents import Base
from transceiver.counters import AGENT_HANDOFFS
from transceiver.handover.abroad import Abroad
from transceiver.handover.line import NotTaken
from transceiver.links.link import Link
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.sessions import AnySession
from transceiver.socket_session import SocketSession
from transceiver.state import StateError
from transceiver.talk.agent_host import NotReady
from transceiver.talk.successor import Successor
from transceiver.watching import not_found
from wire import messages
from wire.control import Control
from wire.handoffs import MAX_LISTED, HandedOff, Handoff, List, Listed
from wire.messages import Message, Neighbour
from wire.ufrag import call_id

__all__ = ["Handoffs"]

_WARM_S = 30.0
_SPEAKS_S = 10.0  # for so long a session is waited for in which somebody speaks
_FINISHES_S = 60.0  # for so long an agent that was replaced may make a response
_ANSWERS_S = 5.0  # more that another transceiver has, which has to be reached
_LOOK_S = 0.02
_MOST = 8  # at once: a process has memory and cores for few agents more than it has calls

# Codes of another transceiver's refusal that say what to do about it.
_PASSED_ON = ("full", "draining", "gone", "model_not_found", "handoff_failed", "handoff_timeout")
_OUTCOMES = {"handoff_timeout": "timed_out", **dict.fromkeys(("full", "draining", "model_not_found"), "refused")}

Agent = tuple[str, type[Base]]
_Successor = Successor | Abroad


@dataclass(frozen=True, slots=True)
class _Work:
    """A hand-off to the agent ``wanted``, at the transceiver ``to`` if that is another: ``warmed(until)`` gives it when
    it is ready, and ``give`` gives the call to it."""

    wanted: str
    warmed: Callable[[float], Awaitable[_Successor]]
    give: Callable[[_Successor], Awaitable[None]]
    to: int | None = None


class _Stays(Exception):
    """The error that the present agent stays: ``outcome`` is one of ``counters.AGENT_HANDOFFS``."""

    def __init__(self, outcome: str, code: str, why: str) -> None:
        super().__init__(why)
        self.outcome, self.code = outcome, code


class Handoffs:
    """The hand-offs of one process. ``live(ufrag, owner)`` is a session that has not ended, ``find(name)`` an agent,
    ``room(session, name)`` raises an error where there is none for the session with that agent, ``handle`` does what a
    message says, and ``abroad(call, transceiver, name)`` is the agent of another transceiver."""

    def __init__(
        self,
        link: Link,
        live: Callable[[str, str], AnySession | None],
        sessions: Callable[[], list[AnySession]],
        find: Callable[[str], Agent],
        room: Callable[[AnySession, str], None],
        handle: Callable[[bytes, Control[Any]], None],
        abroad: Callable[[Session, Neighbour, str], Abroad],
    ) -> None:
        self._link, self._live, self._sessions, self._find = link, live, sessions, find
        self._room, self._handle, self._abroad = room, handle, abroad
        self._under_way: dict[AnySession, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.handlers: dict[type[Message], Callable[..., None]] = {
            Handoff: self._asked,
            List: self._list,
        }

    async def close(self) -> None:
        """Ends those that are under way."""
        tasks = [*self._under_way.values(), *self._ending]
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, peer: bytes, request: int, said: Handoff) -> None:
        session = self._live(said.ufrag, said.owner)
        if session is None:
            raise not_found()
        try:
            self._check(session)
            work = self._here(session, said.agent) if said.to is None else self._there(session, said.agent, said.to)
        except Exception:
            AGENT_HANDOFFS["refused"] += 1
            raise
        task = asyncio.create_task(self._run(peer, Control(said, request), session, work))
        self._under_way[session] = task

    def _check(self, session: AnySession) -> None:
        """Raises RequestError where no agent can be had now."""
        if session in self._under_way:
            raise RequestError("a hand-off of this call is under way", "handoff_under_way")
        if len(self._under_way) >= _MOST:
            raise RequestError(f"{_MOST} hand-offs are under way at this transceiver", "full")
        if not session.talk.begun:
            raise RequestError("the call is not connected yet", "not_connected")

    def _here(self, session: AnySession, wanted: str) -> _Work:
        """A hand-off to an agent of this process. Raises RequestError where that cannot be had."""
        agent = name, kind = self._find(wanted)
        if isinstance(session, SocketSession) and kind.respond is Base.respond:
            raise RequestError(f"{name} answers calls, and makes no responses in events", "model_unfit")
        self._room(session, name)

        async def give(successor: _Successor) -> None:
            assert isinstance(successor, Successor)
            session.give_to(successor)

        return _Work(name, lambda until: self._warmed(session, agent, until), give)

    def _there(self, session: AnySession, wanted: str, to: Neighbour) -> _Work:
        """A hand-off to an agent of another transceiver, to which the call moves. Raises RequestError where it cannot
        move."""
        if isinstance(session, SocketSession):
            why = "a session over a WebSocket stays at its transceiver, which has no such model"
            raise RequestError(why, "model_unfit")
        abroad = self._abroad(session, to, wanted)

        async def warmed(until: float) -> Abroad:
            try:
                await _ready(session, abroad, until + _ANSWERS_S)
            except BaseException:
                abroad.drop()
                raise
            return abroad

        async def give(_: _Successor) -> None:
            await abroad.give()

        return _Work(wanted, warmed, give, to.id)

    async def _run(self, peer: bytes, asked: Control[Handoff], session: AnySession, work: _Work) -> None:
        was, log = session.talk.agent_name, logs.get().bind(call=call_id(session.ufrag))
        where = {} if work.to is None else {"to": work.to}
        try:
            name, warm_ms, wait_ms = await self._hand_off(session, work)
            AGENT_HANDOFFS["taken_over"] += 1
            log.info("another agent has the call", agent=name, was=was, warm_ms=warm_ms, wait_ms=wait_ms, **where)
            reply = HandedOff(agent=name)
            if work.to is not None:  # the call is not here any more
                self._link.control(peer, reply, asked.request)
                return
            session.when_kept(lambda: self._link.control(peer, reply, asked.request))
            await session.talk.retired(_FINISHES_S)
        except _Stays as e:
            AGENT_HANDOFFS[e.outcome] += 1
            log.warning("the agent stays", agent=was, wanted=work.wanted, why=str(e), **where)
            self._link.control(peer, messages.Refused(code=e.code, message=str(e)), asked.request)
        except _Left:
            AGENT_HANDOFFS["moved"] += 1
            self._handle(peer, asked)  # it is told who has the call now
        except Exception as e:
            AGENT_HANDOFFS["failed"] += 1
            log.error("a hand-off failed", exc_info=e)
            why = messages.Refused(code="internal_error", message="the transceiver failed: its log says why")
            self._link.control(peer, why, asked.request)
        finally:
            self._under_way.pop(session, None)

    async def _hand_off(self, session: AnySession, work: _Work) -> tuple[str, int, int]:
        """Hands a session's agent off. Returns the new one's name, and how long it was warmed and waited for, in ms.
        Raises _Stays or _Left."""
        began = time.monotonic()
        try:
            successor = await work.warmed(began + _WARM_S)
            warm = time.monotonic()
            try:
                await _good_moment(session, successor, warm + _SPEAKS_S)
                await work.give(successor)
            except BaseException:
                self._drop(successor)
                raise
        except NotTaken as e:
            outcome = _OUTCOMES.get(e.code, "failed")
            raise _Stays(outcome, e.code if e.code in _PASSED_ON else "handoff_failed", str(e)) from None
        except StateError as e:
            _check_here(session)
            raise _Stays("failed", "handoff_failed", str(e)) from None
        return successor.name, round(1000 * (warm - began)), round(1000 * (time.monotonic() - warm))

    async def _warmed(self, session: AnySession, agent: Agent, until: float) -> Successor:
        """The agent, ready to take over: with the state of the present one if it accepts that."""
        same = agent[1] is session.talk.agent_type
        while True:
            try:
                successor = await session.talk.successor(agent, with_state=same)
                try:
                    await _ready(session, successor, until)
                except BaseException:
                    self._drop(successor)
                    raise
                return successor
            except NotReady as e:
                if not same:
                    raise _Stays("failed", "handoff_failed", f"{agent[0]} cannot take over: {e}") from None
                same = False

    def _drop(self, successor: _Successor) -> None:
        successor.drop()
        if isinstance(successor, Abroad):
            return
        task = asyncio.create_task(successor.joined())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _list(self, peer: bytes, request: int, said: List) -> None:
        found = [
            (session.ufrag, session.talk.agent_name)
            for session in sorted(self._sessions(), key=lambda session: session.began)
            if said.agent in ("", session.talk.agent_name) and said.owner in ("", session.owner) and not session.ended
        ]
        listed = Listed(sessions=found[:MAX_LISTED], more=len(found) > MAX_LISTED)
        self._link.control(peer, listed, request)


class _Left(Exception):
    """The error that the session goes on elsewhere."""


def _check_here(session: AnySession) -> None:
    """Raises _Stays or _Left where the session is not here any more."""
    if session.ended:
        raise _Stays("call_ended", "call_id_not_found", "the call ended meanwhile")
    if session.talk.over:
        raise _Left


async def _ready(session: AnySession, successor: _Successor, until: float) -> None:
    """Waits until the successor is ready. Raises NotReady, NotTaken, StateError, _Stays or _Left."""
    ready = asyncio.ensure_future(successor.ready())
    try:
        while not ready.done():
            await asyncio.wait({ready}, timeout=_LOOK_S)
            _check_here(session)
            if not ready.done() and time.monotonic() > until:
                why = f"{successor.name} was not ready within {_WARM_S:g} s"
                raise _Stays("timed_out", "handoff_timeout", why)
        ready.result()
    finally:
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)


async def _good_moment(session: AnySession, successor: _Successor, until: float) -> None:
    """Waits until nobody speaks, or it is time. Raises NotTaken, _Stays or _Left."""
    while True:
        _check_here(session)
        try:
            successor.check()
        except NotReady as e:
            raise _Stays("failed", "handoff_failed", f"{successor.name} cannot take over: {e}") from None
        if not session.talk.held:
            if session.quiet:
                return
            if time.monotonic() >= until:
                break
        await asyncio.sleep(_LOOK_S)
    # What is still to be said as PCM has no place among packets that are passed on.
    if successor.passes_packets and session.speaks:
        why = f"the agent has not been silent for {_SPEAKS_S:g} s, and {successor.name} passes packets on"
        raise _Stays("never_quiet", "never_quiet", why)
