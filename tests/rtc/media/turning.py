"""Frames of a voice, and the edges that a detector of turns finds in them."""

from __future__ import annotations

from rtc.frame import frame_bytes
from rtc.vad.detector import Detector

FRAME_BYTES = frame_bytes(24000)


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME_BYTES] for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def edges(turns: Detector, pcm: bytes) -> list[tuple[int, str]]:
    """(frame, edge) wherever there is one."""
    return [(i, edge) for i, frame in enumerate(frames(pcm)) if (edge := turns.push(frame))]
