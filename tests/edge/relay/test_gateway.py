"""A datagram's way over another cluster: a real worker there, a real gateway here, and a transceiver behind it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families
from waiting import until
from wiring import raw
from working import KEYS, MINE, RX, Bench, Transceiver, a_worker, audio, check, check_under, free_port, gained, of

from edge.relay.spec import Sister, Spec
from runtime.supervision.child import ChildSpec
from wire import frames, link, stun, ufrag
from wire.keys import ClusterKeys

# The cluster behind the gateway: its key has the id of one that the other has too.
BEHIND = ClusterKeys({1: b"b" * 16}, 1, b"b" * 32)
GATEWAY = b"behind:backbone/gateway"
CALLS_AT = 7


@dataclass
class Gateway:
    """The gateway process, and the transceiver behind it."""

    process: subprocess.Popen[bytes]
    metrics_port: int
    transceiver: Transceiver

    def funnel(self, name: str = RX) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return Counter({next(iter(s.labels.values()), ""): int(s.value) for s in samples if s.value})


@contextmanager
def a_gateway(directory: Path, bench: Bench, endpoint: str) -> Iterator[Gateway]:
    lifeline, other_end = os.pipe()
    port = free_port()
    at = f"ipc://{directory}/{CALLS_AT}"
    spec = Spec(
        edge="behind",
        index=1,
        cpu=min(os.sched_getaffinity(0)),
        socket=-1,
        not_mine=(),
        flow_entries=4096,
        flows=-1,
        ssrcs=-1,
        shedding=-1,
        metrics=("127.0.0.1", port),
        transceivers=((CALLS_AT, at),),
        keys=BEHIND,
        key_file=str(directory / "behind.toml"),
        backbone=endpoint,
    )
    child = ChildSpec("gateway", spec.dump(), {"level": "warning", "form": "json"}, lifeline)
    with (directory / "gateway.log").open("wb") as log:
        argv = [sys.executable, "-m", "edge.relay.worker"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=(lifeline,), stderr=log)
    transceiver = Transceiver(bench.context, at, worker=GATEWAY, keys=BEHIND)
    try:
        assert process.stdin is not None
        process.stdin.write(child.dump())
        process.stdin.close()
        yield Gateway(process, port, transceiver)
        assert process.poll() is None, "the gateway died"
    finally:
        process.terminate()
        process.wait(30)
        transceiver.close()
        os.close(lifeline)
        os.close(other_end)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Gateway]]:
    folder = tmp_path_factory.mktemp("sisters")
    endpoint = f"ipc://@{folder}/backbone"
    sister = Sister("behind", str(folder / "shared.toml"), (endpoint,), BEHIND.shared())
    with a_worker(folder, sisters=(sister,)) as bench, a_gateway(folder, bench, endpoint) as gateway:
        client = bench.client()

        def linked() -> bool:
            bench.to_worker(client, foreign())
            return bool(gateway.transceiver.drain())

        until(linked)
        yield bench, gateway


def foreign(transceiver: int = CALLS_AT) -> bytes:
    """A check of a call of the cluster behind the gateway."""
    return check_under(1, BEHIND.ufrag[1], transceiver)


def test_a_call_of_another_cluster_goes_there_and_back_by_one_hop(edges: tuple[Bench, Gateway]) -> None:
    bench, gateway = edges
    transceiver, client = gateway.transceiver, bench.client()
    asked = foreign()
    assert gained(bench, client, asked) == {"forwarded_sister": 1}
    until(lambda: (of(client), asked) in transceiver.drain())
    # It says whose the path is, and answers: the flow is known on the other side before the answer leaves.
    sealed = ufrag.seal(CALLS_AT, 1, BEHIND.ufrag[1])
    transceiver.send(raw("path.up", address=of(client), ufrag=sealed, ssrcs=[77]))
    transceiver.datagrams((of(client), b"\x01\x01answer"))
    assert client.recv(100) == b"\x01\x01answer"
    assert gained(bench, client, b"\x16hello", audio(77)) == {"forwarded_flow": 2}
    until(lambda: transceiver.has(b"\x16hello", audio(77)))
    transceiver.datagrams((of(client), b"\x80voice"))
    assert client.recv(100) == b"\x80voice"
    # A client whose address changes is found by its SSRC on both sides.
    elsewhere = bench.client()
    assert gained(bench, elsewhere, audio(77, 2)) == {"forwarded_ssrc": 1}
    until(lambda: (of(elsewhere), audio(77, 2)) in transceiver.drain())
    # And a path that goes down is nobody's on either.
    transceiver.send(raw("path.down", address=of(client)))
    until(lambda: gained(bench, client, b"\x16still there?") == {"unknown_flow": 1})


def test_a_call_of_its_own_stays_here(edges: tuple[Bench, Gateway]) -> None:
    bench, gateway = edges
    before = gateway.funnel()
    mine = check(MINE)
    assert gained(bench, bench.client(), mine) == {"forwarded_stun": 1}
    until(lambda: bench.transceivers[MINE].has(mine))
    assert gateway.funnel() == before


def test_what_neither_cluster_sealed_goes_nowhere(edges: tuple[Bench, Gateway]) -> None:
    bench, gateway = edges
    before = gateway.funnel()
    forged = stun.binding_request(
        f"{ufrag.seal(CALLS_AT, 1, bytes(range(1, 17)))}:client".encode(), b"p", tie_breaker=1
    )
    other_key = check_under(5, BEHIND.ufrag[1], CALLS_AT)
    assert gained(bench, bench.client(), forged, other_key) == {"stun_bad_ufrag": 2}
    assert gateway.funnel() == before


def test_the_gateway_passes_nothing_on_over_the_backbone(edges: tuple[Bench, Gateway]) -> None:
    """A call of the cluster that sent it, or of a third, that a hostile sister sends: one hop, and no way back out."""
    bench, gateway = edges
    assert KEYS.ufrag[1] != BEHIND.ufrag[1]
    dealer, presence = link.media_dealer(bench.context, _endpoint(bench), b"evil/worker-0", BEHIND.shared())
    try:
        assert dealer.poll(30_000, zmq.POLLOUT)
        before = gateway.funnel()
        client = of(bench.client())
        dealer.send(frames.pack_batch([(client, check(MINE)), (client, audio(1)), (client, b"\x16hello")]))
        until(lambda: (gateway.funnel() - before).total() == 3)
        assert gateway.funnel() - before == {"stun_bad_ufrag": 1, "unknown_flow": 2}
    finally:
        presence.close()
        dealer.close(linger=0)


def _endpoint(bench: Bench) -> str:
    return f"ipc://@{bench.directory}/backbone"


def test_an_unknown_transceiver_is_the_gateways_to_count(edges: tuple[Bench, Gateway]) -> None:
    bench, gateway = edges
    before = gateway.funnel()
    assert gained(bench, bench.client(), foreign(CALLS_AT + 1)) == {"forwarded_sister": 1}
    until(lambda: gateway.funnel() - before == {"unknown_transceiver": 1})


def test_a_sister_moves_no_call(edges: tuple[Bench, Gateway], tmp_path: Path) -> None:
    """Its edge is a fake here, which says what a transceiver of this cluster may say, and no other cluster's edge."""
    endpoint = f"ipc://@{tmp_path}/backbone"
    sister = Sister("evil", str(tmp_path / "shared.toml"), (endpoint,), BEHIND.shared())
    with a_worker(tmp_path, sisters=(sister,)) as bench:
        router = link.router(bench.context, endpoint, BEHIND.shared())
        try:
            client, mine = bench.client(), bench.client()
            bench.proven(mine)

            def asked() -> bool:
                bench.to_worker(client, foreign())
                return bool(router.poll(0))

            until(asked)
            worker = router.recv_multipart()[0]
            wrong = "firsthop_worker_wire_errors_total"
            refused = bench.funnel(wrong)["refused"]
            own = ufrag.seal(MINE, 1, KEYS.ufrag[1])
            for message in (
                raw("call.moved", ufrags=[own], addresses=[of(mine)], to=2),
                raw("path.up", address=of(mine), ufrag=own, ssrcs=[]),
            ):
                router.send_multipart([worker, message])
            until(lambda: bench.funnel(wrong)["refused"] == refused + 2)
            assert gained(bench, mine, b"\x16still mine") == {"forwarded_flow": 1}
            until(lambda: bench.transceivers[MINE].has(b"\x16still mine"))
        finally:
            router.close(linger=0)
