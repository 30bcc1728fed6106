"""The benchmark of the engine's ears: words that they get wrong in what its voice says, clean, by telephone and in
noise, and in recordings of people.

``python -m bench.hearing [FOLDER]``; the folder is ``/usr/share/pocketsphinx/test/data`` of Debian's package
``pocketsphinx-testdata``.
"""

from __future__ import annotations

import re
import sys
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rtc.codecs import g711
from transceiver.engine.ears import Ears
from transceiver.engine.sound import RATE_HZ, Samples, rms, samples
from transceiver.engine.voice import Voice
from transceiver.engine.weights import EARS, VOICE

PHRASES = (
    *("What is the capital of France?", "What time is it?", "What day is it today?", "Tell me a story.", "Hello."),
    *("What is the weather in Paris?", "What is two plus three?", "Spell the word hello.", "Thank you.", "Goodbye."),
    *("How are you?", "Twelve times four.", "Stop.", "Yes, please.", "No, thank you.", "What is the time?"),
    *("Can you hear me?", "I would like to book a table for two.", "Please call me back tomorrow morning."),
    *("My name is Alice and I live in London.", "How do I reset my password?", "Where is the nearest station?"),
    *("I have a question about my last order.", "The number is five five nine three.", "Could you repeat that?"),
    *("Please speak more slowly.", "What can you do?", "Turn off the lights in the kitchen.", "Play some music."),
    *("Set a timer for ten minutes.", "How far is it to the airport?", "Who wrote this book?", "Is it going to rain?"),
    *("I want to cancel my subscription.", "The package has not arrived yet.", "What does that mean?"),
    *("Can I speak to a person?", "How much does it cost?", "I do not understand.", "Let me think about it."),
    *("That is not what I said.", "What is your name?", "When do you open on Sunday?", "Good morning."),
    "Send it to my other address.",
)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBERS = {**{str(number): word for number, word in enumerate(_DIGITS)}, "10": "ten", "12": "twelve"}


def main() -> None:
    """Prints a row for each kind of sound."""
    ears, voice = Ears(EARS.first.parent), Voice(VOICE.first)
    clean = [(phrase, samples(b"".join(voice.speech(phrase)), 24000)) for phrase in PHRASES]
    people = list(recordings(Path(sys.argv[1]))) if len(sys.argv) > 1 else []
    for name, said in (("the voice", clean), ("people", people)):
        for kind, change in KINDS.items():
            if said:
                report(f"{name}, {kind}", ears, [(text, change(sound)) for text, sound in said])


def report(name: str, ears: Ears, said: list[tuple[str, Samples]]) -> None:
    """Prints how much of ``said`` is heard."""
    wrong = whole = total = 0
    took = []
    for text, sound in said:
        began = time.perf_counter()
        heard = words(ears.text(sound))
        took.append(time.perf_counter() - began)
        errors = distance(words(text), heard)
        wrong, total, whole = wrong + errors, total + len(words(text)), whole + (errors == 0)
    half = sorted(took)[len(took) // 2] * 1000
    print(f"{name:24} {100 * wrong / total:5.1f} % of words, {whole} of {len(said)} whole, {half:.0f} ms", flush=True)


def words(text: str) -> list[str]:
    """The words of a text as they are spoken."""
    text = re.sub(r"(?<=\d)-?(?=\d)", " ", text) if re.search(r"\d{3}", text) else text
    found = re.findall(r"[a-z]+|\d+", text.lower().replace("'s", " is").replace("'", "").replace("mr.", "mister"))
    return [_NUMBERS.get(word, word) for word in found]


def distance(one: list[str], other: list[str]) -> int:
    """The edit distance (Levenshtein) of two lists."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def telephone(sound: Samples) -> Samples:
    """As G.711 at 8 kHz brings it."""
    pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
    encoder, decoder = g711.Encoder(g711.MU_LAW, RATE_HZ), g711.Decoder(g711.MU_LAW, RATE_HZ)
    size = RATE_HZ // 50 * 2
    frames = [pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size)]
    return samples(b"".join(decoder.decode(encoder.encode(frame)) for frame in frames), RATE_HZ)


def noisy(sound: Samples) -> Samples:
    """In white noise 10 dB below it."""
    noise = np.random.default_rng(1).normal(0, rms(sound) / np.sqrt(10), len(sound))
    return (sound + noise).astype(np.float32)


KINDS: dict[str, Callable[[Samples], Samples]] = {
    "clean": lambda sound: sound,
    "by telephone": telephone,
    "in noise": noisy,
}


def recordings(folder: Path) -> Iterator[tuple[str, Samples]]:
    """What people read aloud, with its words."""
    for listed in (folder / "librivox/transcription", folder / "cards/cards.transcription"):
        for line in listed.read_text().splitlines():
            text, _, name = line.rpartition("(")
            with wave.open(str(listed.parent / f"{name.strip(') ')}.wav")) as file:
                sound = samples(file.readframes(file.getnframes()), file.getframerate())
            yield re.sub(r"</?s>|<sil>", " ", text), sound


if __name__ == "__main__":
    main()
