"""The choice of the one stream that a caller sends (RFC 3550 appendix A.1). Pure.

A sender that uses two SSRCs at once, or whose numbers jump about, must not make everything begin anew with each packet.
Another stream is believed at its second packet in a row, or at once where the known one has fallen silent.
"""

from __future__ import annotations

from rtc.rtp.packet import Packet
from rtc.rtp.state import SsrcState

__all__ = ["BEGINS", "CONTINUES", "STRANGER", "SsrcSelector"]

STRANGER, CONTINUES, BEGINS = 0, 1, 2

_MAX_DROPOUT = 3000
_MAX_MISORDER = 100
_SILENT_S = 0.1


class SsrcSelector:
    """The one stream of a caller. ``admit`` looks at every packet; ``ssrc`` is the stream's, None before there
    is one."""

    def __init__(self) -> None:
        self.ssrc: int | None = None
        self._highest = 0
        self._at = 0.0
        self._expected: tuple[int, int] | None = None  # the packet that would make a stranger a stream

    def admit(self, packet: Packet, now: float) -> int:
        """STRANGER, CONTINUES, or BEGINS where another stream takes over with this packet."""
        sequence, ssrc = packet.sequence, packet.ssrc
        if ssrc == self.ssrc:
            ahead = (sequence - self._highest + 0x8000 & 0xFFFF) - 0x8000  # RFC 1982
            if -_MAX_MISORDER < ahead < _MAX_DROPOUT:
                if ahead > 0:
                    self._highest = sequence
                self._at = now
                self._expected = None
                return CONTINUES
        if self.ssrc is not None and self._expected != (ssrc, sequence) and now - self._at < _SILENT_S:
            self._expected = ssrc, (sequence + 1) & 0xFFFF
            return STRANGER
        self.ssrc, self._highest, self._at, self._expected = ssrc, sequence, now, None
        return BEGINS

    # --- as a value

    def export(self, now: float) -> SsrcState:
        """All of it."""
        return SsrcState(self.ssrc, self._highest, now - self._at, self._expected)

    def take_up(self, state: SsrcState, now: float) -> None:
        """Goes on where ``export`` left off."""
        self.ssrc, self._highest, self._expected = state.ssrc, state.highest, state.expected
        self._at = now - state.age_s
