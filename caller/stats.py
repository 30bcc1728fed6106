"""What a call measures of the audio it gets: RTP reception (RFC 3550) and the way its own frames come home.

Pure: the time of every packet is an argument, in seconds of one monotonic clock.
"""

from __future__ import annotations

from array import array

from caller.voice import Voice
from transceiver.rtp import Packet, sequence_distance

__all__ = ["Conversation", "Reception"]

# A sequence number this far off is another stream, not a loss (MAX_DROPOUT, RFC 3550 appendix A.1).
_MAX_DROPOUT = 3000
_WINDOW = 256
_WINDOW_MASK = (1 << _WINDOW) - 1


class Reception:
    """Loss (RFC 3550 A.3) over extended sequence numbers, jitter (A.8), duplicates, order and gaps.

    A stream that starts anew (another SSRC, a jump in sequence numbers) keeps what was counted before.
    """

    def __init__(self, clock_hz: int = 48000) -> None:
        self._clock_hz = clock_hz
        self._ssrc: int | None = None
        self._base = 0
        self._highest = 0
        self._seen = 0  # bit i: the packet i before the highest has come
        self._unique = 0  # of the current stream
        self._lost_before = 0
        self._transit: int | None = None
        self._jitter = 0.0
        self._last_at: float | None = None
        self.received = 0
        self.duplicates = 0
        self.reordered = 0
        self.first_at: float | None = None
        self.longest_gap_ms = 0.0

    @property
    def lost(self) -> int:
        """Packets that the sequence numbers speak of and that never came."""
        current = self._highest - self._base + 1 - self._unique if self._ssrc is not None else 0
        return self._lost_before + current

    @property
    def jitter_ms(self) -> float:
        """Interarrival jitter, in milliseconds."""
        return self._jitter * 1000 / self._clock_hz

    def add(self, packet: Packet, now: float) -> bool:
        """A packet that authenticated; False where it was a duplicate, or too late to tell."""
        if self._last_at is None:
            self.first_at = now
        else:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self._last_at) * 1000)
        self._last_at = now

        ahead = sequence_distance(self._highest & 0xFFFF, packet.sequence)
        if packet.ssrc != self._ssrc or abs(ahead) > _MAX_DROPOUT:
            self._restart(packet)
        elif ahead > 0:
            self._highest += ahead
            self._seen = (self._seen << ahead | 1) & _WINDOW_MASK
        elif ahead <= -_WINDOW or self._seen >> -ahead & 1:
            self.duplicates += 1
            return False
        else:
            self._seen |= 1 << -ahead
            # Older than the first one: the stream began earlier than we knew.
            self._base = min(self._base, self._highest + ahead)
            self.reordered += 1
        self._unique += 1
        self.received += 1

        transit = round(now * self._clock_hz) - packet.timestamp
        if self._transit is not None:
            step = abs((transit - self._transit + 0x80000000 & 0xFFFFFFFF) - 0x80000000)
            self._jitter += (step - self._jitter) / 16
        self._transit = transit
        return True

    def finish(self, now: float) -> None:
        """Nothing more is waited for: silence at the end is a gap like any other."""
        if self._last_at is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self._last_at) * 1000)

    def _restart(self, packet: Packet) -> None:
        self._lost_before = self.lost
        self._ssrc = packet.ssrc
        self._base = self._highest = packet.sequence
        self._seen = 1
        self._unique = 0
        self._transit = None


class Conversation:
    """Which sent frames came home, and how soon somebody answers.

    A received payload that is one of ours, sent less than ``RECENT_S`` ago, is an echo: a round-trip sample. An
    agent that speaks for itself is measured by its response time: from the end of our speech to its first sound
    after silence.
    """

    RECENT_S = 2.0
    # Opus codes digital silence in 3 bytes; comfort noise takes a little more.
    _SILENT_BYTES = 10
    _SILENT_AFTER_S = 0.1

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._sent_at = [-1.0] * len(voice.frames)
        self._ordinal = [0] * len(voice.frames)
        self._first_echoed: int | None = None
        self._turn_ended_at: float | None = None
        self._sound_at = float("-inf")
        self.sent = 0
        self.returned = 0
        self.round_trip_ms = array("d")
        self.response_ms = array("d")

    @property
    def expected(self) -> int:
        """Frames sent since the first that came home: what a perfect echo would have returned by now."""
        return 0 if self._first_echoed is None else self.sent - self._first_echoed

    def sent_frame(self, index: int, now: float) -> None:
        """Frame ``index`` of the voice leaves."""
        self._sent_at[index] = now
        self._ordinal[index] = self.sent
        self.sent += 1
        if index in self._voice.turn_ends:
            # Whoever is still speaking now does not answer this turn.
            speaking = now - self._sound_at < self._SILENT_AFTER_S
            self._turn_ended_at = None if speaking else now

    def received_payload(self, payload: bytes, now: float) -> None:
        """A payload that came for the first time."""
        index = self._voice.frame_of.get(payload)
        if index is not None and self._sent_at[index] >= 0 and now - self._sent_at[index] < self.RECENT_S:
            self.round_trip_ms.append((now - self._sent_at[index]) * 1000)
            self._sent_at[index] = -1.0
            self.returned += 1
            if self._first_echoed is None:
                self._first_echoed = self._ordinal[index]
        elif len(payload) > self._SILENT_BYTES:
            # Who has echoed is an echo: a frame of ours that comes later than RECENT_S is just very late.
            if self._turn_ended_at is not None and not self.returned:
                self.response_ms.append((now - self._turn_ended_at) * 1000)
                self._turn_ended_at = None
            self._sound_at = now
