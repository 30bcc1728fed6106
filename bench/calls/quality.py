"""The quality of speech that went through a server: STOI and PESQ of each sentence against what espeak-ng said.

Conditions are tried side by side, one call each, with the same losses for every server. What comes back is decoded
with all the patience there is, so that only what the server made of the voice is judged, and not a receiver's buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.calls import voice
from bench.calls.measure import Saying, load
from bench.calls.servers import SERVERS, Site

__all__ = ["quality"]

LOSSES = (0.0, 0.02, 0.05, 0.10, 0.20)
JITTER_S = 0.06
RATE_HZ = 16000
LEAD_S = 2.0
STRAY_S = 0.4
# A shorter word is no utterance to PESQ.
SHORTEST_S = 0.3

Floats = npt.NDArray[np.float64]
Condition = tuple[float, float, bool]  # loss, jitter in seconds, whether NACK is answered
CONDITIONS: tuple[Condition, ...] = (
    *((loss, 0.0, False) for loss in LOSSES),
    (0.0, JITTER_S, False),
    *((loss, 0.0, True) for loss in LOSSES[1:]),
)


def quality(site: Site, server: str, speech: voice.Speech) -> list[dict[str, Any]]:
    """``stoi`` (0 to 1) and ``pesq`` (wide band, 1 to 4.6) for each condition. Raises ServerError."""
    lead = np.random.default_rng(2).normal(0.0, 3.0, round(LEAD_S * voice.RATE_HZ)).astype(np.int16)
    sentences = tuple((a + len(lead), b + len(lead)) for a, b in speech.sentences)
    speech = replace(speech, pcm=np.concatenate([lead, speech.pcm]), sentences=sentences)
    seconds = len(speech.pcm) / voice.RATE_HZ
    sayings = []
    for loss, jitter_s, nack in CONDITIONS:
        path = site.directory / f"voice-{round(100 * loss)}.json"
        voice.encoded(speech, expected_loss_percent=round(100 * loss)).save(path)
        sayings.append(Saying(str(path), loss, jitter_s, nack))
    out = site.directory / "heard"
    with SERVERS[server](site) as running:
        figures = load(site, running, sayings, seconds - LEAD_S / 2, spread=False, warm_up=LEAD_S / 2, pcm=out)
    rows = []
    for i, (loss, jitter_s, nack) in enumerate(CONDITIONS):
        heard = np.frombuffer(Path(f"{out}-{i}.pcm").read_bytes(), np.int16)
        stoi, pesq = _judged(speech, heard.astype(np.float64))
        condition = {"server": server, "loss": loss, "jitter_ms": round(1000 * jitter_s), "nack": nack}
        rows.append({**condition, "stoi": stoi, "pesq": pesq, "asked_for": figures["asked_for"][i]})
    return rows


def _judged(speech: voice.Speech, heard: Floats) -> tuple[float, float]:
    """The means over the sentences. Each sentence is looked for near where it should be: a server may have inserted or
    left out a frame in a pause, which nobody hears."""
    from pesq import PesqError, pesq
    from pystoi import stoi
    from scipy.signal import resample_poly

    said: Floats = resample_poly(speech.pcm.astype(np.float64), RATE_HZ, voice.RATE_HZ)
    offset = _best(heard, said)
    stois, pesqs = [], []
    for begin, end in _at(speech.sentences):
        sentence = said[begin:end]
        if len(sentence) < SHORTEST_S * RATE_HZ:
            continue
        first = begin + offset - round(STRAY_S * RATE_HZ)
        window = _cut(heard, first, end + offset + round(STRAY_S * RATE_HZ))
        at = max(0, min(_best(window, sentence), len(window) - len(sentence)))
        there = window[at : at + len(sentence)]
        stois.append(float(stoi(sentence, there, RATE_HZ)))
        score = pesq(RATE_HZ, sentence, there, "wb", on_error=PesqError.RETURN_VALUES)
        pesqs.append(float(score) if score > 0 else 1.0)  # -1: nothing to be heard
    return round(float(np.mean(stois)), 4), round(float(np.mean(pesqs)), 3)


def _at(sentences: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    ratio = voice.RATE_HZ // RATE_HZ
    return [(a // ratio, b // ratio) for a, b in sentences]


def _best(inside: Floats, part: Floats) -> int:
    """The place of ``part`` in ``inside`` by cross-correlation, negative where it begins before it."""
    size = 1 << (len(inside) + len(part) - 1).bit_length()
    alike = np.fft.irfft(np.fft.rfft(inside, size) * np.conj(np.fft.rfft(part, size)), size)
    best = int(np.argmax(alike))
    return best if best < len(inside) else best - size


def _cut(samples: Floats, begin: int, end: int) -> Floats:
    """``samples[begin:end]`` with silence for what is beyond either end."""
    inside = samples[max(0, begin) : max(0, end)]
    return np.pad(inside, (max(0, -begin), max(0, end - begin - max(0, -begin) - len(inside))))
