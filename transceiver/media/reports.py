"""RTCP of one session, with aiortc's packets: sender and receiver reports once a second (RFC 3550 section 6.4), the
round trip that they tell, and feedback in between, which goes without reports where the peer allows it (RFC 5506).
"""

from __future__ import annotations

from aiortc.rtp import (
    RtcpPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from rtc.rtp.reception import Reception
from transceiver.media.state import ReportsState
from transceiver.media.voice import Voice

__all__ = ["Reports"]

_NTP_EPOCH = 2208988800
_CNAME = 1  # SDES item, RFC 3550 section 6.5.1
_NACK = 1  # RFC 4585 section 6.2.1
_MOST_ASKED = 64  # packets that one NACK may name: no more are kept
_KEPT_REPORTS = 16
_LONGEST_ROUND_TRIP_S = 10.0


class Reports:
    """The reports of one session: it makes compounds, and reads those of the peer."""

    def __init__(self, ssrc: int, *, reduced_size: bool = False) -> None:
        self.fraction_lost = 0.0  # of what we sent, as the peer says
        self.lost_share = 0.0  # of what the peer sent, as our last report says
        self.round_trip_s: float | None = None
        self.reports = 0  # that the peer has sent about us
        self.malformed = 0
        self._ssrc = ssrc
        self._reduced_size = reduced_size
        self._sent: dict[int, float] = {}  # middle 32 bits of the NTP time of our reports, and when they left
        self._last_report = 0  # middle 32 bits of the peer's last NTP time, and when it came
        self._last_report_at = 0.0

    def received(self, compound: bytes, now: float) -> list[int]:
        """Takes an RTCP compound, or one reduced in size, that authenticated. Returns the sequence numbers that it asks
        for again."""
        asked: list[int] = []
        try:
            packets = RtcpPacket.parse(compound)
        except (ValueError, IndexError):
            self.malformed += 1
            return asked
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                self._last_report = (packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
                self._last_report_at = now
            if isinstance(packet, RtcpSrPacket | RtcpRrPacket):
                for report in packet.reports:
                    if report.ssrc == self._ssrc:
                        self._reported(report, now)
            if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == _NACK and packet.media_ssrc == self._ssrc:
                asked += packet.lost
        return asked[:_MOST_ASKED]

    def _reported(self, report: RtcpReceiverInfo, now: float) -> None:
        self.reports += 1
        self.fraction_lost = report.fraction_lost / 256
        sent = self._sent.get(report.lsr)
        if sent is None:
            return
        took = now - sent - report.dlsr / 65536
        if 0 <= took <= _LONGEST_ROUND_TRIP_S:
            known = self.round_trip_s
            self.round_trip_s = took if known is None else known + (took - known) / 4

    def feedback(self, packet: bytes) -> bytes:
        """The RTCP in which a feedback ``packet`` is sent: alone, or in a compound."""
        if self._reduced_size:
            return packet
        return bytes(RtcpRrPacket(ssrc=self._ssrc)) + self._description() + packet

    def compound(self, voice: Voice, reception: Reception, now: float, wall: float) -> bytes:
        """SR or RR with what was received, and SDES. ``now`` monotonic and ``wall`` Unix time, in seconds."""
        reports = []
        if reception.ssrc is not None:
            since = int((now - self._last_report_at) * 65536) if self._last_report else 0
            lost = reception.fraction_lost()
            self.lost_share = lost / 256
            reports.append(
                RtcpReceiverInfo(
                    ssrc=reception.ssrc,
                    fraction_lost=lost,
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
            self._sent[(ntp >> 16) & 0xFFFFFFFF] = now
            if len(self._sent) > _KEPT_REPORTS:
                del self._sent[next(iter(self._sent))]
            head = RtcpSrPacket(ssrc=self._ssrc, sender_info=sender, reports=reports)
        else:
            head = RtcpRrPacket(ssrc=self._ssrc, reports=reports)
        return bytes(head) + self._description()

    def _description(self) -> bytes:
        source = RtcpSourceInfo(ssrc=self._ssrc, items=[(_CNAME, b"firsthop")])
        return bytes(RtcpSdesPacket(chunks=[source]))

    # --- as a value

    def export(self, now: float) -> ReportsState:
        """All of it."""
        return ReportsState(
            *(self.fraction_lost, self.round_trip_s),
            *(self.reports, self.malformed),
            [(ntp, now - at) for ntp, at in self._sent.items()],
            self._last_report,
            now - self._last_report_at,
        )

    def take_up(self, state: ReportsState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self.fraction_lost, self.round_trip_s = state.fraction_lost, state.round_trip_s
        self.reports, self.malformed = state.reports, state.malformed
        self._sent = {ntp: now - age_s for ntp, age_s in state.sent[-_KEPT_REPORTS:]}
        self._last_report, self._last_report_at = state.last, now - state.last_s
