"""Flows that edges behind one address tell each other: hints, which are bounded, forgotten, and worth less than a
worker's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from waiting import until

from edge.relay.hints import Hints
from edge.relay.roaming import KEPT_S, MOST_ELSEWHERE, REPEAT_S, Elsewhere, Roaming, Telling
from wire import address, link
from wire.announcements import MAX_FLOWS, Flows, Heartbeat, encode, read
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
CALLER = address.pack("192.0.2.1", 40000)


class Kernel:
    """The kernel's map of SSRCs."""

    def __init__(self) -> None:
        self.cpus: dict[int, int] = {}

    def put_ssrc(self, ssrc: int, cpu: int) -> bool:
        self.cpus[ssrc] = cpu
        return True

    def ssrc_holder(self, ssrc: int) -> int | None:
        return self.cpus.get(ssrc)

    def remove_ssrc(self, ssrc: int) -> bool:
        return self.cpus.pop(ssrc, None) is not None


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def hints(kernel: Kernel) -> Hints:
    store: Any = kernel
    return Hints(store, 3)


def test_a_flow_elsewhere_is_a_hint_until_it_is_told_no_more(hints: Hints, kernel: Kernel) -> None:
    elsewhere = Elsewhere(hints)
    elsewhere.put(7, 1, 0.0)
    assert (hints.transceiver(7), kernel.cpus) == (1, {7: 3})
    elsewhere.put(7, 1, 10.0)
    elsewhere.expire(KEPT_S + 9.9)
    assert hints.transceiver(7) == 1
    elsewhere.expire(KEPT_S + 10.1)
    assert (hints.transceiver(7), kernel.cpus, len(elsewhere)) == (None, {}, 0)


def test_a_flow_of_its_own_goes_before_one_elsewhere(hints: Hints, kernel: Kernel) -> None:
    elsewhere = Elsewhere(hints)
    hints.put(CALLER, 1, [7])
    elsewhere.put(7, 2, 0.0)
    assert hints.transceiver(7) == 1
    hints.forget(CALLER)
    assert (hints.transceiver(7), kernel.cpus) == (2, {7: 3})
    hints.put(CALLER, 1, [7])
    elsewhere.expire(KEPT_S + 1)
    assert (hints.transceiver(7), kernel.cpus) == (1, {7: 3})


def test_another_worker_s_own_flow_stays_on_its_core(hints: Hints, kernel: Kernel) -> None:
    kernel.cpus[7] = 5
    elsewhere = Elsewhere(hints)
    elsewhere.put(7, 1, 0.0)
    assert kernel.cpus == {7: 5}
    elsewhere.expire(KEPT_S + 1)
    assert kernel.cpus == {7: 5}


def test_the_oldest_go_where_there_are_too_many(hints: Hints, kernel: Kernel) -> None:
    elsewhere = Elsewhere(hints)
    for ssrc in range(MOST_ELSEWHERE + 100):
        elsewhere.put(ssrc, 1, 0.0)
    assert len(elsewhere) == len(kernel.cpus) == MOST_ELSEWHERE
    assert hints.transceiver(99) is None
    assert hints.transceiver(100) == 1


def test_a_new_flow_is_told_at_once_and_each_again_after_a_while() -> None:
    telling = Telling()
    assert telling.due({1: 5}, 0.0, 10) == [(1, 5)]
    assert telling.due({1: 5}, 1.0, 10) == []
    assert telling.due({1: 5, 2: 6}, 2.0, 10) == [(2, 6)]
    assert telling.due({1: 7, 2: 6}, 3.0, 10) == [(1, 7)]
    assert sorted(telling.due({1: 7, 2: 6}, REPEAT_S, 10)) == [(1, 7), (2, 6)]


def test_no_more_is_told_at_once_than_a_message_holds_and_nothing_that_has_ended() -> None:
    telling, here = Telling(), {ssrc: 1 for ssrc in range(25)}
    told = telling.due(here, 0.0, 10)
    del here[24]
    told += telling.due(here, 0.0, 10) + telling.due(here, 0.0, 10)
    assert sorted(told) == [(ssrc, 1) for ssrc in range(24)]
    assert telling.due(here, 0.1, 10) == []


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context[zmq.Socket[bytes]]()
    yield context
    context.term()


Make = Callable[..., Roaming]


@pytest.fixture
def other(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Any]:
    """The voice of another edge."""
    with link.publisher(context, f"ipc://@{tmp_path}/other", KEYS) as voice:
        yield voice


@pytest.fixture
def ours(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Any]:
    """The ears of this worker's edge."""
    with link.collector(context, f"ipc://{tmp_path}/ours", KEYS) as ears:
        yield ears


@pytest.fixture
def make(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Make]:
    made = []

    def make(hints: Hints, **share: Any) -> Roaming:
        to, others = f"ipc://{tmp_path}/ours", [f"ipc://@{tmp_path}/other"]
        made.append(Roaming(context, "edge", hints, KEYS, to=to, others=others, **share))
        return made[-1]

    yield make
    for roaming in made:
        roaming.close()


def test_what_other_edges_tell_is_taken_and_garbage_is_counted(make: Make, hints: Hints, other: Any, ours: Any) -> None:
    roaming = make(hints)

    def after(message: bytes, outcome: str) -> bool:
        other.send(message)
        roaming.look(0.0)
        return roaming.counts[outcome] > 0

    until(lambda: after(encode(Flows("edge-2", [(7, 1), (8, 2)])), "taken"))
    assert (hints.transceiver(7), hints.transceiver(8)) == (1, 2)
    until(lambda: after(b"F\xff", "refused"))
    assert hints.here == {}


def test_edges_may_come_and_go(
    context: zmq.Context[zmq.Socket[bytes]], hints: Hints, other: Any, ours: Any, tmp_path: Path
) -> None:
    hints.put(CALLER, 1, [9])
    roaming = Roaming(context, "edge", hints, KEYS, to=f"ipc://{tmp_path}/ours", others=())
    now = 0.0

    def taken(ssrc: int) -> bool:
        nonlocal now
        now += REPEAT_S
        other.send(encode(Flows("edge-2", [(ssrc, 1)])))
        roaming.look(now)
        return hints.transceiver(ssrc) == 1

    try:
        assert not taken(7)
        assert sum(roaming.counts.values()) == 0, "nobody is there to be told"
        roaming.know([f"ipc://@{tmp_path}/other"])
        until(lambda: taken(7) and roaming.counts["told"] > 0)
        roaming.know(())
        told = roaming.counts["told"]
        until(lambda: not taken(8) and hints.transceiver(7) is None)
        assert roaming.counts["told"] == told
        roaming.know([f"ipc://@{tmp_path}/other"])
        until(lambda: taken(8))
    finally:
        roaming.close()


def test_a_worker_takes_its_share(make: Make, hints: Hints, other: Any, ours: Any) -> None:
    roaming = make(hints, share=(1, 2))

    def taken() -> bool:
        other.send(encode(Flows("edge-2", [(7, 1), (8, 1)])))
        roaming.look(0.0)
        return roaming.counts["taken"] > 0

    until(taken)
    assert (hints.transceiver(7), hints.transceiver(8)) == (1, None)


def test_a_worker_s_own_flows_are_told_to_its_edge(make: Make, hints: Hints, ours: Any) -> None:
    hints.put(CALLER, 1, [7])
    roaming, now = make(hints), 0.0

    def told() -> bool:
        nonlocal now
        now += REPEAT_S
        roaming.look(now)
        return roaming.counts["told"] > 0

    until(told)
    assert read(ours.recv()) == Flows("edge", [(7, 1)])


def test_flows_that_nobody_collects_are_counted_and_told_again(make: Make, hints: Hints) -> None:
    hints.put(CALLER, 1, [7])
    roaming = make(hints)
    roaming.look(0.0)
    assert (roaming.counts["not_told"], roaming.counts["told"]) == (1, 0)


def test_an_edge_alone_at_its_address_does_nothing(context: zmq.Context[zmq.Socket[bytes]], hints: Hints) -> None:
    roaming = Roaming(context, "edge", hints, KEYS, to="", others=())
    hints.put(CALLER, 1, [7])
    roaming.look(0.0)
    assert sum(roaming.counts.values()) == 0


def test_a_heartbeat_is_no_flow_and_a_message_holds_what_it_should() -> None:
    assert not isinstance(read(encode(Heartbeat("edge"))), Flows)
    assert len(encode(Flows("edge", [(0xFFFFFFFF, 1)] * MAX_FLOWS))) < 1 << 16
