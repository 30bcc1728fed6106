"""RTCP of one session: sender and receiver reports once a second (RFC 3550 section 6.4), packets by aiortc."""

from __future__ import annotations

from aiortc.rtp import (
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from transceiver.reception import Reception
from transceiver.voice import Voice

__all__ = ["Reports"]

_NTP_EPOCH = 2208988800
_CNAME = 1  # SDES item, RFC 3550 section 6.5.1


class Reports:
    """Makes compounds, and reads those of the peer."""

    def __init__(self, ssrc: int, clock_hz: int) -> None:
        self._ssrc = ssrc
        self._clock_hz = clock_hz
        self._last_report = 0  # middle 32 bits of the peer's last NTP time, and when it came
        self._last_report_at = 0.0
        self.fraction_lost = 0.0
        self.malformed = 0

    def received(self, compound: bytes, now: float) -> None:
        """An RTCP compound that authenticated."""
        try:
            packets = RtcpPacket.parse(compound)
        except (ValueError, IndexError):
            self.malformed += 1
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                self._last_report = (packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
                self._last_report_at = now
            if isinstance(packet, RtcpSrPacket | RtcpRrPacket):
                for report in packet.reports:
                    if report.ssrc == self._ssrc:
                        self.fraction_lost = report.fraction_lost / 256

    def compound(self, voice: Voice, reception: Reception, now: float, wall: float) -> bytes:
        """SR or RR with what was received, and SDES. ``now`` monotonic and ``wall`` Unix time, in seconds."""
        reports = []
        if reception.ssrc is not None:
            since = int((now - self._last_report_at) * 65536) if self._last_report else 0
            reports.append(
                RtcpReceiverInfo(
                    ssrc=reception.ssrc,
                    fraction_lost=reception.fraction_lost(),
                    packets_lost=min(reception.lost, 0x7FFFFF),
                    highest_sequence=reception.highest,
                    jitter=reception.jitter,
                    lsr=self._last_report,
                    dlsr=min(since, 0xFFFFFFFF),
                )
            )
        head: RtcpSrPacket | RtcpRrPacket
        if voice.packets:
            ntp = int((wall + _NTP_EPOCH) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
            sender = RtcpSenderInfo(
                ntp_timestamp=ntp,
                rtp_timestamp=voice.timestamp,
                packet_count=voice.packets & 0xFFFFFFFF,
                octet_count=voice.octets & 0xFFFFFFFF,
            )
            head = RtcpSrPacket(ssrc=self._ssrc, sender_info=sender, reports=reports)
        else:
            head = RtcpRrPacket(ssrc=self._ssrc, reports=reports)
        source = RtcpSourceInfo(ssrc=self._ssrc, items=[(_CNAME, b"firsthop")])
        return bytes(head) + bytes(RtcpSdesPacket(chunks=[source]))
