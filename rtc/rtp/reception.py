"""The statistics of one received RTP stream: RFC 3550 sections 6.4.1, A.1, A.3 and A.8.

Pure: the time of every packet is an argument, in seconds of one monotonic clock.
"""

from __future__ import annotations

from rtc.rtp.packet import Packet
from rtc.rtp.state import ReceptionState

__all__ = ["Reception"]

# A sequence number this far off is another stream, not a loss (MAX_DROPOUT, RFC 3550 appendix A.1).
_MAX_DROPOUT = 3000
_WINDOW = 256
_WINDOW_MASK = (1 << _WINDOW) - 1


class Reception:
    """Loss over extended sequence numbers, jitter, duplicates, order and gaps of a stream; ``clock_hz`` is the RTP
    clock.

    A stream that starts anew (another SSRC, a jump in sequence numbers) keeps what was counted before.
    """

    def __init__(self, clock_hz: int = 48000) -> None:
        self.ssrc: int | None = None
        self.received = 0
        self.duplicates = 0
        self.reordered = 0
        self.first_at: float | None = None
        self.longest_gap_ms = 0.0
        self._clock_hz = clock_hz
        self._base = 0
        self._highest = 0
        self._seen = 0  # bit i: the packet i before the highest has come
        self._unique = 0  # of the current stream
        self._lost_before = 0
        self._transit: int | None = None
        self._jitter = 0.0
        self._last_at: float | None = None
        self._reported = (0, 0)  # received and lost, at the last report

    @property
    def lost(self) -> int:
        """The packets that the sequence numbers imply and that never came; duplicates do not make up for them."""
        current = self._highest - self._base + 1 - self._unique if self.ssrc is not None else 0
        return self._lost_before + current

    @property
    def highest(self) -> int:
        """Extended highest sequence number received, 32 bits."""
        return self._highest & 0xFFFFFFFF

    @property
    def jitter(self) -> int:
        """Interarrival jitter in clock units."""
        return int(self._jitter)

    @property
    def jitter_ms(self) -> float:
        """Interarrival jitter in milliseconds."""
        return self._jitter * 1000 / self._clock_hz

    def fraction_lost(self) -> int:
        """The loss since the last call, in 1/256 of what was expected since."""
        received, lost = self.received - self._reported[0], self.lost - self._reported[1]
        self._reported = (self.received, self.lost)
        expected = received + lost
        return max(0, min(255, lost * 256 // expected)) if expected > 0 else 0

    def add(self, packet: Packet, now: float, *, anew: bool = False, timed: bool = True) -> bool:
        """Counts a packet that authenticated. Returns False where it was a duplicate, or too late to tell. ``anew``
        says that it begins another stream; ``timed`` is False where its timestamp does not say when it was sent."""
        if self._last_at is None:
            self.first_at = now
        elif (gap_ms := (now - self._last_at) * 1000) > self.longest_gap_ms:
            self.longest_gap_ms = gap_ms
        self._last_at = now

        ahead = (packet.sequence - self._highest + 0x8000 & 0xFFFF) - 0x8000  # RFC 1982
        if anew or packet.ssrc != self.ssrc or not -_MAX_DROPOUT <= ahead <= _MAX_DROPOUT:
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

        if not timed:
            return True
        before, transit = self._transit, int(now * self._clock_hz) - packet.timestamp
        if before is not None:
            step = (transit - before + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            self._jitter += ((step if step > 0 else -step) - self._jitter) / 16
        self._transit = transit
        return True

    def finish(self, now: float) -> None:
        """Ends the count: nothing more is waited for, so silence at the end is a gap like any other."""
        if self._last_at is not None:
            self.longest_gap_ms = max(self.longest_gap_ms, (now - self._last_at) * 1000)

    def _restart(self, packet: Packet) -> None:
        self._lost_before = self.lost
        self.ssrc = packet.ssrc
        self._base = self._highest = packet.sequence
        self._seen = 1
        self._unique = 0
        self._transit = None

    # --- as a value

    def export(self, now: float) -> ReceptionState:
        """All of it. The next packet alone tells nothing about jitter: its clock may be another."""
        return ReceptionState(
            *(self.ssrc, self.received, self.duplicates, self.reordered),
            None if self.first_at is None else now - self.first_at,
            None if self._last_at is None else now - self._last_at,
            *(self.longest_gap_ms, self._base, self._highest, self._seen.to_bytes(_WINDOW // 8, "big")),
            *(self._unique, self._lost_before, self._jitter, self._reported),
        )

    def take_up(self, state: ReceptionState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self.ssrc, self.received, self.duplicates = state.ssrc, state.received, state.duplicates
        self.reordered, self.longest_gap_ms = state.reordered, state.longest_gap_ms
        self.first_at = None if state.first_s is None else now - state.first_s
        self._last_at = None if state.last_s is None else now - state.last_s
        self._base, self._highest = state.base, state.highest
        self._seen = int.from_bytes(state.seen, "big") & _WINDOW_MASK
        self._unique, self._lost_before, self._jitter = state.unique, state.lost_before, state.jitter
        self._reported = state.reported
