"""A path is believed when it has proved itself: what replays and invented addresses can do, and what not."""

from __future__ import annotations

import pytest
from ice_run import ELSEWHERE, HOME, OTHER_EDGE, answered, check, prove, request

from rtc.ice.lite import CONSENT_S, MAX_PATHS, UNPROVED_S, IceLite, Path
from wire import address, stun

VICTIM = Path(b"edge", address.pack("203.0.113.9", 9))


def at_home(now: float = 0.0) -> IceLite:
    """A session whose caller is at HOME, and has proved it."""
    ice = IceLite("u", now, remote_ufrag="theirs", remote_password="their password")
    assert check(ice, HOME, now, nominate=True)
    ice.secured(now)
    return ice


def test_a_check_that_nominates_moves_nothing_before_our_own_is_answered() -> None:
    ice = at_home()
    assert check(ice, ELSEWHERE, 1.0, nominate=True)
    assert ice.selected == HOME
    assert prove(ice, ELSEWHERE, 1.04)
    assert ice.selected == ELSEWHERE


def test_a_check_sent_again_by_the_same_path_is_answered_again() -> None:
    ice = at_home()
    said = request(ice.password)
    response = ice.check(said, HOME, 1.0)
    assert response is not None
    assert ice.check(said, HOME, 1.2) == response


@pytest.mark.parametrize("nominate", [True, False])
def test_an_overheard_check_gets_no_answer_anywhere_else(nominate: bool) -> None:
    ice = at_home()
    overheard = request(ice.password, nominate=nominate)
    assert ice.check(overheard, HOME, 1.0)
    for path in (VICTIM, OTHER_EDGE, ELSEWHERE):
        assert ice.check(overheard, path, 1.1) is None
        assert ice.refusal == "stun_replayed"
        assert ice.probe(path, 1.1) is None
    assert ice.paths == (HOME,)


def test_an_overheard_check_renews_no_consent() -> None:
    ice = at_home()
    overheard = request(ice.password)
    assert ice.check(overheard, HOME, 1.0)
    for second in range(2, 32):
        assert ice.check(overheard, HOME, float(second))
    assert ice.expire(1.1 + CONSENT_S) == [HOME]
    assert ice.ended(1.1 + CONSENT_S) == "consent_expired"


def test_who_brings_the_first_check_before_its_sender_does_keeps_it_from_nothing() -> None:
    ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password")
    overheard = request(ice.password, nominate=True)
    assert ice.check(overheard, VICTIM, 0.0)
    assert ice.check(overheard, HOME, 0.001)
    assert prove(ice, HOME, 0.04)
    assert ice.selected == HOME
    assert ice.check(overheard, VICTIM, 0.1) is None
    assert ice.selected == HOME


def test_transactions_that_are_remembered_are_bounded_and_recent_ones_are_among_them() -> None:
    ice = at_home()
    now, overheard = 0.0, []
    for _ in range(2000):
        now += 0.02
        overheard.append(request(ice.password))
        assert ice.check(overheard[-1], HOME, now)
    assert len(ice._seen) == 256
    assert all(ice.check(each, VICTIM, now) is None for each in overheard[-150:])


@pytest.mark.parametrize("nominate", [True, False])
def test_an_address_that_does_not_answer_draws_less_than_three_times_what_came_from_it(nominate: bool) -> None:
    ice = at_home()
    received = sent = 0
    now = 1.0
    for _ in range(200):
        said = request(ice.password, nominate=nominate)
        received += len(said.raw)
        sent += len(ice.check(said, VICTIM, now) or b"")
        for step in range(5):
            sent += len(ice.probe(VICTIM, now + step / 10) or b"")
            sent += sum(len(probe) for path, probe in ice.due(now + step / 10) if path == VICTIM)
        assert sent < 3 * received
        now += 0.5
    assert sent > received
    assert ice.selected == HOME


def test_the_first_path_draws_less_than_three_times_until_it_has_proved_itself() -> None:
    ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password")
    said = request(ice.password)
    sent = len(ice.check(said, HOME, 0.0) or b"")
    hello = 169
    assert ice.may_send(HOME, hello)  # DTLS begins at once
    sent += hello
    while ice.may_send(HOME, hello):
        sent += hello
    assert sent < 3 * len(said.raw)
    ice.came(HOME, 781)
    assert ice.may_send(HOME, 658)
    ice.secured(0.1)
    assert all(ice.may_send(HOME, 1200) for _ in range(1000))


def test_what_is_sent_to_a_path_that_nobody_came_by_is_nothing() -> None:
    assert not at_home().may_send(VICTIM, 1)


def test_a_path_that_is_anothers_is_not_latched_and_is_had_when_proved() -> None:
    ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password")
    assert ice.check(request(ice.password, nominate=True), VICTIM, 0.0, free=False)
    assert ice.selected is None
    assert prove(ice, VICTIM, 0.04)
    assert ice.selected == VICTIM


def test_a_caller_that_left_its_path_is_followed_without_a_nomination() -> None:
    ice = at_home()
    for now in (1.0, 3.5, 6.0):
        check(ice, ELSEWHERE, now)
    assert prove(ice, ELSEWHERE, 6.0)
    assert ice.selected == HOME
    check(ice, ELSEWHERE, 8.5)
    assert ice.selected == ELSEWHERE


def test_a_path_that_is_checked_stays_when_another_is() -> None:
    ice = at_home()
    check(ice, ELSEWHERE, 0.0)
    prove(ice, ELSEWHERE, 0.0)
    for step in range(1, 50):
        check(ice, HOME, step * 2.5)
        check(ice, ELSEWHERE, step * 2.5 + 1)
        assert ice.selected == HOME


def test_invented_addresses_are_forgotten_soon_and_keep_nobody_out() -> None:
    ice = at_home()
    for port in range(1, MAX_PATHS):
        assert check(ice, Path(b"edge", address.pack("203.0.113.9", port)), 1.0, nominate=True)
    assert check(ice, ELSEWHERE, 1.0) is None
    assert ice.refusal == "stun_many_paths"
    assert check(ice, HOME, 1.0)
    assert len(ice.expire(1.1 + UNPROVED_S)) == MAX_PATHS - 1
    assert check(ice, ELSEWHERE, 1.1 + UNPROVED_S)


def test_checks_beyond_any_clients_are_dropped_and_forged_ones_cost_the_client_nothing() -> None:
    ice = at_home()
    forged = [request("x" * 24) for _ in range(400)]
    assert not any(ice.check(each, VICTIM, 1.0) for each in forged)
    assert ice.refusal == "overflow"  # without a look at the password
    assert check(ice, HOME, 1.0)
    for each in forged:
        assert ice.check(each, HOME, 1.0) is None
    assert ice.refusal == "stun_not_authentic"
    answers = [check(ice, HOME, 2.0) for _ in range(300)]
    assert 50 <= sum(answer is not None for answer in answers) <= 100
    assert check(ice, HOME, 3.0)


# --- consent


def lives(ice: IceLite, seconds: int, *, answers: bool) -> float:
    """The time that a session goes on whose caller sends no checks, and answers ours or does not."""
    for second in range(1, seconds):
        now = float(second)
        ice.expire(now)
        if ice.ended(now):
            return now
        for path, probe in ice.due(now):
            if answers:
                assert ice.proved_by(answered(ice, probe), path, now)
    return float(seconds)


@pytest.mark.parametrize("consent_s", [10.0, CONSENT_S, 120.0])
def test_a_caller_that_only_answers_checks_holds_consent(consent_s: float) -> None:
    def begun() -> IceLite:
        ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password", consent_s=consent_s)
        check(ice, HOME, 0.0)
        ice.secured(0.0)
        return ice

    assert lives(begun(), 1000, answers=True) == 1000
    assert consent_s < lives(begun(), 1000, answers=False) <= consent_s + 2


def test_a_caller_that_checks_is_asked_nothing() -> None:
    ice = at_home()
    for step in range(100):
        check(ice, HOME, step * 2.5)
        assert ice.due(step * 2.5 + 1) == []


def test_an_answer_is_believed_once() -> None:
    ice = at_home()
    ((path, probe),) = ice.due(CONSENT_S / 2 + 1)
    said = answered(ice, probe)
    assert ice.proved_by(said, path, 17.0)
    assert not ice.proved_by(said, path, 18.0)
    request_instead = stun.parse(probe)
    assert request_instead is not None
    assert not ice.proved_by(request_instead, path, 18.0)
