"""The 20 ms frame of a call's audio: a packet carries one, and every clock of a call ticks once for each.

20 ms are the default of RTP audio (RFC 3551 section 4.2), and what browsers send.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FRAMES_PER_S", "FRAME_MS", "FRAME_S", "frame_bytes", "frame_samples"]

FRAME_MS: Final = 20
FRAME_S: Final = FRAME_MS / 1000
FRAMES_PER_S: Final = 1000 // FRAME_MS


def frame_samples(rate_hz: int) -> int:
    """Samples of one channel in a frame; also the ticks that an RTP clock of ``rate_hz`` counts in it."""
    return rate_hz // FRAMES_PER_S


def frame_bytes(rate_hz: int) -> int:
    """Bytes of a frame of mono PCM16."""
    return 2 * frame_samples(rate_hz)
