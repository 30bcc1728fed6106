"""The strangers of a worker without XDP: their datagrams, and known flows' checks, cost known flows' media nothing."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until
from working import MINE, RX, Bench, a_worker, audio, check, gained

from edge.relay.strangers import LOOKED_AT, Buckets
from edge.xdp.limits import CHECKS, NAMED, Rate


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with a_worker(tmp_path) as bench:
        yield bench


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(Rate(100, 20))
    assert buckets.take(b"a", 5.0, 15) == 15
    assert buckets.take(b"a", 5.0, 15) == 5
    assert buckets.take(b"a", 5.0) == 0
    assert buckets.take(b"b", 5.0) == 1, "each name has its own"
    assert sum(buckets.take(b"a", 5.0 + at / 1000) for at in range(1, 1001)) == 100
    assert buckets.take(b"a", 100.0, 1000) == 20, "an idle one is full, and no more"


def test_buckets_are_bounded_and_the_one_not_asked_for_longest_goes() -> None:
    buckets = Buckets(Rate(1, 1), entries=3)
    for name in (1, 2, 3):
        assert buckets.take(name, 0.0) == 1
    assert buckets.take(1, 0.0) == 0
    assert buckets.take(4, 0.0) == 1
    assert [buckets.take(name, 0.0) for name in (1, 3, 4)] == [0, 0, 0]
    assert len(buckets) == 3


def total(bench: Bench, clients: int, datagram: bytes, times: int) -> Counter[str]:
    """The outcomes of one datagram that so many addresses send so often each."""
    before = bench.funnel(RX)
    for at in range(0, clients, 10):  # as many at once as the socket's buffer takes
        bench.from_all([bench.client() for _ in range(min(10, clients - at))], *[datagram] * times)
    return bench.funnel(RX) - before


def test_one_good_ufrag_from_many_sources_is_one_callers_worth(bench: Bench) -> None:
    seen = total(bench, 40, check(MINE), 25)
    assert set(seen) == {"forwarded_stun", "name_limited"}
    assert seen["forwarded_stun"] >= NAMED.burst
    assert seen["name_limited"] > 0
    assert gained(bench, bench.client(), check(MINE)) == {"forwarded_stun": 1}, "another call is free"


def test_one_overheard_ssrc_from_many_sources_is_one_callers_worth(bench: Bench) -> None:
    bench.proven(bench.client(), 7)
    seen = total(bench, 40, audio(7), 25)
    assert set(seen) == {"forwarded_ssrc", "name_limited"}
    assert seen["forwarded_ssrc"] >= NAMED.burst


def test_a_known_flows_checks_are_limited_and_its_media_goes_on(bench: Bench) -> None:
    loud, other = bench.client(), bench.client()
    bench.proven(loud)
    bench.proven(other)
    datagram = check(MINE)
    seen = gained(bench, loud, *[datagram] * 600)
    assert set(seen) == {"forwarded_stun", "flow_limited"}
    assert seen["forwarded_stun"] >= CHECKS.burst
    assert gained(bench, loud, audio(1)) == {"forwarded_flow": 1}
    assert gained(bench, other, datagram) == {"forwarded_stun": 1}
    marker = check(MINE)  # comes after them
    bench.to_worker(bench.client(), marker)
    until(lambda: bench.transceivers[MINE].has(marker))
    sent = [datagram for _, datagram in bench.transceivers[MINE].received]
    assert sent.count(datagram) == seen["forwarded_stun"] + 1


def test_strangers_beyond_what_is_looked_at_are_dropped_and_known_flows_are_not(bench: Bench) -> None:
    """Batches that arrive while the worker has other things to do: it cannot look at them in peace."""
    known, stranger = bench.client(), bench.client()
    bench.proven(known)
    heard = [audio(1, number) for number in range(1, 11)]

    def limited() -> bool:
        bench.process.send_signal(signal.SIGSTOP)
        for at in range(1500):
            stranger.sendto(b"\xff" * 20, ("127.0.0.1", bench.port))
            if at % 150 == 0:
                known.sendto(heard[at // 150], ("127.0.0.1", bench.port))
        bench.sent += 1510
        bench.process.send_signal(signal.SIGCONT)
        until(lambda: sum(bench.funnel(RX).values()) >= bench.sent)
        return bench.funnel(RX)["strangers_limited"] > 0

    before = bench.funnel(RX)
    rounds = 0
    while not limited():
        rounds += 1
        assert rounds < 20, f"{LOOKED_AT} was never reached"
    seen = bench.funnel(RX) - before
    assert set(seen) == {"unknown_flow", "strangers_limited", "forwarded_flow"}
    assert seen["forwarded_flow"] == 10 * (rounds + 1)
