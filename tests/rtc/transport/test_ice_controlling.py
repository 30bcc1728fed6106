"""ICE's controlling side: its checks, its nomination, and its consent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rtc.ice.controlling import CONSENT_EVERY_S, CONSENT_LOST_S, Controlling, Credentials
from wire import address as flow
from wire import stun

SERVER = flow.pack("203.0.113.10", 3478)
CALLER = flow.pack("198.51.100.7", 40000)


def _ice() -> Controlling:
    return Controlling(Credentials("mine", "my-password-of-24-chars!", "theirs", "their-password-24-chars!"))


def _sent(check: bytes | None) -> stun.Message:
    assert check is not None
    message = stun.parse(check)
    assert message is not None
    return message


def test_first_check_nominates_and_is_authentic() -> None:
    message = _sent(_ice().poll(10.0)[0])
    assert message.kind == stun.BINDING_REQUEST
    assert stun.server_ufrag(message) == b"theirs"
    assert message.attributes[stun.USERNAME] == b"theirs:mine"
    assert stun.USE_CANDIDATE in message.attributes
    assert stun.ICE_CONTROLLING in message.attributes
    assert stun.integrity_is_valid(message, b"their-password-24-chars!")


def test_checks_are_repeated_with_doubling_waits_until_one_is_answered() -> None:
    ice, now, at = _ice(), 10.0, []
    for _ in range(8):
        check, now_due = ice.poll(now)
        assert check is not None
        at.append(now - 10.0)
        assert ice.poll(now + 0.001)[0] is None
        now = now_due
    assert at == pytest.approx([0, 0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 4.75])
    assert ice.sent == 8


def test_only_the_right_transaction_with_the_right_key_connects() -> None:
    ice = _ice()
    first, _ = ice.poll(1.0)
    ice.poll(1.05)
    request = _sent(first)
    wrong_key = stun.binding_response(request, CALLER, b"another password")
    stranger = replace(request, transaction=bytes(12))
    other = stun.binding_response(stranger, CALLER, b"their-password-24-chars!")
    for datagram in (wrong_key, other, b"", b"\x01\x01garbage", first or b""):
        assert ice.receive(datagram, SERVER, 1.1) is None
        assert ice.connected_at is None
    assert ice.receive(stun.binding_response(request, CALLER, b"their-password-24-chars!"), SERVER, 1.12) is None
    assert ice.connected_at == 1.12
    assert ice.round_trip_ms == pytest.approx(120)


def test_consent_is_checked_every_two_and_a_half_seconds_and_lost_after_thirty() -> None:
    ice = _ice()
    request = _sent(ice.poll(0.0)[0])
    ice.receive(stun.binding_response(request, CALLER, b"their-password-24-chars!"), SERVER, 0.02)
    assert ice.poll(1.0) == (None, pytest.approx(0.02 + CONSENT_EVERY_S))
    check, due = ice.poll(2.6)
    assert due == pytest.approx(2.6 + CONSENT_EVERY_S)
    ice.receive(stun.binding_response(_sent(check), CALLER, b"their-password-24-chars!"), SERVER, 2.65)
    assert ice.round_trip_ms == pytest.approx(50)
    assert not ice.consent_lost(2.65 + CONSENT_LOST_S)
    assert ice.consent_lost(2.7 + CONSENT_LOST_S)


def test_checks_of_the_server_are_answered_only_if_authentic_and_for_us() -> None:
    ice = _ice()
    good = stun.binding_request(b"mine:theirs", b"my-password-of-24-chars!")
    reply = ice.receive(good, SERVER, 0.0)
    message = _sent(reply)
    assert message.kind == stun.BINDING_RESPONSE
    assert message.transaction == _sent(good).transaction
    assert stun.integrity_is_valid(message, b"my-password-of-24-chars!")
    assert ice.receive(stun.binding_request(b"mine:theirs", b"wrong"), SERVER, 0.0) is None
    assert ice.receive(stun.binding_request(b"other:theirs", b"my-password-of-24-chars!"), SERVER, 0.0) is None
