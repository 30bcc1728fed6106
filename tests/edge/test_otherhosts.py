"""The ways to transceivers on other hosts: when each opens and closes, and what is said of it."""

from __future__ import annotations

import pytest

from edge.otherhosts import GONE_S, OtherHosts
from edge.xdp.ways import Hop
from wire import address

HOST, ELSEWHERE = ("10.9.0.2", 7400), ("10.9.0.3", 7400)
HOP = Hop(address.pack(*HOST), address.pack("10.9.0.1", 0)[:16], b"to-him", b"from-x", 20, 1500)
BY_ANOTHER = Hop(HOP.address, HOP.source, b"gw-gw-", b"from-x", 20, 1500)


def asked(others: OtherHosts, clock_ns: int) -> None:
    """Notes that the transceiver 1 was asked at that time."""
    dict(others.items())[1].asked_ns = clock_ns


@pytest.fixture
def others() -> OtherHosts:
    """The transceiver 1, whose way is open, having answered at 100 s."""
    others = OtherHosts()
    others.know({1: HOST}, 99.0)
    others.find(1, HOP, "")
    asked(others, 7)
    assert others.answered(1, 7, 100.0)
    others.opened(1)
    return others


def test_a_way_opens_with_the_answer_to_the_last_question_and_no_other() -> None:
    others = OtherHosts()
    assert others.know({1: HOST}, 0.0) == []
    assert others.gauges() == {("1", "no_route"): 0}
    assert others.find(1, HOP, "")
    assert others.gauges() == {("1", "unanswered"): 0}
    assert others.at(HOP.address) == (1, HOP)
    asked(others, 7)
    assert not others.answered(1, 6, 0.1)
    assert not others.answered(2, 7, 0.1)
    assert others.answered(1, 7, 0.1)
    assert not others.is_open(1)  # before XDP has it
    others.opened(1)
    assert others.gauges() == {("1", ""): 1}
    assert not others.answered(1, 7, 0.2)  # it is open


def test_a_next_hop_that_answers_is_looked_up_less_often(others: OtherHosts) -> None:
    assert others.to_find(100.0) == {1: HOST}
    for seconds in range(101, 110):
        asked(others, seconds)
        assert not others.answered(1, seconds, float(seconds))
        assert others.to_find(float(seconds)) == {}
    assert others.to_find(110.0) == {1: HOST}
    assert others.to_find(111.9) == {}
    assert others.to_find(112.0) == {1: HOST}  # it has answered nothing for three seconds


def test_an_answer_without_a_next_hop_opens_nothing() -> None:
    others = OtherHosts()
    others.know({1: HOST}, 0.0)
    asked(others, 7)
    assert not others.answered(1, 7, 0.1)
    assert others.at(HOP.address) is None


def test_a_way_closes_when_nobody_has_answered_for_three_seconds(others: OtherHosts) -> None:
    assert others.closed(100.0 + GONE_S, True) == []
    assert others.closed(100.1 + GONE_S, True) == [(1, "unanswered")]
    assert others.closed(200.0, True) == []  # once
    assert others.answered(1, 7, 201.0)


def test_a_way_closes_while_the_interface_takes_nothing(others: OtherHosts) -> None:
    assert others.closed(100.1, False) == [(1, "unanswered")]


@pytest.mark.parametrize(
    ("hop", "barred", "why"),
    [(None, "", "no_route"), (HOP, "other_interface", "other_interface"), (HOP, "no_redirect", "no_redirect")],
)
def test_a_way_closes_when_there_is_none_that_can_be_used(
    others: OtherHosts, hop: Hop | None, barred: str, why: str
) -> None:
    assert not others.find(1, hop, barred)
    assert others.closed(100.1, True) == [(1, why)]
    assert others.gauges() == {("1", why): 0}
    assert others.find(1, HOP, "")  # XDP is told again
    assert others.gauges() == {("1", "unanswered"): 0}


def test_another_next_hop_is_told_and_does_not_close_the_way(others: OtherHosts) -> None:
    assert not others.find(1, HOP, "")
    assert others.find(1, BY_ANOTHER, "")
    assert others.is_open(1)
    assert others.closed(100.1, True) == []
    assert not others.find(9, HOP, "")  # which is gone meanwhile


def test_who_is_gone_or_elsewhere_is_forgotten(others: OtherHosts) -> None:
    assert others.know({1: HOST}, 101.0) == []
    assert others.know({1: ELSEWHERE}, 101.0) == [1]
    assert others.gauges() == {("1", "no_route"): 0}
    assert others.know({}, 101.0) == [1]
    assert others.gauges() == {}


def test_a_neighbour_is_asked_for_only_where_that_may_help(others: OtherHosts) -> None:
    assert others.may_change(1)
    others.find(1, HOP, "no_redirect")
    assert not others.may_change(1)
    assert not others.may_change(9)


def test_what_a_predecessor_had_open_stays_until_it_does_not_answer() -> None:
    others = OtherHosts()
    others.inherit({1: True, 2: False, 3: True}, 100.0)
    assert others.know({1: HOST, 2: HOST}, 100.5) == []
    assert (others.is_open(1), others.is_open(2)) == (True, False)
    others.find(1, HOP, "")
    assert others.closed(102.0, True) == []
    assert others.know({1: HOST, 2: HOST}, 100.1 + GONE_S) == [3]  # nobody has named it: XDP forgets it
    assert others.know({1: HOST, 2: HOST}, 200.0) == []
    assert others.closed(100.6 + GONE_S, True) == [(1, "unanswered")]
