"""A receiver with an agent that writes down what it hears."""

from __future__ import annotations

from dataclasses import replace

from aiortc.rtp import RtcpPacket, RtcpRtpfbPacket

from caller.offer import Offer as CallersOffer
from rtc.codecs.codec import OPUS
from rtc.codecs.opus import SILENCE
from rtc.rtp import packet as rtp
from rtc.sdp import answer as sdp
from transceiver.media.playout import Playout
from transceiver.media.receiver import Receiver

OFFER = replace(sdp.parse(CallersOffer(":".join(["AB"] * 32)).sdp()), nack=True, red_payload_type=63, transport_cc_id=3)


class Ear:
    """A receiver, and what its agent hears."""

    def __init__(self, offer: sdp.Offer = OFFER) -> None:
        self.frames: list[bytes] = []
        self.playout = Playout(OPUS, 24000, lambda pcm: bool(self.frames.append(pcm)))
        self.stats = self.playout.stats
        self.receiver = Receiver(offer, self.playout)

    def take(self, sequence: int, now: float, payload: bytes = SILENCE, *, payload_type: int = 111) -> bool:
        plain = rtp.build(payload_type, False, sequence, 960 * sequence, 7, payload)
        return self.receiver.take(plain, now)

    def asks(self, now: float, round_trip_s: float | None) -> list[int]:
        return [
            sequence
            for packet in self.receiver.feedback(now, 1, round_trip_s)
            for part in RtcpPacket.parse(packet)
            if isinstance(part, RtcpRtpfbPacket) and part.fmt == 1
            for sequence in part.lost
        ]
