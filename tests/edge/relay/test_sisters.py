"""Sister clusters, as a worker knows them: whose ufrag it is, which link leads there, and what their edges may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.relay.counted import Counted
from edge.relay.flows import Flows
from edge.relay.flowtable import NOBODY
from edge.relay.rounds import Rounds
from edge.relay.sisters import OURS, Sisters, cluster_of, number_of
from edge.relay.spec import Sister
from edge.relay.ways import Ways
from wire import address, ufrag
from wire.frames import WireError
from wire.keys import ClusterKeys
from wire.messages import PathUp
from wire.ufrag import MAX_SISTER_EDGES, MAX_SISTERS, MAX_TRANSCEIVER

OWN = ClusterKeys({1: bytes(16)}, 1, bytes(32))
# Both under the key id that this cluster's key has: ids are each cluster's own.
FRA = ClusterKeys({1: b"f" * 16}, 1, b"f" * 32)
IAD = ClusterKeys({1: b"i" * 16, 2: b"j" * 16}, 1, b"i" * 32)
CALLER = address.pack("192.0.2.1", 40000)


class Link:
    """A link as far as the choice among several asks it."""

    def __init__(self, number: int, endpoint: str, keys: ClusterKeys, label: str) -> None:
        self.number, self.endpoint, self.keys, self.label = number, endpoint, keys, label
        self.there = True


@pytest.fixture
def sisters(tmp_path: Path) -> Sisters:
    none = str(tmp_path / "none")
    told = [Sister("fra", none, ("tcp://a:1", "tcp://b:1"), FRA), Sister("iad", none, ("tcp://c:1",), IAD)]
    make: Any = Link
    return Sisters(told, make)


def sealed(keys: ClusterKeys, key_id: int = 1, transceiver: int = 5) -> bytes:
    return ufrag.seal(transceiver, key_id, keys.ufrag[key_id]).encode()


def test_a_ufrag_leads_to_an_edge_of_the_cluster_that_sealed_it(sisters: Sisters) -> None:
    assert sisters.way(sealed(FRA), NOBODY) == number_of(0, 0)
    assert sisters.way(sealed(IAD, 2), NOBODY) == number_of(1, 0)
    assert sisters.way(sealed(OWN), NOBODY) is None
    assert [(link.label, link.number) for link in sisters] == [
        ("fra", number_of(0, 0)),
        ("fra.2", number_of(0, 1)),
        ("iad", number_of(1, 0)),
    ]


def test_one_edge_stands_in_for_another_and_keeps_what_it_has(sisters: Sisters) -> None:
    links: list[Any] = list(sisters)
    links[0].there = False
    assert sisters.way(sealed(FRA), number_of(0, 0)) == number_of(0, 1)
    links[0].there = True
    assert sisters.way(sealed(FRA), number_of(0, 1)) == number_of(0, 1)
    # A flow of another cluster's, or of a transceiver here, is no reason.
    assert sisters.way(sealed(FRA), number_of(1, 0)) == sisters.way(sealed(FRA), 5) == number_of(0, 0)
    links[0].there = links[1].there = False
    assert sisters.way(sealed(FRA), NOBODY) == number_of(0, 0)


def test_no_number_of_a_link_is_a_transceivers_or_anothers() -> None:
    numbers = [number_of(cluster, edge) for cluster in range(MAX_SISTERS) for edge in range(MAX_SISTER_EDGES)]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > MAX_TRANSCEIVER
    assert {cluster_of(0), cluster_of(MAX_TRANSCEIVER)} == {OURS}
    assert [cluster_of(number) for number in numbers[:: MAX_SISTER_EDGES - 1]][:2] == [0, 0]
    assert cluster_of(numbers[-1]) == MAX_SISTERS - 1


def test_keys_of_a_sister_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "fra.toml"
    make: Any = Link
    sisters = Sisters([Sister("fra", str(file), ("tcp://a:1",), FRA)], make)
    assert sisters.way(sealed(IAD), NOBODY) is None
    file.write_text(f'link = "{FRA.link.hex()}"\n[[ufrag]]\nid = 1\nkey = "{IAD.ufrag[1].hex()}"\n')
    file.chmod(0o600)
    sisters.refresh()
    assert sisters.way(sealed(IAD), NOBODY) == number_of(0, 0)
    assert sisters.way(sealed(FRA), NOBODY) is None


def up(keys: ClusterKeys, *, proved: bool = True) -> PathUp:
    return PathUp(address=CALLER, ufrag=sealed(keys).decode(), ssrcs=[7], proved=proved)


@pytest.fixture
def flows() -> Flows:
    return Flows(64, None, 0, Counted(), Rounds(0.0))


def test_an_edge_of_a_sister_has_a_path_only_where_it_was_passed_something_from_there(flows: Flows) -> None:
    edge = number_of(0, 0)
    assert not flows.up(edge, up(FRA), FRA.ufrag, 0.0)
    flows.claims.passed(CALLER, edge)
    assert flows.up(edge, up(FRA), FRA.ufrag, 0.0)
    assert flows.owner(CALLER) == edge
    assert flows.hints.transceiver(7) == edge
    assert flows.hints.here == {}  # edges behind this one's address are told of this cluster's calls alone
    assert flows.down(edge, CALLER)
    assert flows.owner(CALLER) == NOBODY


def test_a_sister_says_nothing_of_calls_that_it_did_not_seal(flows: Flows) -> None:
    flows.claims.passed(CALLER, number_of(0, 0))
    with pytest.raises(WireError, match="not sealed"):
        flows.up(number_of(0, 0), up(OWN), FRA.ufrag, 0.0)
    assert flows.owner(CALLER) == NOBODY


def test_no_cluster_takes_anothers_flow_and_this_one_takes_its_own(flows: Flows) -> None:
    def claims(number: int, keys: ClusterKeys) -> bool:
        flows.claims.passed(CALLER, number)
        return flows.up(number, up(keys), keys.ufrag, 0.0)

    assert claims(5, OWN)
    assert not claims(number_of(0, 0), FRA)
    assert flows.owner(CALLER) == 5
    flows.forget(CALLER)
    assert claims(number_of(0, 0), FRA)
    assert claims(number_of(0, 1), FRA)  # the other edge of the same cluster
    assert not claims(number_of(1, 0), IAD)
    assert flows.owner(CALLER) == number_of(0, 1)
    assert claims(5, OWN)


def test_ways_back_are_bounded_and_those_that_are_used_stay() -> None:
    clients = [address.pack("192.0.2.1", port) for port in range(1, 6)]

    def array(*addresses: bytes) -> Any:
        return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 18)

    ways = Ways(most=4)
    ways.came(array(*clients[:4]), b"a")
    ways.came(array(clients[0]), b"b")
    ways.came(array(clients[4]), b"b")
    assert len(ways) == 4
    assert [ways.back(client) for client in clients] == [b"b", None, b"a", b"a", b"b"]
    split = {worker: which.tolist() for worker, which in ways.split(array(clients[2], clients[1], clients[0]))}
    assert split == {b"a": [True, False, False], b"b": [False, False, True]}
