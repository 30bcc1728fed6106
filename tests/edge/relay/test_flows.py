"""The flows of a worker in the kernel's table: whose each is, and whether its media may go past the worker."""

from __future__ import annotations

from typing import Any

import pytest

from edge.relay.counted import Counted
from edge.relay.flows import Flows
from edge.relay.rounds import Rounds
from edge.relay.sisters import number_of
from wire import address, ufrag
from wire.encapsulation import Head
from wire.messages import Moved, PathUp

KEYS = {1: bytes(16)}
CALLER = address.pack("192.0.2.1", 40000)
OURS, OTHER = 5, 6
CALL = ufrag.seal(OURS, 1, KEYS[1], random=1)


class Store:
    """The kernel's table, written down."""

    def __init__(self) -> None:
        self.flows: dict[bytes, tuple[int, int, bool]] = {}
        self.seen_s = 0.0

    def put(
        self, address18: bytes, cpu: int, transceiver: int, express: bool = False, head: Head | None = None
    ) -> bool:
        self.flows[address18] = cpu, transceiver, express
        return True

    def holder(self, address18: bytes) -> tuple[int, int] | None:
        return self.flows[address18][:2] if address18 in self.flows else None

    def remove(self, address18: bytes) -> bool:
        return self.flows.pop(address18, None) is not None

    def last_seen_s(self, address18: bytes) -> float:
        return self.seen_s

    def put_ssrc(self, ssrc: int, cpu: int) -> bool:
        return True

    def ssrc_holder(self, ssrc: int) -> int | None:
        return None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def flows(store: Store) -> Flows:
    kernel: Any = store
    return Flows(64, kernel, 3, Counted(), Rounds(0.0))


def up(flows: Flows, number: int, *, proved: bool) -> bool:
    flows.claims.passed(CALLER, number)
    said = PathUp(address=CALLER, ufrag=CALL, ssrcs=[], proved=proved)
    return flows.up(number, said, KEYS, 0.0)


def test_media_goes_past_the_worker_from_when_the_client_has_proved_itself(flows: Flows, store: Store) -> None:
    assert up(flows, OURS, proved=False)
    assert store.flows == {CALLER: (3, OURS, False)}
    assert up(flows, OURS, proved=True)
    assert store.flows == {CALLER: (3, OURS, True)}


def test_media_of_a_call_that_moves_waits_for_its_new_transceivers_word(flows: Flows, store: Store) -> None:
    assert up(flows, OURS, proved=True)
    assert flows.moved(OURS, Moved(ufrags=[CALL], to=OTHER, addresses=[CALLER]), KEYS, 0.0) == [CALLER]
    assert store.flows == {CALLER: (3, OTHER, False)}
    assert up(flows, OTHER, proved=True)
    assert store.flows == {CALLER: (3, OTHER, True)}


def test_media_for_another_clusters_edge_never_does(flows: Flows, store: Store) -> None:
    sister = number_of(0, 0)
    assert up(flows, sister, proved=True)
    assert store.flows == {CALLER: (3, sister, False)}


def test_a_flow_that_ends_is_gone(flows: Flows, store: Store) -> None:
    assert up(flows, OURS, proved=True)
    assert flows.down(OURS, CALLER)
    assert store.flows == {}


def test_a_flow_whose_media_the_kernel_alone_sees_is_not_idle(flows: Flows, store: Store) -> None:
    assert up(flows, OURS, proved=True)
    store.seen_s = 99.0
    flows.sweep(100.0)
    assert flows.owner(CALLER) == OURS
    flows.sweep(159.0)
    assert flows.owner(CALLER) == OURS
    flows.sweep(161.0)
    assert store.flows == {}
