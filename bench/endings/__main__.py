"""The benchmark of ends of turns: how long a caller who has finished waits until that is noticed, and how many callers
who only pause are cut off, by each way of turn detection.

Needs the small models (``scripts/setup models``). Time is that of the audio: nothing is late by the machine it runs on,
and the same figures come out again. So it may be measured in parts, by noise and detector of voice: the rows of others
stay as they were.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import numpy as np

from bench.endings.later import ANSWER_MS, Later
from bench.endings.material import AFTER_S, NOISES, RATE_HZ, Turn, heard, turns
from bench.endings.report import SHOWN, markdown, plot
from bench.harness import document
from bench.harness.conditions import conditions, say
from bench.harness.document import results_file, save
from rtc.frame import frame_bytes
from rtc.vad.detector import Vad
from transceiver.engine import weights
from transceiver.engine.turn import Turn as SmartTurn
from transceiver.realtime.config import SemanticVad, ServerVad, TurnDetection
from transceiver.realtime.judging import EAGERNESS, Patience
from transceiver.realtime.listening import Listening

RESULTS = results_file("endings")
PLOT = document.DOCUMENT.parent / "endings.png"
SILENCES_MS = (300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
SURE = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
Row = dict[str, Any]
Way = tuple[str, TurnDetection, dict[str, Patience]]


def stops(listening: Listening, judge: Later, pcm: bytes) -> list[int]:
    """The samples at whose end a turn ended."""
    size, found = frame_bytes(RATE_HZ), []
    for at in range(0, len(pcm) - size + 1, size):
        judge.tick()
        if listening.push(pcm[at : at + size]) == "stopped":
            found.append((at + size) // 2)
    return found


def row(name: str, said: Iterable[tuple[Turn, list[int]]], **more: Any) -> Row:
    """What came of all turns: of those that pause the share that was cut off there, and the ms from the end of each
    until that was noticed. One that nobody noticed waited to the end of its sound."""
    pausing = cut = 0
    dead = []
    for turn, ends in said:
        if turn.pauses:
            pausing += 1
            cut += any(turn.pauses[0][0] < end <= turn.end for end in ends)
        after = min((end - turn.end for end in ends if end > turn.end), default=round(AFTER_S * RATE_HZ))
        dead.append(1000 * after / RATE_HZ)
    share = cut / pausing if pausing else 0.0
    quantiles = {f"p{q}_ms": float(np.percentile(dead, q)) for q in (50, 90)}
    return {"detector": name, "cut_share": share, "mean_ms": float(np.mean(dead)), **quantiles, **more}


def ways(noise: str, vad: str) -> Iterator[Way]:
    """Each way of finding the end of a turn: its name, and what Listening is to be told. The curves are drawn without
    noise."""
    curves = (noise, vad) == ("clean", "webrtc")
    for ms in SILENCES_MS:
        if curves or f"server_vad {ms} ms" in SHOWN:
            yield f"server_vad {ms} ms", ServerVad(silence_duration_ms=ms), EAGERNESS
    for eagerness in ("high", "medium", "low"):
        detection = SemanticVad.model_validate({"type": "semantic_vad", "eagerness": eagerness})
        yield f"semantic_vad {eagerness}", detection, EAGERNESS
        if curves:
            for sure in SURE:
                way = {eagerness: EAGERNESS[eagerness]._replace(sure=sure)}
                yield f"{eagerness} at {sure:g}", detection, way


def measure(noises: Iterable[str], vads: Iterable[Vad]) -> list[Row]:
    """A row for each way, noise and detector of voice."""
    said, rows = list(turns()), []
    say(f"endings: {len(said)} turns, {sum(bool(turn.pauses) for turn in said)} of them with a pause")
    model = SmartTurn(weights.TURN.first)
    for noise in noises:
        pcm = [heard(turn, noise) for turn in said]
        for vad in vads:
            judge = Later(model.ended)
            for name, detection, patience in ways(noise, vad):
                judge.asked, ends = 0, []
                for each in pcm:
                    listening = Listening(RATE_HZ, detection, vad=vad, judge=judge, eagerness=patience)
                    ends.append(stops(listening, judge, each))
                asked = judge.asked / len(said)
                rows.append(row(name, zip(said, ends, strict=True), noise=noise, vad=vad, asked=asked))
                say(_line(rows[-1]))
    return rows


def _line(row: Row) -> str:
    figures = " / ".join(f"{row[name]:5.0f}" for name in ("mean_ms", "p50_ms", "p90_ms"))
    cut = f"{100 * row['cut_share']:5.1f} % cut off"
    return f"{row['noise']:7} {row['vad']:7} {row['detector']:20} {cut}, {figures} ms, asked {row['asked']:.1f}"


def joined(before: list[Row], rows: list[Row]) -> list[Row]:
    """The rows of ``before`` with all that were measured again in the place of their own, by noise and detector."""

    def of(row: Row) -> tuple[str, str]:
        return row["noise"], row["vad"]

    again = {of(row) for row in rows}
    places = {each: i for i, each in enumerate(itertools.product(NOISES, get_args(Vad)))}
    found = [*(row for row in before if of(row) not in again), *rows]
    return sorted(found, key=lambda row: places.get(of(row), len(places)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.endings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--noises", default=",".join(NOISES), help="default: %(default)s")
    parser.add_argument("--vads", default=",".join(get_args(Vad)), help="default: %(default)s")
    args = parser.parse_args()
    if why := weights.trouble():
        raise SystemExit(f"endings: {why}")
    rows = measure(args.noises.split(","), args.vads.split(","))
    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    result = conditions(answer_ms=ANSWER_MS, rows=joined(before, rows))
    save(result, RESULTS)
    plot(result, PLOT)
    document.write("endings", markdown(result, PLOT.name))


if __name__ == "__main__":
    main()
