"""ICE-lite: which checks are answered, which path is selected, and when consent is gone."""

from __future__ import annotations

import re

import pytest
from ice_run import ELSEWHERE, HOME, OTHER_EDGE, check, prove, request

from rtc.ice.lite import CONSENT_S, MAX_PATHS, NEVER_CAME_S, IceLite, Path
from wire import address, stun


def test_the_password_is_one_that_ice_allows_and_is_never_the_same() -> None:
    # RFC 8839 section 5.4: at least 22 characters of the alphabet, 128 random bits.
    passwords = {IceLite("u", 0.0).password for _ in range(500)}
    assert len(passwords) == 500
    assert all(re.fullmatch(r"[A-Za-z0-9+/]{22,256}", password) for password in passwords)


@pytest.mark.parametrize("path", [HOME, ELSEWHERE])
def test_an_authentic_check_is_answered_with_the_address_it_came_from(path: Path) -> None:
    ice = IceLite("u", 0.0)
    asked = request(ice.password)
    response = stun.parse(ice.check(asked, path, 1.0) or b"")
    assert response is not None
    assert response.transaction == asked.transaction
    assert stun.integrity_is_valid(response, ice.password.encode())
    assert ice.paths == (path,)


def test_the_first_valid_check_selects_without_a_nomination() -> None:
    ice = IceLite("u", 0.0)
    assert ice.selected is None
    assert check(ice, HOME, 1.0)
    assert ice.selected == HOME


def test_a_later_check_moves_the_selection_only_if_it_nominates() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    check(ice, ELSEWHERE, 2.0)
    assert prove(ice, ELSEWHERE, 2.0)
    assert ice.selected == HOME
    check(ice, ELSEWHERE, 3.0, nominate=True)
    assert ice.selected == ELSEWHERE


def test_the_same_address_through_another_edge_is_another_path() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    check(ice, OTHER_EDGE, 1.0, nominate=True)
    assert ice.selected == HOME
    assert prove(ice, OTHER_EDGE, 1.0)
    assert set(ice.paths) == {HOME, OTHER_EDGE}
    assert ice.selected == OTHER_EDGE


def test_what_is_not_authentic_is_not_answered_and_changes_nothing() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    bare = stun.parse(bytes.fromhex("000100002112a442") + bytes(12))
    assert bare is not None
    for message in (request("x" * 24, nominate=True), bare):
        assert ice.check(message, ELSEWHERE, 2.0) is None
        assert ice.check(message, HOME, CONSENT_S) is None
    assert ice.paths == (HOME,)
    assert ice.selected == HOME
    # Nor did the forged check on the path itself renew its consent.
    assert ice.expire(CONSENT_S + 1.5) == [HOME]


def test_a_response_is_no_check() -> None:
    ice = IceLite("u", 0.0)
    response = stun.parse(stun.binding_response(request(ice.password), HOME.address, ice.password.encode()))
    assert response is not None
    assert ice.check(response, HOME, 1.0) is None
    assert ice.paths == ()


def test_paths_are_bounded_and_those_that_are_there_go_on() -> None:
    ice = IceLite("u", 0.0)
    paths = [Path(b"edge", address.pack("192.0.2.1", port)) for port in range(1, MAX_PATHS + 10)]
    answered = [check(ice, path, 1.0) is not None for path in paths]
    assert answered == [True] * MAX_PATHS + [False] * 9
    assert check(ice, paths[0], 2.0)
    assert len(ice.paths) == MAX_PATHS


def test_consent_lasts_30_seconds_from_the_last_check() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 10.0)
    check(ice, HOME, 20.0)
    assert ice.expire(20.0 + CONSENT_S) == []
    assert ice.expire(20.1 + CONSENT_S) == [HOME]
    assert ice.paths == ()
    assert ice.selected is None
    assert ice.expire(1000.0) == []


def test_the_selection_moves_to_the_freshest_path_that_is_left() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    for path, at in ((ELSEWHERE, 5.0), (OTHER_EDGE, 6.0)):
        check(ice, path, at)
        prove(ice, path, at)
    assert ice.expire(CONSENT_S + 2.0) == [HOME]
    assert ice.selected == OTHER_EDGE


def test_a_path_that_is_not_selected_expires_alone() -> None:
    ice = IceLite("u", 0.0)
    check(ice, ELSEWHERE, 1.0)
    check(ice, HOME, 20.0, nominate=True)
    assert prove(ice, HOME, 20.0)
    assert ice.expire(CONSENT_S + 2.0) == [ELSEWHERE]
    assert ice.selected == HOME


def test_a_session_whose_consent_is_gone_is_over_for_that_reason() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    ice.expire(20.0)
    assert ice.ended(20.0) == ""
    ice.expire(CONSENT_S + 2.0)
    assert ice.ended(CONSENT_S + 2.0) == "consent_expired"


def test_a_client_that_never_came_is_over_for_another() -> None:
    ice = IceLite("u", 100.0)
    ice.expire(100.0 + NEVER_CAME_S)
    assert ice.ended(100.0 + NEVER_CAME_S) == ""
    assert ice.ended(100.1 + NEVER_CAME_S) == "never_came"


def test_a_client_that_comes_back_in_time_goes_on() -> None:
    ice = IceLite("u", 0.0)
    check(ice, HOME, 1.0)
    check(ice, ELSEWHERE, CONSENT_S)
    assert prove(ice, ELSEWHERE, CONSENT_S)
    assert ice.expire(CONSENT_S + 2.0) == [HOME]
    assert ice.ended(CONSENT_S + 2.0) == ""
    assert ice.selected == ELSEWHERE


def moving(now: float = 0.0) -> tuple[IceLite, Path, bytes]:
    """A session whose caller was at one address, and the check that is sent to the one it moved to."""
    ice = IceLite("u", 0.0, remote_ufrag="theirs", remote_password="their password")
    old, new = Path(b"edge", address.pack("192.0.2.1", 1)), Path(b"edge", address.pack("192.0.2.1", 2))
    request = stun.parse(stun.binding_request(b"u:theirs", ice.password.encode(), tie_breaker=1))
    assert request is not None
    assert ice.check(request, old, now) is not None
    ice.moved(new, 100, now)
    probe = ice.probe(new, now)
    assert probe is not None
    return ice, new, probe


def test_a_probe_is_a_check_that_the_client_can_verify() -> None:
    _, _, probe = moving()
    message = stun.parse(probe)
    assert message is not None
    assert stun.server_ufrag(message) == b"theirs"
    assert stun.integrity_is_valid(message, b"their password")


def test_an_answered_probe_moves_the_selection_and_forgets_where_the_caller_was() -> None:
    ice, new, probe = moving()
    message = stun.parse(probe)
    assert message is not None
    response = stun.parse(stun.binding_response(message, address.pack("192.0.2.9", 9), b"their password"))
    assert response is not None
    assert ice.proved_by(response, new, 1.0)
    assert ice.selected == new
    assert ice.paths == (new,)
    assert not ice.proved_by(response, new, 1.0)


def test_an_answer_that_is_forged_or_comes_by_another_path_moves_nothing() -> None:
    ice, new, probe = moving()
    before = ice.selected
    message = stun.parse(probe)
    assert message is not None
    forged = stun.parse(stun.binding_response(message, new.address, b"not their password"))
    other = stun.parse(stun.binding_request(b"x:y", b"their password"))
    assert other is not None
    stranger = stun.parse(stun.binding_response(other, new.address, b"their password"))
    good = stun.parse(stun.binding_response(message, new.address, b"their password"))
    assert forged is not None
    assert stranger is not None
    assert good is not None
    assert not ice.proved_by(forged, new, 1.0)
    assert not ice.proved_by(stranger, new, 1.0)
    assert not ice.proved_by(good, Path(b"edge", address.pack("192.0.2.1", 3)), 1.0)
    assert ice.selected == before


def test_probes_are_few_and_end_when_nobody_answers() -> None:
    ice, new, _ = moving()
    assert ice.probe(new, 0.02) is None
    assert ice.probe(new, 0.06) is not None
    for port in range(10, 100):
        another = Path(b"edge", address.pack("192.0.2.1", port))
        ice.moved(another, 100, 0.06)
        ice.probe(another, 0.06)
    assert len(ice.probing) == MAX_PATHS - 1  # and the one where it is
    gone = ice.expire(5.1)
    assert len(gone) == MAX_PATHS - 1
    assert ice.probing == ()


def renamed(ice: IceLite, *, old: str = "") -> stun.Message:
    """A check with the present credentials, or with ``old`` as the password of the first."""
    name = b"u:c" if old else f"{ice.ufrag}:c".encode()
    message = stun.parse(stun.binding_request(name, (old or ice.password).encode(), tie_breaker=1))
    assert message is not None
    return message


def test_a_restart_holds_both_credentials_until_the_new_ones_come_and_then_those_alone() -> None:
    ice = IceLite("u", 0.0)
    old = ice.password
    assert ice.check(renamed(ice, old=old), HOME, 1.0)
    ice.restart("v", ("c2", "p2"))
    assert (ice.ufrags, ice.remote) == (("u", "v"), ("c2", "p2"))
    assert ice.password != old
    assert ice.check(renamed(ice, old=old), HOME, 2.0)
    assert ice.selected == HOME
    assert ice.check(renamed(ice), ELSEWHERE, 3.0)
    assert (ice.ufrags, ice.selected) == (("v",), HOME)
    assert prove(ice, ELSEWHERE, 3.0)
    assert ice.selected == ELSEWHERE
    assert ice.check(renamed(ice, old=old), HOME, 4.0) is None
    assert ice.check(renamed(ice), HOME, 5.0)
    assert ice.selected == ELSEWHERE  # only the first check of a generation selects by itself


def test_a_restart_that_nobody_follows_costs_nothing_and_the_next_takes_its_place() -> None:
    ice = IceLite("u", 0.0)
    old = ice.password
    ice.check(renamed(ice, old=old), HOME, 1.0)
    ice.restart("v", ("c2", "p2"))
    lost = renamed(ice)
    ice.restart("w", ("c3", "p3"))
    assert ice.ufrags == ("u", "w")
    assert ice.check(lost, ELSEWHERE, 2.0) is None
    assert ice.check(renamed(ice, old=old), HOME, 2.0)
    assert ice.check(renamed(ice), HOME, 3.0)
    assert ice.ufrags == ("w",)


def test_a_wrong_password_finishes_no_restart() -> None:
    ice = IceLite("u", 0.0)
    ice.restart("v", ("c2", "p2"))
    forged = stun.parse(stun.binding_request(b"v:c", b"guess", tie_breaker=1))
    assert forged is not None
    assert ice.check(forged, HOME, 1.0) is None
    assert ice.ufrags == ("u", "v")
