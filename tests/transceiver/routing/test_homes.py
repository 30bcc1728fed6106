"""Calls whose ufrag names a transceiver that has begun anew: it knows of them from those who have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import zmq
from routed import HOME, WORKER, Caller, Written, callers, connect
from routed import House as RoutedHouse
from waiting import eventually
from wiring import Said, heard, hello_back

from transceiver.handover.desk import Desk, House
from transceiver.handover.leaving import Leaving
from transceiver.links.link import Link
from transceiver.links.routing import Routing
from transceiver.refusing import RequestError
from transceiver.session import Session
from wire import link, messages, ufrag
from wire.keys import ClusterKeys
from wire.messages import Message, Moved, Neighbour

KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
SIGNALING = b"edge/signaling"
OTHER = b"@2.abcd"


class Told(Written):
    """A link that writes down every control message; a worker is there."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[bytes, Message]] = []

    def control(self, peer: bytes, message: Any) -> None:
        self.messages.append((peer, message))

    def listeners(self, least: int) -> list[bytes]:
        return [WORKER]


class Begun:
    """The transceiver 1, which has begun anew, as far as hand-overs are concerned."""

    def __init__(self) -> None:
        self.routing, self.link = Routing(), Told()
        self.routing.link = cast(Link, self.link)
        self.received: dict[bytes, int] = {}
        house = House(
            keys=lambda: KEYS,
            calls=list,
            sockets=list,
            room=lambda agent: None,
            take_up=lambda state, understudy: pytest.fail("nothing is handed over"),
            understudy=lambda state, agent: pytest.fail("nothing is handed over"),
            took=lambda session: None,
            gone=lambda session: None,
            handle=lambda peer, control: None,
        )
        self.desk = Desk(1, "begun", self.routing, cast(Link, self.link), house)

    def hears(self, peer: bytes, message: Message) -> None:
        self.desk.handlers[type(message)](peer, message)


@pytest.fixture
async def begun() -> AsyncIterator[Begun]:
    begun = Begun()
    yield begun
    begun.desk.close()


@pytest.fixture
async def there(tmp_path: Path) -> Neighbour:
    return Neighbour(id=2, endpoint=f"ipc://{tmp_path}/2", draining=True)


def name(transceiver: int = 1) -> str:
    return ufrag.seal(transceiver, 1, KEYS.ufrag[1])


def knows(begun: Begun, sealed: str) -> bool:
    return begun.routing.elsewhere(sealed.encode()) is not None


async def test_a_call_is_known_from_who_has_it_with_all_its_names_and_workers_are_told(
    begun: Begun, there: Neighbour
) -> None:
    first, restarted = name(), name()
    begun.hears(OTHER, Moved(ufrags=[first, restarted], to=2))
    assert not knows(begun, first), "nobody has said where that transceiver is"
    begun.hears(SIGNALING, messages.Neighbours(neighbours=[there]))
    for _ in range(2):
        begun.hears(OTHER, Moved(ufrags=[first, restarted], to=2))
    assert knows(begun, first)
    assert knows(begun, restarted)
    assert [said for said in begun.link.messages if isinstance(said[1], Moved)] == [
        (WORKER, Moved(ufrags=[first, restarted], to=2))
    ]


@pytest.mark.parametrize(
    ("peer", "to", "sealed"),
    [
        pytest.param(b"edge/worker-0", 2, 1, id="an edge"),
        pytest.param(b"@3.abcd", 2, 1, id="of another"),
        pytest.param(OTHER, 2, 4, id="a call that names another"),
    ],
)
async def test_what_it_is_not_for_others_to_say_is_not_believed(
    begun: Begun, there: Neighbour, peer: bytes, to: int, sealed: int
) -> None:
    begun.hears(SIGNALING, messages.Neighbours(neighbours=[there]))
    call = name(sealed)
    begun.hears(peer, Moved(ufrags=[call], to=to))
    assert not knows(begun, call)


async def test_a_call_that_is_here_is_nobody_elses(begun: Begun, there: Neighbour) -> None:
    begun.hears(SIGNALING, messages.Neighbours(neighbours=[there]))
    caller = Caller(a_house(begun), HOME)
    async with callers(caller):
        begun.hears(OTHER, Moved(ufrags=[caller.session.ufrag], to=2))
        assert not knows(begun, caller.session.ufrag)


def a_house(begun: Begun) -> Any:
    """One whose routing is that of ``begun``."""
    house = RoutedHouse()
    house.routing, house.link = begun.routing, begun.link
    return house


class Listener:
    """A transceiver that takes note of what it is told."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.router = link.router(self.context, endpoint, KEYS)
        self.said: list[Said] = []

    def look(self) -> list[Said]:
        """All that it was told so far, but for the greeting."""
        while self.router.poll(0):
            peer, message = self.router.recv_multipart()
            said = heard(message)
            assert isinstance(said, Said)
            if said.type == "hello":
                self.router.send_multipart([peer, hello_back(said)])
            else:
                self.said.append(said)
        return self.said


async def test_a_call_moves_to_no_agent_of_the_transceiver_that_has_it(begun: Begun) -> None:
    with pytest.raises(RequestError, match="at that transceiver"):
        begun.desk.abroad(cast(Session, None), Neighbour(id=1, endpoint="ipc:///1"), "echo")


async def test_who_has_calls_of_another_says_so_to_that_one(begun: Begun, there: Neighbour) -> None:
    listener = Listener(there.endpoint)
    leaving = Leaving(b"@3.abcd", lambda: KEYS, begun.routing, cast(Link, begun.link), lambda session: None)
    caller = Caller(a_house(begun), HOME)
    try:
        async with callers(caller):
            await connect(caller)
            told = asyncio.create_task(leaving.tell_home(there, [caller.session]))
            await eventually(listener.look)
            await told
            (said,) = listener.look()
            assert (said.type, said.fields["ufrags"], said.fields["to"]) == ("call.moved", [caller.session.ufrag], 3)
    finally:
        leaving.close()
        listener.context.destroy(linger=0)
