"""A call over two edges: both paths stay valid, and media goes where the client wants it or speaks from."""

from __future__ import annotations

import pytest
from ice_run import HOME, OTHER_EDGE, answered, check, prove

from rtc.ice.lite import CONSENT_S, IceLite


def at_both(now: float = 0.0) -> IceLite:
    """A session whose caller is selected at HOME, and has proved itself by another edge too."""
    ice = IceLite("u", now, remote_ufrag="theirs", remote_password="their password")
    assert check(ice, HOME, now, nominate=True)
    ice.secured(now)
    assert check(ice, OTHER_EDGE, now)
    assert prove(ice, OTHER_EDGE, now)
    assert ice.selected == HOME
    return ice


def test_checks_on_the_other_path_move_nothing() -> None:
    ice = at_both()
    for second in range(1, 60):
        assert check(ice, HOME, float(second))
        assert check(ice, OTHER_EDGE, float(second))
        assert ice.selected == HOME
    assert set(ice.paths) == {HOME, OTHER_EDGE}


def test_a_check_that_nominates_the_other_path_moves_at_once() -> None:
    ice = at_both()
    assert check(ice, OTHER_EDGE, 1.0, nominate=True)
    assert ice.selected == OTHER_EDGE
    assert HOME in ice.paths


def test_media_by_the_other_path_moves_there_when_the_selected_one_is_silent() -> None:
    ice = at_both()
    assert not ice.spoke(HOME, 1.0)
    assert not ice.spoke(OTHER_EDGE, 1.1)
    assert ice.selected == HOME
    assert ice.spoke(OTHER_EDGE, 1.3)
    assert ice.selected == OTHER_EDGE


def test_what_was_on_its_way_by_the_path_that_was_left_moves_nothing_back() -> None:
    ice = at_both()
    assert ice.spoke(OTHER_EDGE, 1.0)
    assert not ice.spoke(HOME, 1.1)
    assert ice.selected == OTHER_EDGE
    assert not ice.spoke(OTHER_EDGE, 1.12)
    assert not ice.spoke(HOME, 1.25)


def test_media_by_a_path_that_proved_nothing_moves_nothing() -> None:
    ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password")
    assert check(ice, HOME, 0.0, nominate=True)
    ice.secured(0.0)
    assert check(ice, OTHER_EDGE, 0.0)
    assert not ice.spoke(OTHER_EDGE, 5.0)
    assert ice.selected == HOME


@pytest.mark.parametrize("quiet_s", [11.0, 25.0])
def test_a_path_that_is_not_selected_is_asked_whether_it_lives(quiet_s: float) -> None:
    ice = at_both()
    assert check(ice, HOME, quiet_s)
    assert [path for path, _ in ice.due(quiet_s)] == [OTHER_EDGE]
    assert ice.due(quiet_s + 1.0) == []  # not every second


def test_its_answer_is_consent_and_no_wish_to_be_heard_there() -> None:
    ice = at_both()
    for second in range(10, 130, 10):
        # Its own checks stay away, as those of a client that sends indications.
        for path, probe in ice.due(float(second)):
            assert ice.proved_by(answered(ice, probe), path, float(second))
        assert ice.expire(float(second)) == []
        assert ice.selected == HOME
    assert set(ice.paths) == {HOME, OTHER_EDGE}


def test_a_path_by_which_nothing_is_answered_is_given_up_and_the_other_stays() -> None:
    ice = at_both()
    now = 0.0
    while now <= CONSENT_S:
        now += 1.0
        assert check(ice, OTHER_EDGE, now)
        ice.due(now)
    assert ice.expire(now) == [HOME]
    assert ice.selected == OTHER_EDGE
    assert ice.ended(now) == ""


def test_a_session_that_was_taken_up_stays_where_its_media_is() -> None:
    ice = at_both()
    ice.spoke(HOME, 99.9)
    other = IceLite.take_up(ice.export(100.0), 5000.0)
    assert not other.spoke(OTHER_EDGE, 5000.1)
    assert other.selected == HOME
