"""The tickets of a worker's flows: who is told of them, when media carries them, and when they end."""

from __future__ import annotations

from typing import Any

import pytest

from edge.relay.tickets import Tickets
from wire import address, ufrag
from wire.encapsulation import Head
from wire.messages import PathUp

CALLER, ANOTHER = address.pack("192.0.2.1", 40000), address.pack("192.0.2.2", 40000)
HERS, OTHER, LOCAL = 5, 6, 7
CALL = ufrag.seal(HERS, 1, bytes(16), random=1)


class Kernel:
    """The kernel's tables, written down: ways to two transceivers, tickets in force, and the heads of flows."""

    def __init__(self) -> None:
        self.heads: dict[bytes, Head] = {}
        self.live: dict[Head, bytes] = {}
        self.room, self.made = True, 0

    def reaches(self, transceiver: int) -> bool:
        return transceiver in (HERS, OTHER)

    def put(self, client: bytes, transceiver: int) -> Head | None:
        if not self.room:
            return None
        self.made += 1
        head = Head(100 + self.made, bytes([transceiver]) * 8)
        self.live[head] = client
        return head

    def knows(self, head: Head) -> bool:
        return head in self.live

    def remove(self, head: Head) -> bool:
        return self.live.pop(head, None) is not None

    def head(self, address18: bytes) -> Head | None:
        return self.heads.get(address18)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def tickets(kernel: Kernel) -> Tickets:
    maps: Any = kernel
    return Tickets(maps, maps)


def up(number: int | None, *, proved: bool = True, where: bytes = CALLER) -> PathUp:
    return PathUp(address=where, ufrag=CALL, ssrcs=[], proved=proved, number=number)


def test_media_carries_a_ticket_when_its_transceiver_has_said_that_it_knows_it(
    tickets: Tickets, kernel: Kernel
) -> None:
    head, told = tickets.up(HERS, up(0))
    assert head is None
    assert told is not None
    assert (told.address, kernel.live) == (CALLER, {Head(told.number, told.ticket): CALLER})
    assert tickets.up(HERS, up(told.number)) == (Head(told.number, told.ticket), None)
    # A process that follows hers knows none, and is told the same.
    assert tickets.up(HERS, up(0)) == (None, told)
    assert tickets.up(HERS, up(told.number + 1)) == (None, told)


@pytest.mark.parametrize(("transceiver", "said"), [(HERS, up(None)), (HERS, up(0, proved=False)), (LOCAL, up(0))])
def test_who_takes_none_gets_none(tickets: Tickets, kernel: Kernel, transceiver: int, said: PathUp) -> None:
    assert tickets.up(transceiver, said) == (None, None)
    assert not kernel.live


def test_a_ticket_ends_with_its_flow(tickets: Tickets, kernel: Kernel) -> None:
    _, told = tickets.up(HERS, up(0))
    tickets.up(HERS, up(0, where=ANOTHER))
    assert tickets.of(HERS) == [CALLER, ANOTHER]
    tickets.end(CALLER)
    tickets.end(CALLER)
    assert list(kernel.live.values()) == [ANOTHER]
    assert told is not None
    assert tickets.up(HERS, up(told.number))[0] is None


def test_a_call_that_moves_has_another_ticket_at_the_other_transceiver(tickets: Tickets, kernel: Kernel) -> None:
    _, first = tickets.up(HERS, up(0))
    assert first is not None
    head, second = tickets.up(OTHER, up(first.number))
    assert head is None
    assert second is not None
    assert list(kernel.live) == [Head(second.number, second.ticket)]
    assert (tickets.of(HERS), tickets.of(OTHER)) == ([], [CALLER])


def test_the_next_process_goes_on_with_the_tickets_of_flows(tickets: Tickets, kernel: Kernel) -> None:
    head = Head(7, b"a ticket")
    kernel.heads[CALLER], kernel.live[head] = head, CALLER
    tickets.recover(CALLER, HERS)
    tickets.recover(ANOTHER, HERS)
    assert tickets.of(HERS) == [CALLER]
    assert tickets.up(HERS, up(7)) == (head, None)


def test_a_ticket_that_the_kernel_has_lost_is_replaced(tickets: Tickets, kernel: Kernel) -> None:
    _, told = tickets.up(HERS, up(0))
    assert told is not None
    kernel.live.clear()
    head, again = tickets.up(HERS, up(told.number))
    assert head is None
    assert again is not None


def test_without_room_all_goes_by_the_worker(tickets: Tickets, kernel: Kernel) -> None:
    kernel.room = False
    assert tickets.up(HERS, up(0)) == (None, None)
    assert tickets.of(HERS) == []
