"""One real worker process, started as the supervisor starts it, between UDP clients and a ZeroMQ ROUTER.

Each datagram is counted exactly once: tests compare the whole funnel before and after.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until
from wiring import Said, heard, raw
from working import (
    ABSENT,
    KEYS,
    MINE,
    OTHER,
    RX,
    TX,
    Bench,
    Transceiver,
    a_worker,
    audio,
    check,
    check_under,
    gained,
    of,
)

from edge.relay.counted import OUTCOMES
from edge.relay.spec import Spec
from runtime.supervision.child import ChildSpec
from wire import address, frames, stun, ufrag
from wire.keys import file_text


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_worker(tmp_path_factory.mktemp("w")) as bench:
        yield bench


def forgets(bench: Bench, client: socket.socket) -> None:
    """Takes the client's path down, and returns when the worker does not know it any more."""
    bench.transceivers[MINE].send(raw("path.down", address=of(client)))
    until(lambda: gained(bench, client, b"\x16still there?") == {"unknown_flow": 1})


# --- from clients ---


def test_every_outcome_stands_at_zero_before_it_happens(bench: Bench) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{bench.metrics_port}/metrics", timeout=30) as response:
        text = response.read().decode()
    assert all(f'{RX}{{outcome="{outcome}"}}' in text for outcome in OUTCOMES)


def test_a_check_with_a_sealed_ufrag_reaches_its_transceiver(bench: Bench) -> None:
    client = bench.client()
    for number in (MINE, OTHER):
        for key_id in KEYS.ufrag:
            datagram = check(number, key_id)
            assert gained(bench, client, datagram) == {"forwarded_stun": 1}
            until(lambda number=number, datagram=datagram: bench.transceivers[number].has(datagram))
            assert (of(client), datagram) in bench.transceivers[number].received


def test_a_check_with_an_invented_ufrag_goes_nowhere(bench: Bench) -> None:
    client = bench.client()
    sealed = ufrag.seal(MINE, 1, bytes(16))
    forged = [
        stun.binding_request(f"{name}:client".encode(), b"password")
        for name in (sealed, sealed[:-1], "A" * 24, "", "x" * 200)
    ]
    genuine = check(MINE)
    assert gained(bench, client, *forged, genuine) == {"stun_bad_ufrag": 5, "forwarded_stun": 1}
    until(lambda: bench.transceivers[MINE].has(genuine))
    assert not any(bench.transceivers[MINE].has(datagram) for datagram in forged)


def test_a_check_for_a_transceiver_that_is_not_configured_is_counted(bench: Bench) -> None:
    assert gained(bench, bench.client(), check(ABSENT)) == {"unknown_transceiver": 1}


def test_a_flow_that_nobody_vouches_for_is_dropped(bench: Bench) -> None:
    client = bench.client()
    strangers = [b"\x16\xfe\xfdhello", audio(99), b"\x40", b"\xff" * 40, b"\x00", b"\x80", b"\x80" * 11]
    assert gained(bench, client, *strangers) == {"unknown_flow": len(strangers)}


def test_a_stun_response_from_a_stranger_is_dropped(bench: Bench) -> None:
    request = stun.parse(check(MINE))
    assert request is not None
    response = stun.binding_response(request, address.pack("127.0.0.1", 1), b"password")
    assert gained(bench, bench.client(), response) == {"unknown_flow": 1}


def test_empty_and_oversized_datagrams_are_counted_as_such(bench: Bench) -> None:
    client = bench.client()
    assert gained(bench, client, b"", bytes(2049), bytes(9000)) == {"empty": 1, "oversized": 2}
    bench.proven(client)
    assert gained(bench, client, b"", bytes(2049), b"\x16ok") == {"empty": 1, "oversized": 1, "forwarded_flow": 1}


def test_a_proven_flow_is_forwarded_whole_and_in_order(bench: Bench) -> None:
    client = bench.client()
    bench.proven(client)
    datagrams = [bytes([0x80 + i % 64]) + i.to_bytes(2, "big") * (1 + i % 700) for i in range(1, 120)]
    datagrams.append(bytes([20]) * 2048)
    for at in range(0, len(datagrams), 30):
        part = datagrams[at : at + 30]
        assert gained(bench, client, *part) == {"forwarded_flow": len(part)}
    until(lambda: bench.transceivers[MINE].has(datagrams[-1]))
    mine = [datagram for client_address, datagram in bench.transceivers[MINE].received if client_address == of(client)]
    assert mine[-len(datagrams) :] == datagrams


def test_each_flow_goes_to_its_own_transceiver(bench: Bench) -> None:
    one, two = bench.client(), bench.client()
    bench.proven(one, by=MINE)
    bench.proven(two, by=OTHER)
    bench.to_worker(one, b"\x16for mine")
    bench.to_worker(two, b"\x16for other")
    until(lambda: bench.transceivers[MINE].has(b"\x16for mine"))
    until(lambda: bench.transceivers[OTHER].has(b"\x16for other"))
    assert not bench.transceivers[MINE].has(b"\x16for other")
    assert not bench.transceivers[OTHER].has(b"\x16for mine")


def test_a_check_moves_a_known_flow_nowhere(bench: Bench) -> None:
    """What a check says counts for the check alone: only the transceiver enters flows."""
    client = bench.client()
    bench.proven(client, by=MINE)
    assert gained(bench, client, check(OTHER)) == {"forwarded_stun": 1}
    bench.to_worker(client, b"\x16still mine")
    until(lambda: bench.transceivers[MINE].has(b"\x16still mine"))


def test_an_ssrc_is_a_hint_for_an_address_that_nobody_knows(bench: Bench) -> None:
    client, moved = bench.client(), bench.client()
    bench.proven(client, 0xDEADBEEF)
    report = bytes([0x81, 200, 0, 6]) + (0xDEADBEEF).to_bytes(4, "big") + bytes(20)
    assert gained(bench, moved, audio(0xDEADBEEF), report, audio(0xDEADBEE0)) == {
        "forwarded_ssrc": 2,
        "unknown_flow": 1,
    }
    until(lambda: bench.transceivers[MINE].has(audio(0xDEADBEEF), report))


def test_path_down_forgets_the_flow_and_its_ssrc(bench: Bench) -> None:
    client, moved = bench.client(), bench.client()
    bench.proven(client, 0xABCDEF)
    forgets(bench, client)
    assert gained(bench, moved, audio(0xABCDEF)) == {"unknown_flow": 1}


def test_a_transceiver_cannot_take_down_a_flow_of_another(bench: Bench) -> None:
    client, marker = bench.client(), bench.client()
    bench.proven(client, by=MINE)
    bench.transceivers[OTHER].send(raw("path.down", address=of(client)))
    bench.proven(marker, by=OTHER)  # came after it on the same link
    assert gained(bench, client, b"\x16mine") == {"forwarded_flow": 1}


# --- to clients ---


def test_a_check_that_proves_nothing_takes_no_flow_from_another_transceiver(bench: Bench) -> None:
    client = bench.client()
    bench.proven(client, by=OTHER)
    mine = ufrag.seal(MINE, 1, KEYS.ufrag[1])
    for proved, owner in ((False, OTHER), (True, MINE)):
        before = bench.funnel("firsthop_worker_wire_errors_total")["refused"]
        bench.to_worker(client, check(MINE))
        bench.transceivers[MINE].send(raw("path.up", address=of(client), ufrag=mine, ssrcs=[], proved=proved))
        bench.transceivers[MINE].send(raw("unknown"))  # read after it
        until(lambda before=before: bench.funnel("firsthop_worker_wire_errors_total")["refused"] == before + 1)
        said = b"\x17" + bytes([proved])
        assert gained(bench, client, said) == {"forwarded_flow": 1}
        until(lambda owner=owner, said=said: bench.transceivers[owner].has(said))
    assert bench.funnel("firsthop_worker_flows_refused_total") == {"held": 1}


def test_what_a_transceiver_sends_reaches_its_client_in_order(bench: Bench) -> None:
    one, two = bench.client(), bench.client()
    bench.proven(one)
    bench.proven(two)
    before = bench.funnel(TX)
    batch = [(of(one if i % 3 else two), bytes([i]) * (1 + 7 * i)) for i in range(150)]
    bench.transceivers[MINE].send(frames.pack_batch(batch))
    for client in (one, two):
        expected = [datagram for client_address, datagram in batch if client_address == of(client)]
        assert [client.recv(4096) for _ in expected] == expected
    until(lambda: bench.funnel(TX) - before == {"sent": 150})


def test_nothing_reaches_an_address_that_is_not_the_transceivers_own(bench: Bench) -> None:
    mine, others, stranger = bench.client(), bench.client(), bench.client()
    bench.proven(mine, by=MINE)
    bench.proven(others, by=OTHER)
    before = bench.funnel(TX)
    batch = [(of(others), b"no"), (of(stranger), b"no"), (of(mine), b"yes"), (of(stranger), b""), (of(mine), b"")]
    bench.transceivers[MINE].send(frames.pack_batch(batch))
    assert [mine.recv(100), mine.recv(100)] == [b"yes", b""]
    until(lambda: bench.funnel(TX) - before == {"sent": 2, "not_its_flow": 3})
    for client in (others, stranger):
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(100)


@pytest.mark.parametrize("batch", [[], [(address.pack("127.0.0.1", 1), b"")]], ids=["none", "empty"])
def test_a_batch_without_bytes_is_no_trouble(bench: Bench, batch: list[tuple[bytes, bytes]]) -> None:
    marker = bench.client()
    before = bench.funnel("firsthop_worker_wire_errors_total")
    bench.transceivers[MINE].send(frames.pack_batch(batch))
    bench.proven(marker)
    assert bench.funnel("firsthop_worker_wire_errors_total") == before


@pytest.mark.parametrize(
    "said",
    [
        b"\xc1",
        b"",
        raw("no.such.message"),
        raw("path.up"),
        raw("path.up", address=b"short", ufrag="", ssrcs=[]),
        raw("path.up", address=None, ufrag="", ssrcs=[]),
        raw("path.up", address=bytes(18), ufrag="", ssrcs=None),
        raw("path.up", address=bytes(18), ufrag="", ssrcs=["x"]),
        raw("path.down", address=b"short"),
        raw("path.down"),
    ],
)
def test_a_message_that_cannot_be_used_is_counted_and_kills_nothing(bench: Bench, said: bytes) -> None:
    marker = bench.client()
    before = bench.funnel("firsthop_worker_wire_errors_total")
    bench.transceivers[MINE].send(said)
    bench.proven(marker)
    assert bench.funnel("firsthop_worker_wire_errors_total") - before == {"refused": 1}


# --- times ---


def test_ages_and_round_trips_are_measured_of_each_batch(bench: Bench) -> None:
    client, transceiver = bench.client(), bench.transceivers[MINE]
    bench.proven(client)

    def taken(name: str) -> int:
        # Both transceivers' histograms; nothing is said to the other meanwhile.
        return bench.funnel(f"{name}_seconds_count").total()

    ages, trips = taken("firsthop_worker_age"), taken("firsthop_link_round_trip")
    bench.to_worker(client, b"\x16up")
    until(lambda: taken("firsthop_worker_age") > ages)
    stamp = transceiver.stamp_of(b"\x16up")
    assert 0 < stamp < time.monotonic_ns()
    transceiver.send(frames.pack_batch([(of(client), b"down")], stamp, 1))
    until(lambda: taken("firsthop_link_round_trip") == trips + 1)
    # One that cannot be is no round trip, and no reason to lose what came with it.
    client.recv(100)
    transceiver.send(frames.pack_batch([(of(client), b"from the future")], 2**63, 1))
    assert client.recv(100) == b"from the future"
    until(lambda: bench.funnel("firsthop_link_round_trip_left_out_total").total() == 1)
    assert taken("firsthop_link_round_trip") == trips + 1


# --- trouble ---


def test_a_flood_of_random_bytes_is_counted_and_kills_nothing(bench: Bench) -> None:
    rng = random.Random(2000)
    client = bench.client()
    for number, transceiver in bench.transceivers.items():  # what came before it may still be on its way
        marker = check(number)
        bench.to_worker(client, marker)
        until(lambda transceiver=transceiver, marker=marker: transceiver.has(marker))
    before, flows = bench.funnel(RX), bench.funnel("firsthop_worker_flows")[""]
    seen = {number: len(transceiver.received) for number, transceiver in bench.transceivers.items()}
    for _ in range(40):
        bench.to_worker(
            client, *(rng.randbytes(rng.choice((0, 1, 11, 12, 20, 60, 200, 1200, 2048))) for _ in range(50))
        )
    flood = bench.funnel(RX) - before
    assert flood.total() == 2000
    assert set(flood) == {"empty", "unknown_flow"}
    assert {number: len(transceiver.drain()) for number, transceiver in bench.transceivers.items()} == seen
    assert bench.funnel("firsthop_worker_flows")[""] <= flows
    bench.proven(bench.client())


def test_a_flood_of_sealed_stun_with_random_attributes_kills_nothing(bench: Bench) -> None:
    rng = random.Random(2001)
    client = bench.client()
    genuine = check(MINE)
    for _ in range(10):
        mutated = []
        for _ in range(50):
            datagram = bytearray(genuine)
            for _ in range(rng.randrange(1, 4)):
                datagram[rng.randrange(len(datagram))] = rng.randrange(256)
            mutated.append(bytes(datagram))
        assert gained(bench, client, *mutated).total() == 50


def test_a_transceiver_that_is_away_costs_its_datagrams_and_comes_back(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        client, others = bench.client(), bench.client()
        bench.proven(client, by=MINE)
        bench.proven(others, by=OTHER)
        bench.transceivers.pop(MINE).close()

        def down() -> bool:
            return gained(bench, client, b"\x16lost") == {"link_down": 1}

        until(down)
        assert gained(bench, client, check(MINE), b"\x16lost") == {"link_down": 2}
        assert gained(bench, others, b"\x16goes on") == {"forwarded_flow": 1}

        back = bench.transceivers[MINE] = Transceiver(bench.context, bench.endpoint(MINE))

        def forwarded() -> bool:
            return gained(bench, client, b"\x16found again") == {"forwarded_flow": 1}

        until(forwarded)
        until(lambda: back.has(b"\x16found again"))


def test_a_worker_follows_the_key_file_and_does_without_one(tmp_path: Path) -> None:
    newer = bytes(range(100, 116))
    with a_worker(tmp_path) as bench:  # there is no file yet: the keys that it was started with are good
        client = bench.client()
        assert gained(bench, client, check(MINE), check_under(3, newer, MINE)) == {
            "forwarded_stun": 1,
            "stun_bad_ufrag": 1,
        }
        text = file_text(KEYS.link, [(3, newer, None), (1, KEYS.ufrag[1], None)])
        (tmp_path / "cluster.new").write_text(text)
        (tmp_path / "cluster.new").rename(tmp_path / "cluster.toml")

        def taken() -> bool:
            return gained(bench, client, check_under(3, newer, MINE)) == {"forwarded_stun": 1}

        until(taken)
        assert gained(bench, client, check(MINE, 1), check(MINE, 2)) == {"forwarded_stun": 1, "stun_bad_ufrag": 1}
        (tmp_path / "cluster.toml").unlink()
        until(lambda: "key file not taken" in (tmp_path / "worker.log").read_text())
        assert gained(bench, client, check_under(3, newer, MINE)) == {"forwarded_stun": 1}


def test_sigterm_ends_a_worker_without_complaint(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        pass
    assert bench.process.returncode == 0


def test_a_worker_ends_when_nobody_holds_its_lifeline(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the worker died"), a_worker(tmp_path) as bench:
        bench.let_go()


def test_ctrl_c_is_left_to_the_supervisor(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        bench.process.send_signal(signal.SIGINT)
        bench.proven(bench.client())


def test_a_spec_survives_the_way_into_the_process() -> None:
    spec = Spec("edge", 3, 1, 4, (5,), 64, -1, -1, -1, ("127.0.0.1", 9402), ((1, "ipc://x"),), KEYS, "k")
    child = ChildSpec("worker-3", spec.dump(), {"level": "info", "form": "json"}, 9, (10, 4), 1)
    there = ChildSpec.parse(child.dump())
    assert there.dump() == child.dump()
    again = Spec.parse(there.own)
    assert json.dumps(again.dump()) == json.dumps(spec.dump())
    assert again.keys == KEYS


def test_a_control_message_to_the_worker_is_what_the_wire_says() -> None:
    """The tests above speak the wire's own words."""
    assert heard(raw("path.down", address=bytes(18))) == Said("path.down", {"address": bytes(18)})


def test_a_rebound_flows_old_address_leaves_without_its_ssrc(bench: Bench) -> None:
    """A client behind a NAT that rebinds twice: the first address's end must not cost the hint of the second."""
    first, second, third = bench.client(), bench.client(), bench.client()
    bench.proven(first, 0x5EC0)
    bench.proven(second, 0x5EC0)
    forgets(bench, first)
    assert gained(bench, third, audio(0x5EC0)) == {"forwarded_ssrc": 1}
