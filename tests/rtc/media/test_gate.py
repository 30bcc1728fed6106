"""The gate: it bounds how much of one caller's media is looked at, and forged media takes nothing from the caller's
own.
"""

from __future__ import annotations

from rtc.bucket import Bucket
from rtc.ice.allowance import Allowance
from rtc.rtp import packet as rtp
from rtc.rtp.gate import Gate

REPORT = b"\x80\xc9\x00\x01\x00\x00\x00\x07" + bytes(14)


def packet(sequence: int, ssrc: int = 7) -> bytes:
    return rtp.build(111, False, sequence, 960 * sequence, ssrc, bytes(60))


class Sealed:
    """A cipher that is asked about datagrams that are ``authentic``, or are not; it counts them."""

    def __init__(self, authentic: bool) -> None:
        self.authentic, self.tried = authentic, 0

    def unprotect(self, srtp: bytes) -> bytes | None:
        self.tried += 1
        return srtp if self.authentic else None

    unprotect_rtcp = unprotect


OURS = Sealed(authentic=True)


def sends(gate: Gate, datagram: bytes, now: float) -> bool:
    """Sends an authentic packet."""
    return gate.opened(datagram, OURS, now) == datagram


def is_tried(gate: Gate, datagram: bytes, now: float) -> bool:
    """Sends one that is not, and says whether the cipher saw it."""
    forged = Sealed(authentic=False)
    assert gate.opened(datagram, forged, now) == ("srtp_not_authentic" if forged.tried else "overflow")
    return forged.tried > 0


def test_a_bucket_fills_up_to_its_burst_and_no_further() -> None:
    bucket = Bucket(10, 5)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(100.09)
    assert bucket.take(100.2)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(999.0)


def test_an_allowance_is_less_than_three_times() -> None:
    allowance = Allowance()
    assert not allowance.take(1)
    allowance.came(100)
    assert not allowance.take(300)
    assert allowance.take(299)
    assert not allowance.take(1)


def test_all_that_an_honest_caller_sends_passes() -> None:
    gate = Gate()
    for i in range(1, 5000):  # 10 ms packets, and what came at once after two seconds of nothing
        now = 0.01 * i if i % 400 > 100 else 0.01 * (i - i % 400 + 100)
        assert sends(gate, packet(i), now)
        if i % 100 == 0:
            assert sends(gate, REPORT + bytes(60), now)


def test_a_callers_own_flood_is_cut_to_what_callers_send() -> None:
    gate = Gate()
    passed = sum(sends(gate, packet(i), 10 + i / 20_000) for i in range(20_000))
    assert passed <= 128 + 400 + 1


def test_rtcp_is_bounded_by_its_bytes() -> None:
    gate = Gate()
    passed = sum(sends(gate, REPORT + bytes(1200), 10 + i / 1000) for i in range(1000))
    assert passed <= 7


def test_a_forged_flood_on_the_callers_path_takes_nothing_from_the_caller() -> None:
    gate = Gate()
    tried = 0
    for i in range(100_000):
        now = 10 + i / 50_000
        if i % 1000 == 0:
            assert sends(gate, packet(i // 1000), now)
        stranger = packet(i * 7919, ssrc=i * 40_009)
        overheard = packet(i * 7919)
        for forged in (stranger, overheard):
            tried += is_tried(gate, forged, now)
    assert tried <= 500 + 2 * 500 + 100_000 * 600 / 65_536  # and those whose number happens to be near


def test_streams_of_one_caller_are_bounded() -> None:
    gate = Gate()
    known = [ssrc for ssrc in range(10_000) if sends(gate, packet(1, ssrc), 10.0 + ssrc / 1000)]
    assert 32 <= len(known) <= 34
    assert sum(sends(gate, packet(1, ssrc), 10.0 * ssrc) for ssrc in range(20_000, 40_000)) <= 256
    assert sends(gate, packet(2, known[0]), 1e6)  # those that are known go on
