"""What a receiver reports about one RTP stream: RFC 3550 sections 6.4.1, A.1, A.3 and A.8."""

from __future__ import annotations

from transceiver.rtp import sequence_distance

__all__ = ["Reception"]


class Reception:
    """Counts one SSRC's packets; ``clock_hz`` is the RTP clock."""

    def __init__(self, ssrc: int, clock_hz: int = 48000) -> None:
        self.ssrc = ssrc
        self.received = 0
        self._clock_hz = clock_hz
        self._first: int | None = None
        self._highest = 0
        self._jitter = 0.0
        self._transit: int | None = None
        self._reported = (0, 0)

    def add(self, sequence: int, timestamp: int, now: float) -> None:
        """A packet that authenticated at ``now`` (seconds)."""
        self.received += 1
        if self._first is None:
            self._first = self._highest = sequence
        else:
            self._highest = max(self._highest, self._highest + sequence_distance(self._highest & 0xFFFF, sequence))
        transit = (int(now * self._clock_hz) - timestamp) & 0xFFFFFFFF
        if self._transit is not None:
            step = abs(((transit - self._transit + 0x80000000) & 0xFFFFFFFF) - 0x80000000)
            self._jitter += (step - self._jitter) / 16
        self._transit = transit

    @property
    def expected(self) -> int:
        """How many packets the sequence numbers speak of."""
        return 0 if self._first is None else self._highest - self._first + 1

    @property
    def lost(self) -> int:
        """Cumulative number lost, 24 bits signed on the wire: duplicates make it negative."""
        return max(-0x800000, min(0x7FFFFF, self.expected - self.received))

    @property
    def highest(self) -> int:
        """Extended highest sequence number received."""
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
        """Lost since the last call, in 1/256 of what was expected since."""
        expected, received = self.expected - self._reported[0], self.received - self._reported[1]
        self._reported = (self.expected, self.received)
        return max(0, min(255, (expected - received) * 256 // expected)) if expected > 0 else 0
