"""The benchmark of false interruptions: how many backchannels, coughs and keys silence an agent that speaks, and how
soon real words do.

``python -m bench.endings.interruptions``; needs the small models. Time is that of the audio; which words they are is
known a fixed time after the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np

from bench.endings.later import Later
from bench.endings.material import BEFORE_S, RATE_HZ, SPEAKERS, Samples, Turn, Voices, heard, turn
from bench.vad.material import noise_of
from rtc.frame import FRAME_MS, frame_bytes
from rtc.vad.detector import Vad
from transceiver.engine import weights
from transceiver.engine.ears import Ears
from transceiver.realtime.config import SemanticVad, ServerVad, TurnDetection
from transceiver.realtime.listening import Listening
from transceiver.realtime.overlap import Overlap

BACKCHANNELS = (
    *("Mm-hmm.", "Uh-huh.", "Yeah.", "Okay.", "Right.", "I see.", "Oh, okay.", "Yeah, yeah.", "Got it.", "Sure."),
    *("Mm.", "Oh, I see.", "Yes, okay.", "Great.", "Thank you."),
)
WORDS = (
    *("Stop.", "Wait.", "No.", "No, that is wrong.", "Excuse me, I have a question.", "Hold on a second."),
    *("What about Friday?", "Not that one.", "Can you repeat that?", "I do not want that.", "Never mind."),
    *("How much is it?", "Yes, but I need two of them.", "Okay, and what about my bill?", "My name is Alice."),
)
NOISES = 20
TURNS = SemanticVad(type="semantic_vad")
LEAST_MS = 400  # of voice, by semantic_vad
_SPEECH_RMS = 2000.0


class Outcome(NamedTuple):
    """What one voice did: when the agent fell silent first, in ms from its beginning, None if never, and for how long
    it paused; and whether it lost the floor."""

    silent_ms: float | None
    paused_ms: int
    lost: bool


def outcome(pcm: bytes, turns: TurnDetection, vad: Vad, judge: Later | None) -> Outcome:
    """Has an agent speak on while ``pcm`` comes."""
    listening, overlap = Listening(RATE_HZ, turns, vad=vad, judge=None), Overlap(judge, RATE_HZ)
    least_ms = LEAST_MS if isinstance(turns, SemanticVad) else 0
    size, silent_ms, paused_ms = frame_bytes(RATE_HZ), None, 0
    for at in range(0, len(pcm) - size + 1, size):
        if judge is not None:
            judge.tick()
        edge = listening.push(pcm[at : at + size])
        if edge == "started":
            overlap.begin(True, turns)
        lost = overlap.takes_floor(listening, least_ms, True)
        paused_ms += FRAME_MS * overlap.holds
        if (lost or overlap.holds) and silent_ms is None:
            silent_ms = 1000 * ((at + size) // 2 / RATE_HZ - BEFORE_S)
        if lost:
            return Outcome(silent_ms, paused_ms, True)
        if edge == "stopped":
            overlap.end()
    return Outcome(silent_ms, paused_ms, False)


def sounds() -> Iterator[tuple[str, Turn]]:
    """Everything that is heard over the agent, by kind."""
    voices, random = Voices(), np.random.default_rng(5)
    for kind, texts in (("backchannels", BACKCHANNELS), ("words", WORDS)):
        for text in texts:
            for speaker in range(len(SPEAKERS)):
                yield kind, turn(text, voices.say(text, speaker))
    for _ in range(NOISES):
        yield "coughs", turn("", _cough(random))
        keys = noise_of("typing", 2 * RATE_HZ, random)
        yield "keys", turn("", keys * (_SPEECH_RMS / 4 / np.sqrt((keys**2).mean())))


def _cough(random: np.random.Generator) -> Samples:
    """One to three bursts of breath, each 150 to 300 ms: noise below 3 kHz that begins at once and dies away."""
    bursts = []
    for _ in range(random.integers(1, 4)):
        count = int(random.uniform(0.15, 0.3) * RATE_HZ)
        hz = np.fft.rfftfreq(count, 1 / RATE_HZ)
        shape = np.exp(-(((hz - random.uniform(500, 900)) / 400) ** 2)) + 0.5 * np.exp(-(((hz - 1800) / 900) ** 2))
        breath = np.fft.irfft(np.fft.rfft(random.normal(0, 1, count)) * shape, count)
        time = np.arange(count) / RATE_HZ
        bursts += [breath * np.minimum(1, time / 0.01) * np.exp(-time / 0.08), np.zeros(int(0.08 * RATE_HZ))]
    whole = np.concatenate(bursts)
    cough: Samples = whole * (1.5 * _SPEECH_RMS / np.sqrt((whole**2).mean()))
    return cough


def main() -> None:
    """Prints a row for each kind of sound and way."""
    if why := weights.trouble():
        raise SystemExit(f"interruptions: {why}")
    ears = Later(words=Ears(weights.EARS.first.parent).text)
    said = [(kind, each.text, heard(each, "clean")) for kind, each in sounds()]
    ways: tuple[tuple[str, TurnDetection, Later | None], ...] = (
        ("server_vad", ServerVad(), None),
        ("semantic_vad", TURNS, None),
        ("semantic_vad, words", TURNS, ears),
    )
    print(
        "| voice by | turn detection | sound | take the floor | silent after, p50 / p90 ms | pause of others, p50 ms |"
    )
    print("|---|---|---|---|---|---|")
    for vad in get_args(Vad):
        for name, turns, judge in ways:
            for kind in dict.fromkeys(kind for kind, _, _ in said):
                found = []
                for of, text, pcm in said:
                    if of == kind:
                        ears.heard.clear()
                        found.append(outcome(pcm, turns, vad, judge))
                        if judge is not None and found[-1].lost is not (kind == "words"):
                            print(f"    {kind}: {text!r} was heard as {ears.heard}")
                print(_row(vad, name, kind, found), flush=True)


def _row(vad: str, name: str, kind: str, found: list[Outcome]) -> str:
    silent = [each.silent_ms for each in found if each.lost and each.silent_ms is not None]
    after = " / ".join(f"{np.percentile(silent, q):.0f}" for q in (50, 90)) if silent else ""
    paused = [each.paused_ms for each in found if not each.lost]
    kept = f"{np.percentile(paused, 50):.0f}" if paused else ""
    return f"| {vad} | {name} | {kind} | {sum(each.lost for each in found)} of {len(found)} | {after} | {kept} |"


if __name__ == "__main__":
    main()
