"""The audio that the caller hears: one outgoing RTP stream (RFC 3550, RFC 7587).

Agents may hand over speech faster than real time: it waits here and leaves at 20 ms a frame. While there is none,
silence is sent, so that the stream's clock runs on and the caller's receiver stays warm. Where the caller takes no
media (RFC 3264 section 6.1), what is said takes its time all the same, and is not heard.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from rtc.codecs.codec import OPUS, Codec, Encoder
from rtc.codecs.encoder_policy import Settings
from rtc.frame import frame_bytes, frame_samples
from rtc.rtp import packet as rtp
from rtc.rtp.history import History
from rtc.rtp.state import HistoryState
from transceiver.counters import TX_FRAMES
from transceiver.media.state import VoiceState
from transceiver.parts import Parts, Sound

__all__ = ["RATE_HZ", "Voice"]

RATE_HZ = 24000
_LONGEST_S = 60
_MOMENT_FRAMES = 5
_NO_HISTORY = HistoryState(0, [])

Send = Callable[[bytes], bytes | None]


class Voice:
    """Makes packets and hands each to ``send``, or makes none where that is None; ``tick`` is called every 20 ms.
    ``send(packet)`` returns the datagram that it went in, which is kept in ``history``, if there is one. ``rate_hz`` is
    that of what is said."""

    def __init__(
        self, payload_type: int, send: Send | None = None, codec: Codec = OPUS, rate_hz: int = RATE_HZ
    ) -> None:
        self.send = send
        self.history = History()
        self.settings = Settings()
        self.ssrc = secrets.randbits(32)
        self.packets = 0
        self.octets = 0
        self.timestamp = secrets.randbits(32)
        self._payload_type = payload_type
        self._sequence = secrets.randbits(15)  # the lower half: RFC 3711 section 3.3.1
        self._codec = codec
        self._rate_hz = rate_hz
        self._frame_bytes = frame_bytes(rate_hz)
        self._frame_ticks = frame_samples(codec.clock_hz)
        self._encoder: Encoder | None = None
        self._waiting = Sound()
        self._spoke = False
        self.said = b""  # in the last tick; nothing where it was silence
        self._passed_offset: int | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._waiting

    @property
    def ahead(self) -> bool:
        """Whether speech waits that was made more than a moment before it is heard."""
        return len(self._waiting) > _MOMENT_FRAMES * self._frame_bytes

    def say(self, pcm: bytes) -> None:
        """Queues mono PCM16."""
        if len(self._waiting) + len(pcm) > _LONGEST_S * 2 * self._rate_hz:
            TX_FRAMES["overflow"] += len(pcm) // self._frame_bytes
            return
        self._waiting.put(pcm)

    def stop(self) -> None:
        """Forgets what has not been sent."""
        self._waiting.clear()

    def tick(self) -> None:
        """Sends the next 20 ms."""
        if self._waiting:
            size = self._frame_bytes
            pcm = self._waiting.take(size).ljust(size, b"\0")
            if self.send is not None:
                if self._encoder is None:
                    self._encoder = self._codec.encoder(self._rate_hz, self.settings)
                self._encoder = self._encoder.tuned(self.settings)
                self._packet(self._encoder.encode(pcm), "sent", marker=not self._spoke)
            self._spoke = True
            self.said = pcm
        else:
            self._packet(self._codec.silence, "silence", marker=False)
            self._spoke = False
            self.said = b""
        self.timestamp = (self.timestamp + self._frame_ticks) & 0xFFFFFFFF

    def pass_on(self, payload: bytes, timestamp: int, marker: bool) -> None:
        """Sends a payload now, its clock kept at a constant distance from the sender's."""
        if self._passed_offset is None:
            self._passed_offset = self.timestamp - timestamp
        self.timestamp = (timestamp + self._passed_offset) & 0xFFFFFFFF
        self._packet(payload, "sent", marker=marker)

    def join(self) -> None:
        """Ends the passing on of packets: what is said next goes on 20 ms after the last, whoever says it."""
        if self._passed_offset is not None:
            self.timestamp = (self.timestamp + self._frame_ticks) & 0xFFFFFFFF
            self._passed_offset = None

    def _packet(self, payload: bytes, counted: str, *, marker: bool) -> None:
        send, sequence = self.send, self._sequence
        if send is None:
            return
        TX_FRAMES[counted] += 1
        packet = rtp.build(self._payload_type, marker, sequence, self.timestamp, self.ssrc, payload)
        self._sequence = (sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        if datagram := send(packet):
            self.history.put(sequence, datagram)

    # --- as a value

    def export(self, parts: Parts, *, history: bool = True) -> VoiceState:
        """All of it except for the encoder, and for what was sent where no ``history`` is asked for. Whoever takes it
        up goes on sending, and this object must not."""
        return VoiceState(
            *(self.ssrc, self._sequence, self.timestamp, self.packets, self.octets),
            *(self._waiting.export(parts), self._spoke, self.said, self._passed_offset),
            self.history.export() if history else _NO_HISTORY,
        )

    def take_up(self, state: VoiceState, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off. A new encoder that is given what was said last goes on with hardly a
        crack."""
        self.ssrc, self._sequence, self.timestamp = state.ssrc, state.sequence, state.timestamp
        self.packets, self.octets = state.packets, state.octets
        self._waiting = Sound.taken_up(state.waiting, parts, _LONGEST_S * 2 * self._rate_hz)
        self._spoke, self._passed_offset = state.spoke, state.passed_offset
        self.history.take_up(state.history)
        if len(state.said) == self._frame_bytes:
            self._encoder = self._codec.encoder(self._rate_hz, self.settings)
            self._encoder.encode(state.said)

    def skip(self, frames: int) -> None:
        """Lets the clock of what is sent go on by 20 ms frames that were never made."""
        self.timestamp = (self.timestamp + frames * self._frame_ticks) & 0xFFFFFFFF
