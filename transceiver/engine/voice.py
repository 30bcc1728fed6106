"""The voice: hibari, a voice of 8 MB, by ONNX Runtime. It has one speaker, and speaks English."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transceiver.engine import VOICE_RATE_HZ
from transceiver.engine.sound import Samples

__all__ = ["MOST_CHARACTERS", "Voice", "spoken_parts", "trimmed"]

MOST_CHARACTERS = 4096
"""Of a longer text the beginning is spoken."""
_LEVEL = 2.2  # to the level of a telephone's speech: -20 dBFS
# The model says 220 to 300 ms of nothing before all that it says, and 300 ms after it.
_QUIET = 0.002
_BEFORE_S = 0.02  # of that is left, for a sound that begins softly
_PAUSE_S, _SHORT_PAUSE_S, _NO_PAUSE_S = 0.25, 0.12, 0.03  # after a sentence, a clause, and anything else
_PART = 300  # characters: a longer sentence is divided between words


class Voice:
    """The model, loaded from the file ``model``. One thread may use it at a time."""

    def __init__(self, model: Path) -> None:
        from hibari import Hibari

        self._speaker: Any = Hibari(model=str(model), threads=1)
        for _ in self.speech("Hello."):  # loads what reads the letters, too
            pass

    def speech(self, text: str) -> Iterator[bytes]:
        """``text`` as mono PCM16 at 24 kHz, sentence by sentence. The same text sounds the same."""
        for part in spoken_parts(text):
            for said in self._speaker.stream(part, seed=0):
                heard = trimmed(np.clip(said * _LEVEL, -1, 1), _pause_s(part))
                yield (heard * 32767).astype("<i2").tobytes()


def trimmed(said: Samples, pause_s: float) -> Samples:
    """Speech without the silence around it, but for ``pause_s`` after it; empty where there is none."""
    loud = np.flatnonzero(np.abs(said) > _QUIET)
    if not len(loud):
        return said[:0]
    begin = max(0, int(loud[0]) - round(_BEFORE_S * VOICE_RATE_HZ))
    end = int(loud[-1]) + 1
    spoken, pause = said[begin:end], round(pause_s * VOICE_RATE_HZ)
    after = said[end : end + pause]
    return np.concatenate([spoken, after, np.zeros(pause - len(after), said.dtype)])


def _pause_s(text: str) -> float:
    """The pause that belongs after ``text``."""
    last = text.rstrip("\"')]")[-1:]
    if last in ("", *".!?…"):
        return _PAUSE_S
    return _SHORT_PAUSE_S if last in ",;:–—" else _NO_PAUSE_S


def spoken_parts(text: str) -> Iterator[str]:
    """The text in parts of 300 characters at most, whole sentences where that is possible."""
    text = " ".join(text[:MOST_CHARACTERS].split())
    while len(text) > _PART:
        room = text[: _PART + 1]
        cut = max(room.rfind(end) for end in (". ", "! ", "? ")) + 1
        cut = cut or max(room.rfind(end) for end in (", ", "; ", ": ")) + 1 or room.rfind(" ") + 1 or _PART
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text
