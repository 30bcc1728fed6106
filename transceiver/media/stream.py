"""The media of one call: RTP both ways for one source, with its RTCP, on a clock of 20 ms.

It knows neither how packets travel nor who hears them: packets come by ``rtp`` and ``rtcp`` and leave through a
``Sender``, and the sound is for a ``Listener``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from rtc.codecs.codec import CODECS
from rtc.codecs.encoder_policy import EncoderPolicy
from rtc.frame import FRAME_MS
from rtc.sdp.answer import Offer
from transceiver.counters import JITTER, LOSS, ROUND_TRIP, RX_DATAGRAMS, TX_FRAMES
from transceiver.media.playout import Playout
from transceiver.media.receiver import Receiver, TakePacket
from transceiver.media.reports import Reports
from transceiver.media.state import MediaState
from transceiver.media.voice import Voice
from transceiver.parts import Parts

__all__ = ["Listener", "MediaStream", "Sender", "Tape"]

_REPORT_EVERY_TICKS = 50
_SPARE_MS = 5.0
# Ticks that a listener is spared where packets are passed on: nothing that it does then is due to 20 ms.
_RESTS = 4
# Packets of audio for a caller that moved: a round trip of 40 ms, and the 20 ms in which it said nothing.
_SENT_AGAIN = 3


def _nobody_takes(payload: bytes, timestamp: int, marker: bool) -> None:
    pass


class Sender(Protocol):
    """The way of the stream's packets to the caller. ``spare_ms`` is how long the caller's may wait on theirs."""

    spare_ms: float

    def send_rtp(self, packet: bytes) -> bytes:
        """Sends an RTP packet. Returns the datagram that it went in, or nothing where it was not sent."""

    def send_rtcp(self, compound: bytes) -> None:
        """Sends an RTCP compound."""

    def send(self, datagram: bytes) -> None:
        """Sends a datagram of ``send_rtp``'s once more."""

    def speaks(self, ssrc: int) -> None:
        """Tells that the caller sends with another SSRC than was known."""


class Listener(Protocol):
    """The other side of the caller's conversation; ``now`` is in seconds, monotonic."""

    def hear(self, pcm: bytes, now: float) -> bool:
        """Takes 20 ms of the caller, mono PCM16. Returns whether they are voice."""

    def tick(self, now: float) -> bool:
        """Tells that the next 20 ms are due, after ``hear`` and before what is said is sent. Returns whether there is
        more to do at the next."""

    def pressed(self, digit: str, received_at: int) -> None:
        """Tells that the caller pressed a key, at ``received_at`` in Unix seconds."""


class Tape(Protocol):
    """A recorder of both sides of a call."""

    def frame(self, heard: bytes, said: bytes, now: float) -> None:
        """Takes 20 ms of each, as mono PCM16, or nothing where there was silence."""


class MediaStream:
    """The media of one call. Call ``tick`` every 20 ms, once ``start`` and ``deliver_to`` have been called. PCM has
    ``rate_hz``. With ``packets``, nothing is decoded or paced: payloads are taken and sent as they are."""

    _sender: Sender
    _listener: Listener

    def __init__(self, offer: Offer, *, rate_hz: int, packets: bool = False) -> None:
        codec = CODECS[offer.codec]
        self.voice = Voice(offer.payload_type, None, codec, rate_hz)
        self.playout = Playout(codec, rate_hz, self._heard)
        self.heard_ms = 0
        self._packets = packets
        self._sends, self._receives = offer.sends, offer.receives
        self._receiver = Receiver(offer, self.playout, _nobody_takes if packets else None, self._pressed)
        self._quality = EncoderPolicy(copies=offer.copies)
        self._reduced_size = offer.reduced_size
        self._reports = Reports(self.voice.ssrc, reduced_size=offer.reduced_size)
        self._tape: Tape | None = None
        self._heard_now = b""
        self._ticks = 0
        self._rests = 0
        self._closed = False

    def speak_as(self, ssrc: int) -> None:
        """Sends with that SSRC, before anything is sent: an answer has named it."""
        self.voice.ssrc = ssrc
        self._reports = Reports(ssrc, reduced_size=self._reduced_size)

    def start(self, sender: Sender) -> None:
        """Begins to send: ``sender`` may be used from now on."""
        self._sender = sender
        if self._sends:
            self.voice.send = sender.send_rtp

    def deliver_to(
        self,
        listener: Listener,
        *,
        take_packet: TakePacket = _nobody_takes,
        tape: Tape | None = None,
    ) -> None:
        """Gives ``listener`` what comes from now on; then ``tick`` may be called. ``take_packet(payload, timestamp,
        marker)`` is for a stream of packets, ``tape`` for one that is recorded."""
        self._listener, self._tape, self._rests = listener, tape, 0
        if self._packets:
            self._receiver.pass_to(take_packet)

    def pass_packets(self, packets: bool) -> None:
        """Takes and sends payloads as they are from now on, or PCM, as another agent wants it; ``deliver_to`` is to
        follow."""
        if packets != self._packets:
            self._packets, self._rests = packets, 0
            self._receiver.pass_to(_nobody_takes if packets else None)
            self._join()

    def _join(self) -> None:
        """Goes on where packets were passed on that are PCM now, or the other way."""
        self.playout.jitter.restart()  # what it held is of another time
        self.voice.join()

    @property
    def spare_ms(self) -> float:
        """The time for which the caller's packets may wait on their way: what is heard as PCM waits for the call's
        clock anyway. What is lost is not: the sooner it is missed, the sooner it is asked for."""
        return 0.0 if self._packets or self._receiver.asks else _SPARE_MS

    def record_on(self, tape: Tape | None) -> None:
        """Records by ``tape`` from now on."""
        self._tape = tape

    def close(self) -> None:
        """Ends it: nothing is sent or heard any more."""
        self._closed = True

    def so_far(self) -> dict[str, Any]:
        """The media's figures so far, as JSON: the caller's frames by how they came, as ``counters.RX_FRAMES`` has
        them, and packets lost on the way up; our frames by whether they were made in time, and the share that the
        caller last said was lost. ``wait_ms`` is how long the jitter buffer waits, ``round_trip_ms`` is by RTCP, or
        None."""
        reception, round_trip_s = self._receiver.reception, self._reports.round_trip_s
        return {
            "heard": dict(self.playout.stats),
            "lost": reception.lost,
            "jitter_ms": round(reception.jitter_ms, 2),
            "wait_ms": round(self.playout.jitter.wait_ms, 1),
            "made": {"on_time": self._quality.on_time, "late": self._quality.late},
            "lost_share": self._reports.fraction_lost,
            "round_trip_ms": None if round_trip_s is None else round(1000 * round_trip_s, 1),
        }

    # --- what comes

    def rtp(self, packet: bytes, now: float) -> None:
        """Takes an RTP packet of the caller's, at ``now`` in seconds, monotonic. A bad packet is dropped and
        counted."""
        if not self._receives:
            RX_DATAGRAMS["not_received"] += 1
            return
        receiver = self._receiver
        known = receiver.reception.ssrc
        if receiver.take(packet, now):
            self._give_feedback(now)
        ssrc = receiver.reception.ssrc
        if ssrc != known and ssrc is not None:
            self._sender.speaks(ssrc)

    def rtcp(self, compound: bytes, now: float) -> None:
        """Takes RTCP of the caller's, and sends again what it asks for."""
        for datagram in self.voice.history.again(self._reports.received(compound, now)):
            TX_FRAMES["again"] += 1
            self._sender.send(datagram)

    def moved(self) -> None:
        """Sends once more what went to the caller's old address lately and is lost. A receiver that has it already
        drops it (RFC 3711 section 3.3.2)."""
        for datagram in self.voice.history.last(_SENT_AGAIN):
            self._sender.send(datagram)

    def _heard(self, pcm: bytes) -> bool:
        self.heard_ms += FRAME_MS
        self._heard_now = pcm
        return self._listener.hear(pcm, time.monotonic())

    def _pressed(self, digit: str) -> None:
        if not self._closed:
            self._listener.pressed(digit, int(time.time()))

    # --- what goes

    def tick(self, now: float) -> None:
        """Does what the next 20 ms need, both ways."""
        # First what is heard: an agent that answers at once is heard in the same tick.
        packets = self._packets
        if not packets:
            self._receiver.tick(now)
            if self._closed:
                return
        if self._rests:
            self._rests -= 1
        else:
            busy = self._listener.tick(now)
            if self._closed:
                return
            self._rests = _RESTS if packets and not busy else 0
        if not packets:
            self._quality.tick(now)
            self.voice.settings = self._quality.settings
            self.voice.tick()
            if self._tape is not None:
                self._tape.frame(self._heard_now, self.voice.said, now)
                self._heard_now = b""
        if self._receiver.owes:
            self._give_feedback(now)
        self._ticks += 1
        # One that passes packets on sends when it is sent to; reports are due all the same.
        if self._ticks % _REPORT_EVERY_TICKS == 0:
            self._receiver.observe()
            self._quality.reported(self._reports.fraction_lost)
            reports = self._reports.compound(self.voice, self._receiver.reception, now, time.time())
            self._sender.send_rtcp(reports)
            self._observe()
            self._sender.spare_ms = self.spare_ms

    def _observe(self) -> None:
        """Enters how the network is in the process's histograms; called about once a second."""
        reception, reports = self._receiver.reception, self._reports
        if reception.ssrc is not None:
            JITTER.add(reception.jitter_ms / 1000)
            LOSS.add(reports.lost_share, "up")
        if reports.reports:
            LOSS.add(reports.fraction_lost, "down")
        if reports.round_trip_s is not None:
            ROUND_TRIP.add(reports.round_trip_s)

    def _give_feedback(self, now: float) -> None:
        for packet in self._receiver.feedback(now, self.voice.ssrc, self._reports.round_trip_s):
            self._sender.send_rtcp(self._reports.feedback(packet))

    # --- as a value

    def export(self, now: float, parts: Parts, *, history: bool = True) -> MediaState:
        """All of it, between two ticks; the packets that could be sent again only with their ``history``. Whoever takes
        it up goes on, and this object must not: it would use sequence numbers twice."""
        return MediaState(
            self.voice.export(parts, history=history),
            self.playout.export(now),
            self._receiver.export(now),
            self._quality.export(),
            self._reports.export(now),
            self.heard_ms,
            self._ticks,
        )

    def take_up(self, state: MediaState, now: float, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off, in place of what the stream was made with."""
        self.voice.take_up(state.voice, parts)
        self._reports = Reports(self.voice.ssrc, reduced_size=self._reduced_size)
        self._reports.take_up(state.reports, now)
        self.playout.take_up(state.playout, now)
        self._receiver.take_up(state.receiver, now)
        self._quality.take_up(state.quality)
        self.heard_ms, self._ticks = state.heard_ms, state.ticks
        if (state.voice.passed_offset is not None) != self._packets:
            self._join()

    def skip(self, frames: int) -> None:
        """Passes over 20 ms frames for which it is too late."""
        if not self._packets:
            self.voice.skip(frames)
