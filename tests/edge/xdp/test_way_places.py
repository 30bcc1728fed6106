"""The array of ways to other hosts: whose number stands at which place, for Python and for XDP."""

from __future__ import annotations

from collections.abc import Iterator

import packets as p
import pytest
import steer_run

from bpf.layout import WAY, WAY_PLACES, WAYS
from edge.relay.between import Ticket, Tickets, Way
from edge.relay.classify import Tables, rewritten
from edge.xdp import kernel
from edge.xdp.kernel import XDP_REDIRECT, BpfMap, FlowStore
from edge.xdp.steering import Steering
from edge.xdp.ways import Backs, Hop
from wire import address
from wire.encapsulation import Head

pytestmark = pytest.mark.needs_root
SOURCE = address.pack("10.9.0.1", 0)[:16]
# All of them want the place of the first.
NUMBERS = [5 + i * WAYS for i in range(WAY_PLACES)]
ONE_MORE = 5 + WAY_PLACES * WAYS
CLIENTS = {n: address.pack(p.CLIENT, 40000 + i) for i, n in enumerate([*NUMBERS, ONE_MORE])}


def hop(n: int) -> Hop:
    return Hop(address.pack(f"10.9.1.{n // WAYS}", 7400), SOURCE, b"to-%03d" % (n // WAYS), b"from-x", 1, 1500)


@pytest.fixture
def steering() -> Iterator[Steering]:
    with steer_run.loaded() as steering:
        yield steering


def media(n: int) -> bytes:
    return p.with_udp_sum(p.datagram(p.rtp(1), *address.unpack(CLIENTS[n])))


def with_flows(steering: Steering) -> Tables:
    """The tables when each transceiver has a flow, and a way."""
    flows = {client: Ticket(100 + n % 97, b"ticket %d" % (n // WAYS), n) for n, client in CLIENTS.items()}
    store = FlowStore(steering.flows_fd, steering.ssrcs_fd)
    for client, (number, ticket, n) in flows.items():
        store.put(client, 1, n, True, Head(number, ticket))
    ways = {n: Way(hop(n).address, SOURCE, hop(n).to, hop(n).by) for n in CLIENTS}
    return Tables(
        p.MEDIA_PORT,
        None,
        {},
        [None] * 256,
        steer_run.CPUS,
        dict.fromkeys(flows, 1),
        {},
        tickets=Tickets(flows, ways, {}),
    )


def goes(steering: Steering, n: int) -> tuple[int, bytes]:
    xdp, out, _ = kernel.prog_test_run(steering.prog_fd, media(n))
    return xdp, out


def test_transceivers_that_want_one_place_have_each_its_own_way(steering: Steering) -> None:
    tables, backs = with_flows(steering), Backs(steering.backs_fd, steering.ways_fd)
    for n in NUMBERS:
        assert not backs.reaches(n)
        assert steering.ways.put(n, hop(n), open=True)
        assert backs.reaches(n)
    for n in NUMBERS:
        assert goes(steering, n) == (XDP_REDIRECT, rewritten(media(n), tables))
    assert steering.ways.remove(NUMBERS[1])
    assert not backs.reaches(NUMBERS[1])
    assert goes(steering, NUMBERS[1]) == (XDP_REDIRECT, media(NUMBERS[1]))  # to a worker
    for n in (*NUMBERS[:1], *NUMBERS[2:]):
        assert goes(steering, n) == (XDP_REDIRECT, rewritten(media(n), tables))


def test_one_for_whom_no_place_is_left_has_no_way_until_one_is_free(steering: Steering) -> None:
    tables = with_flows(steering)
    for n in NUMBERS:
        assert steering.ways.put(n, hop(n), open=True)
    assert not steering.ways.put(ONE_MORE, hop(ONE_MORE), open=True)
    assert not steering.ways.close(ONE_MORE)
    assert not steering.ways.remove(ONE_MORE)
    assert goes(steering, ONE_MORE) == (XDP_REDIRECT, media(ONE_MORE))
    assert steering.ways.open == dict.fromkeys(NUMBERS, True)
    assert steering.ways.remove(NUMBERS[3])
    assert steering.ways.put(ONE_MORE, hop(ONE_MORE), open=True)
    assert goes(steering, ONE_MORE) == (XDP_REDIRECT, rewritten(media(ONE_MORE), tables))
    assert goes(steering, NUMBERS[7]) == (XDP_REDIRECT, rewritten(media(NUMBERS[7]), tables))


def test_a_way_is_closed_while_another_takes_its_place(steering: Steering, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steering.ways.put(5, hop(5), open=True)
    written: list[tuple[bytes, int]] = []
    update = BpfMap.update

    def noted(table: BpfMap, key: bytes, value: bytes) -> None:
        if len(value) == WAY.size:
            written.append((WAY.read(value, "address"), WAY.read(value, "open")))
        update(table, key, value)

    monkeypatch.setattr(BpfMap, "update", noted)
    elsewhere = hop(NUMBERS[1])
    assert steering.ways.put(5, elsewhere, open=True)
    former, new = hop(5).address[:16], elsewhere.address[:16]
    assert written == [(former, 0), (new, 0), (new, 1)]
    written.clear()
    assert steering.ways.put(5, elsewhere, open=False)
    assert written == [(new, 0)]
