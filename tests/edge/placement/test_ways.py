"""The ways to transceivers: hosts share what one link has measured."""

from __future__ import annotations

from edge.placement.ways import Ways, host_of


def test_the_shortest_that_any_link_measured_is_the_hosts() -> None:
    ways = Ways()
    assert list(ways.measured(1, "a", 0.05)) == []
    assert list(ways.measured(2, "a", 0.06)) == []
    assert ways.way_s(2) == 0.05
    assert list(ways.measured(2, "a", 0.01)) == [1]
    assert ways.way_s(1) == 0.01
    assert list(ways.measured(3, "b", 0.2)) == []
    assert ways.way_s(3) == 0.2


def test_what_no_link_measured_is_not_known() -> None:
    ways = Ways()
    ways.measured(1, "a", None)
    assert (ways.way_s(1), ways.way_s(2)) == (None, None)
    ways.measured(2, "a", 0.02)
    assert ways.way_s(1) == 0.02


def test_a_host_is_forgotten_with_the_last_that_was_there() -> None:
    ways = Ways()
    ways.measured(1, "a", 0.01)
    ways.measured(2, "a", 0.02)
    ways.remove(1)
    assert ways.way_s(2) == 0.01
    ways.measured(2, "b", 0.03)  # it has moved
    assert ways.way_s(2) == 0.03
    ways.measured(1, "a", 0.5)
    assert ways.way_s(1) == 0.5
    ways.remove(7)


def test_endpoints_name_their_hosts() -> None:
    assert host_of("tcp://10.0.0.1:7400") == host_of("tcp://10.0.0.1:7401") == "10.0.0.1"
    assert host_of("tcp://[2001:db8::1]:7400") == "[2001:db8::1]"
    assert host_of("ipc:///run/a.sock") == host_of("ipc:///run/b.sock") == ""
