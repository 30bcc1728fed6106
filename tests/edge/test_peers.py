"""The other edges of a cluster: which of them an answer names, and in which order."""

from __future__ import annotations

import pytest

from edge.peers import MAX_CANDIDATES, WELL_FOR_S, Peer, Peers

HERE = ("192.0.2.1", 3478)


def edge(number: int, region: str = "") -> Peer:
    return Peer(f"edge-{number}", (f"192.0.2.{number}", 3478), f"tcp://10.0.0.{number}:7450", region)


def knowing(*edges: Peer) -> Peers:
    peers = Peers("edge-1", HERE)
    peers.know([edge(1), *edges])
    return peers


def test_an_edge_alone_names_itself() -> None:
    assert Peers("edge-1", HERE).media(0.0) == [HERE]


def test_its_own_row_makes_no_other_edge() -> None:
    assert knowing().known == ()
    assert not knowing().heard("edge-1", 0.0)


def test_an_edge_is_named_from_its_first_heartbeat_until_it_is_missed() -> None:
    peers = knowing(edge(2))
    assert peers.media(9.9) == [HERE]
    assert peers.heard("edge-2", 10.0)
    assert peers.media(10.0 + WELL_FOR_S) == [HERE, edge(2).media]
    assert peers.media(10.1 + WELL_FOR_S) == [HERE]


def test_what_was_said_last_is_known_with_its_age_also_of_one_that_is_away() -> None:
    peers = knowing(edge(2), edge(3))
    assert peers.heard_of(1.0) == []
    peers.heard("edge-2", 1.0, draining=True)
    peers.heard("edge-3", 2.0)
    assert peers.heard_of(101.0) == [("edge-2", 100.0, True), ("edge-3", 99.0, False)]
    peers.know([edge(3)])
    assert peers.heard_of(101.0) == [("edge-3", 99.0, False)]


def test_an_edge_that_drains_is_not_named() -> None:
    peers = knowing(edge(2))
    peers.heard("edge-2", 10.0, draining=True)
    assert peers.media(10.0) == [HERE]
    peers.heard("edge-2", 10.2)
    assert peers.media(10.2) == [HERE, edge(2).media]


def test_while_this_edge_drains_others_are_named_in_its_place() -> None:
    peers = knowing(edge(2))
    peers.draining = True
    assert peers.media(10.0) == [HERE]  # better than none
    peers.heard("edge-2", 10.0)
    assert peers.media(10.0) == [edge(2).media]


def test_edges_of_the_own_region_come_first_and_the_rest_take_turns() -> None:
    peers = Peers("edge-1", HERE, "west")
    rows = [edge(1, "west"), edge(2, "east"), edge(3, "east"), edge(4, "west")]
    peers.know(rows)
    for row in rows[1:]:
        peers.heard(row.name, 0.0)
    answers = [peers.media(0.0) for _ in range(6)]
    assert all(answer[:2] == [HERE, rows[3].media] for answer in answers)
    assert {answer[2] for answer in answers} == {rows[1].media, rows[2].media}


def test_an_answer_names_no_more_than_a_client_should_check() -> None:
    peers = knowing(*map(edge, range(2, 30)))
    for number in range(2, 30):
        peers.heard(f"edge-{number}", 0.0)
    assert len(peers.media(0.0)) == MAX_CANDIDATES


def test_edges_behind_one_address_are_one_candidate() -> None:
    peers = Peers("edge-1", HERE)
    peers.know([Peer("edge-2", HERE, "tcp://10.0.0.2:7450")])
    peers.heard("edge-2", 0.0)
    assert peers.media(0.0) == [HERE]


def test_an_edge_that_left_is_forgotten_with_its_heartbeats() -> None:
    peers = knowing(edge(2))
    peers.heard("edge-2", 0.0)
    peers.know([edge(1)])
    assert peers.media(0.0) == [HERE]
    assert not peers.heard("edge-2", 0.1)
    peers.know([edge(2)])
    assert peers.media(0.1) == [HERE]


@pytest.mark.parametrize("name", ["", "nobody", "edge-1"])
def test_a_heartbeat_of_an_unknown_edge_changes_nothing(name: str) -> None:
    peers = knowing(edge(2))
    assert not peers.heard(name, 0.0)
    assert peers.media(0.0) == [HERE]
