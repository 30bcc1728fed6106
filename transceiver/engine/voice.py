"""The voice: hibari, a voice of 8 MB, by ONNX Runtime. It has one speaker, and speaks English."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MOST_CHARACTERS", "Voice", "spoken_parts"]

MOST_CHARACTERS = 4096
"""Of a longer text the beginning is spoken."""
_LEVEL = 2.2  # to the level of a telephone's speech: -20 dBFS
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
                yield (np.clip(said * _LEVEL, -1, 1) * 32767).astype("<i2").tobytes()


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
