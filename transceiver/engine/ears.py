"""The ears: Whisper tiny.en, in eight-bit integers, by CTranslate2.

Speech is followed by 10 s of silence and not, as Whisper was trained, by as much as makes 30 s: as right, and 40 % of
the work. With 1 to 3 s it goes wrong. Words that come twice are heard again with all of the silence: it is then that it
has gone wrong with 10 s, and seldom that somebody said them twice.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transceiver.engine.sound import RATE_HZ, Samples, log_mel, rms

__all__ = ["LONGEST_S", "Ears", "pieces", "repeats", "text_of"]

LONGEST_S = 60
"""Of longer sound the end is heard."""
_PIECE_S = 24  # what is longer is heard in pieces: Whisper hears 30 s at most, and the silence is in these
_SEEK_S = 6  # before the end of a piece, for a quiet place
_SILENCE_S = 10
_MOST_FRAMES = 3000
_LEAST_RMS = 0.001  # -60 dBFS: nobody speaks
_LEAST_S = 0.1
# Of silence and of noise Whisper makes words that it is not sure of.
_NO_SPEECH, _SURE = 0.6, -1.0
_START, _NO_TIMES = 50257, 50362
_END = 50256
_NOISES = re.compile(r"\[[^\]]*\]|\([^)]*\)|[♪*]+")  # as in subtitles: [music], (laughs)


class Ears:
    """The model, loaded from ``folder``. One thread may use it at a time."""

    def __init__(self, folder: Path, *, cuda: bool = False) -> None:
        import ctranslate2

        self._views = ctranslate2.StorageView
        self._model: Any = ctranslate2.models.Whisper(
            str(folder),
            device="cuda" if cuda else "cpu",
            compute_type="int8_float16" if cuda else "int8",
            inter_threads=1,
            intra_threads=1,
        )

    def text(self, sound: Samples) -> str:
        """The words in ``sound``; empty where there are none."""
        words = (self._words(piece) for piece in pieces(sound[-LONGEST_S * RATE_HZ :]))
        return " ".join(text for text in words if text)

    def _words(self, sound: Samples) -> str:
        if len(sound) < _LEAST_S * RATE_HZ or rms(sound) < _LEAST_RMS:
            return ""
        text = self._heard(sound, _SILENCE_S)
        if not repeats(text):
            return text
        return min(text, self._heard(sound, _MOST_FRAMES // 100), key=len)

    def _heard(self, sound: Samples, silence_s: int) -> str:
        features = log_mel(np.pad(sound, (0, silence_s * RATE_HZ)))[None, :, :_MOST_FRAMES]
        most = math.ceil(8 * len(sound) / RATE_HZ) + 12
        (result,) = self._model.generate(
            self._views.from_array(np.ascontiguousarray(features)),
            [[_START, _NO_TIMES]],
            beam_size=1,
            max_length=most,
            no_repeat_ngram_size=3,
            return_scores=True,
            return_no_speech_prob=True,
        )
        if result.no_speech_prob > _NO_SPEECH and result.scores[0] < _SURE:
            return ""
        return text_of(result.sequences[0])


def pieces(sound: Samples) -> Iterator[Samples]:
    """``sound`` in pieces of 24 s at most, cut where it is most quiet."""
    while len(sound) > _PIECE_S * RATE_HZ:
        first = (_PIECE_S - _SEEK_S) * RATE_HZ
        blocks = sound[first : _PIECE_S * RATE_HZ].reshape(-1, RATE_HZ // 10)
        cut = first + int(np.argmin(np.square(blocks).sum(axis=1))) * (RATE_HZ // 10) + RATE_HZ // 20
        yield sound[:cut]
        sound = sound[cut:]
    yield sound


def repeats(text: str) -> bool:
    """Whether two words that follow each other come twice."""
    words = re.findall(r"\w+", text.lower())
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) < len(pairs)


def text_of(tokens: Iterable[str]) -> str:
    """The text of a GPT-2 vocabulary's tokens, whose characters stand for bytes; noises in brackets are left out."""
    known = (_BYTES.get(char) for token in tokens if not token.startswith("<|") for char in token)
    text = bytes(byte for byte in known if byte is not None).decode(errors="replace")
    return " ".join(_NOISES.sub(" ", text).split())


def _bytes() -> dict[str, int]:
    """GPT-2's table (``encoder.py``, ``bytes_to_unicode``): bytes that can be seen are themselves, all others follow
    from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = sorted(set(range(256)) - set(seen))
    return {**{chr(byte): byte for byte in seen}, **{chr(256 + i): byte for i, byte in enumerate(unseen)}}


_BYTES = _bytes()
