"""Ended sessions are freed by reference counts, without a look through what goes on."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
from session_run import a_call, a_talk, until, voice

from rtc.pacer import Pacer
from runtime.config import Agents
from runtime.letting_go import let_go
from transceiver.agents import Base, Response, echo, loopback, parrot
from transceiver.session import Session
from transceiver.sessions import Sessions
from transceiver.socket_session import SocketSession
from wire import ufrag


class Threaded(Base):
    """An agent in a thread of its own, which answers whatever is asked."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"

    def respond(self, response: Response) -> None:
        response.transcript("Yes.")
        response.audio(bytes(4800))
        response.done()


class Hung(Base):
    """An agent that is still at a response when its session was taken apart, and then goes on."""

    runs: ClassVar[Literal["loop", "thread"]] = "thread"
    begun: ClassVar[threading.Event]
    on: ClassVar[threading.Event]
    end: ClassVar[list[object]]

    def respond(self, response: Response) -> None:
        self.begun.set()
        self.on.wait()
        try:
            line = self.line
            line.say(bytes(960))
            line.send_opus(b"opus", 0, False)
            line.stop()
            line.emit({"type": "late"})
            line.cue("answer")
            line.transcribing("item", "a")
            line.transcribed("item", "a word")
            response.transcript("Late.")
            response.audio(bytes(960))
            response.done()
            self.end += [self.config, line.turn, line.span is not None, response.cancelled]
        except Exception as e:
            self.end.append(e)


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def freed(*known: weakref.ref[object]) -> None:
    """Waits for what still runs, such as a last callback of the loop's."""
    await until(lambda: all(ref() is None for ref in known))


@pytest.mark.parametrize("agent", [echo.Agent, loopback.Agent, parrot.Agent, Threaded])
async def test_an_ended_call_leaves_nothing(agent: type[Base]) -> None:
    async with a_call(agent) as call:
        channel = await call.open_channel()
        for payload in voice(20):
            call.speak(payload)
        channel.send('{"type": "response.create"}')
        await until(lambda: call.rtp)
        await until(lambda: call.events)
    session, talk, transport = call.session, call.session.talk, call.session.transport
    known = [weakref.ref(each) for each in (session, talk, talk.conversation, talk.host, transport, session.stream)]
    let_go(session)
    vars(call).clear()  # which is a circle of the test's own
    del channel, session, talk, transport
    await freed(*known)


async def test_an_agent_that_goes_on_when_its_session_was_taken_apart_does_so_in_peace() -> None:
    Hung.begun, Hung.on, Hung.end = threading.Event(), threading.Event(), []
    sealed = ufrag.seal(1, 1, bytes(16))
    session = SocketSession(sealed, a_talk(Hung, sealed), pacer=Pacer(), on_end=lambda session: None)
    session.open()
    session.talk.client_event('{"type": "response.create"}')
    await until(Hung.begun.is_set)
    session.end("hangup")
    joined = asyncio.create_task(session.closed())
    await asyncio.sleep(0)
    known = [weakref.ref(each) for each in (session.talk, session.talk.conversation)]
    let_go(session)
    Hung.on.set()
    await joined
    assert Hung.end == [Agents(), "", True, True]
    await freed(*known)


async def test_a_call_that_never_came_leaves_nothing() -> None:
    async with a_call(connected=False) as call:
        pass
    known = [weakref.ref(each) for each in (call.session, call.session.talk, call.session.transport)]
    let_go(call.session)
    vars(call).clear()
    await freed(*known)


async def test_an_ended_socket_leaves_nothing() -> None:
    sealed = ufrag.seal(1, 1, bytes(16))
    ended: list[SocketSession] = []
    session = SocketSession(sealed, a_talk(Threaded, sealed), pacer=Pacer(), on_end=ended.append)
    session.open()
    session.talk.client_event('{"type": "response.create"}')
    session.end("hangup")
    await session.closed()
    known = [weakref.ref(each) for each in (session, session.talk, session.talk.conversation)]
    let_go(session)
    ended.clear()
    del session
    await freed(*known)


async def test_a_session_that_was_removed_is_let_go_a_while_later() -> None:
    sessions = Sessions()
    async with a_call(echo.Agent) as call:
        sessions.put(call.session)
    sessions.remove(call.session)
    known = weakref.ref(call.session)
    vars(call).clear()
    now = asyncio.get_running_loop().time()
    sessions.tidy(now + 1)
    assert isinstance(known(), Session)
    sessions.tidy(now + 60)
    await freed(known)
