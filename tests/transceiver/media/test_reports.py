"""RTCP compounds, read by aiortc; and what the peer's say."""

from __future__ import annotations

import random

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
)

from rtc.rtp import nack
from rtc.rtp.packet import Packet
from rtc.rtp.reception import Reception
from transceiver.media.reports import Reports
from transceiver.media.voice import Voice

WALL = 1_700_000_000.5


def silent() -> Voice:
    return Voice(111, lambda packet: None)


def receiving(*sequences: int, ssrc: int = 0xCAFE) -> Reception:
    reception = Reception()
    for sequence in sequences:
        reception.add(Packet(111, False, sequence, 960 * sequence, ssrc, b""), sequence * 0.02)
    return reception


def test_before_any_media_it_is_an_empty_receiver_report() -> None:
    voice = silent()
    head, sdes = RtcpPacket.parse(Reports(voice.ssrc).compound(voice, Reception(), 1.0, WALL))
    assert isinstance(head, RtcpRrPacket)
    assert (head.ssrc, head.reports) == (voice.ssrc, [])
    assert isinstance(sdes, RtcpSdesPacket)
    assert [(chunk.ssrc, chunk.items) for chunk in sdes.chunks] == [(voice.ssrc, [(1, b"firsthop")])]


def test_a_sender_says_how_much_it_has_sent_and_when() -> None:
    voice = silent()
    for _ in range(7):
        voice.tick()
    head, _ = RtcpPacket.parse(Reports(voice.ssrc).compound(voice, Reception(), 1.0, WALL))
    assert isinstance(head, RtcpSrPacket)
    sender = head.sender_info
    assert (head.ssrc, sender.packet_count, sender.octet_count) == (voice.ssrc, 7, 7 * 3)
    assert sender.rtp_timestamp == voice.timestamp
    # NTP counts from 1900 (RFC 3550 section 4); half a second is the upper bit of the fraction.
    assert sender.ntp_timestamp == ((1_700_000_000 + 2_208_988_800) << 32) + (1 << 31)


def test_what_was_received_is_reported() -> None:
    voice, reception = silent(), receiving(1, 2, 3, 5, 6, 8)
    head, _ = RtcpPacket.parse(Reports(voice.ssrc).compound(voice, reception, 1.0, WALL))
    (report,) = head.reports
    assert (report.ssrc, report.packets_lost, report.highest_sequence) == (0xCAFE, 2, 8)
    assert report.fraction_lost == 2 * 256 // 8
    assert (report.lsr, report.dlsr) == (0, 0)


def test_the_peers_last_report_is_named_with_its_age() -> None:
    voice = silent()
    reports = Reports(voice.ssrc)
    theirs = RtcpSrPacket(ssrc=0xCAFE, sender_info=RtcpSenderInfo(0x1122334455667788, 1, 2, 3))
    reports.received(bytes(theirs), 10.0)
    head, _ = RtcpPacket.parse(reports.compound(voice, receiving(1), 10.5, WALL))
    (report,) = head.reports
    assert (report.lsr, report.dlsr) == (0x33445566, 32768)


def test_a_report_that_is_hours_old_still_fits() -> None:
    voice = silent()
    reports = Reports(voice.ssrc)
    reports.received(bytes(RtcpSrPacket(ssrc=1, sender_info=RtcpSenderInfo(1 << 40, 1, 2, 3))), 0.0)
    head, _ = RtcpPacket.parse(reports.compound(voice, receiving(1), 200_000.0, WALL))
    assert head.reports[0].dlsr == 0xFFFFFFFF


def info(ssrc: int, fraction: int) -> RtcpReceiverInfo:
    return RtcpReceiverInfo(ssrc, fraction, packets_lost=0, highest_sequence=0, jitter=0, lsr=0, dlsr=0)


@pytest.mark.parametrize("kind", ["receiver", "sender"])
def test_what_the_peer_says_of_us_is_kept_and_what_it_says_of_others_is_not(kind: str) -> None:
    reports = Reports(0xBEEF)
    said = [info(1, 255), info(0xBEEF, 64), info(2, 255)]
    theirs = (
        RtcpRrPacket(ssrc=9, reports=said)
        if kind == "receiver"
        else RtcpSrPacket(ssrc=9, sender_info=RtcpSenderInfo(1, 1, 1, 1), reports=said)
    )
    reports.received(bytes(theirs), 1.0)
    assert reports.fraction_lost == 0.25


def test_other_packets_of_a_compound_are_passed_over() -> None:
    reports = Reports(1)
    reports.received(bytes(RtcpByePacket(sources=[5])) + bytes(RtcpRrPacket(ssrc=9, reports=[info(1, 128)])), 1.0)
    assert (reports.fraction_lost, reports.malformed) == (0.5, 0)


def test_the_round_trip_is_known_from_what_the_peer_says_of_our_report() -> None:
    voice = silent()
    voice.tick()
    reports = Reports(voice.ssrc)
    head, _ = RtcpPacket.parse(reports.compound(voice, Reception(), 100.0, WALL))
    lsr = head.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF
    answer = RtcpReceiverInfo(voice.ssrc, 0, 0, 0, 0, lsr=lsr, dlsr=32768)
    reports.received(bytes(RtcpRrPacket(ssrc=9, reports=[answer])), 100.58)
    assert reports.round_trip_s == pytest.approx(0.08)
    # What names no report of ours, or a time before it, is no measurement.
    for spoiled in (RtcpReceiverInfo(voice.ssrc, 0, 0, 0, 0, lsr=lsr + 1, dlsr=0), answer):
        reports.received(bytes(RtcpRrPacket(ssrc=9, reports=[spoiled])), 100.2)
    assert reports.round_trip_s == pytest.approx(0.08)


def test_reports_that_nobody_answers_are_forgotten() -> None:
    voice = silent()
    voice.tick()
    reports = Reports(voice.ssrc)
    for i in range(1000):
        reports.compound(voice, Reception(), i, WALL + i)
    assert len(reports._sent) <= 16


@pytest.mark.parametrize("reduced", [True, False])
def test_feedback_goes_alone_where_that_is_agreed_and_in_a_compound_elsewhere(reduced: bool) -> None:
    packet = nack.pack(1, 2, [5])
    parsed = RtcpPacket.parse(Reports(1, reduced_size=reduced).feedback(packet))
    kinds = [type(part) for part in parsed]
    assert kinds == ([RtcpRtpfbPacket] if reduced else [RtcpRrPacket, RtcpSdesPacket, RtcpRtpfbPacket])


def test_what_is_asked_of_us_is_told_and_what_is_asked_of_others_is_not() -> None:
    reports = Reports(7)
    assert reports.received(nack.pack(9, 7, [5, 6, 40]), 1.0) == [5, 6, 40]
    assert reports.received(nack.pack(9, 8, [5]), 1.0) == []
    assert reports.received(bytes(RtcpRtpfbPacket(fmt=15, ssrc=9, media_ssrc=7, lost=[5])), 1.0) == []
    assert len(reports.received(nack.pack(9, 7, range(0, 4000, 2)), 1.0)) <= 64


@pytest.mark.parametrize(
    "compound", [b"\x80", b"\x81\xc9\x00\x01" + bytes(4), b"\x00" * 8, b"\x80\xc8\x00\x00", b"\x80\xc9\xff\xff"]
)
def test_what_is_malformed_is_counted(compound: bytes) -> None:
    reports = Reports(1)
    reports.received(compound, 1.0)
    assert reports.malformed == 1


def test_random_compounds_never_raise() -> None:
    reports, rng = Reports(1), random.Random(3550)
    for _ in range(20000):
        body = rng.randbytes(4 * rng.randrange(12))
        head = bytes([0x80 | rng.randrange(64), rng.choice((192, 200, 201, 202, 203, 204, 205, 206, 207, 223))])
        reports.received(head + (len(body) // 4).to_bytes(2, "big") + body, 1.0)
        reports.received(rng.randbytes(rng.randrange(60)), 1.0)
    voice = silent()
    RtcpPacket.parse(reports.compound(voice, receiving(1), 5.0, WALL))
