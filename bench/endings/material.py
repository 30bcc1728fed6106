"""Turns as people say them: a neural voice (hibari-tts) that pauses within sentences, alone and under noise.

A sentence is spoken whole, so its melody goes on over the pause; it is cut where it is most quiet near the mark, and
silence of 300 to 1200 ms is put there. Two rates and two pitches make four speakers of the one voice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.vad.material import RATE_HZ, noise_of
from transceiver.engine.weights import VOICE

__all__ = [
    "AFTER_S",
    "BEFORE_S",
    "NOISES",
    "RATE_HZ",
    "SPEAKERS",
    "Samples",
    "Turn",
    "Voices",
    "heard",
    "turn",
    "turns",
]

NOISES = ("clean", "pink", "babble", "typing")
SNR_DB = 15.0
AFTER_S = 9.0
"""Of silence after a turn."""
BEFORE_S = 1.0
"""Of silence before a turn."""
_NOISE_S = 60
_PAUSES_MS = (300, 1200)
_SPEECH_RMS, _FLOOR_RMS = 2000.0, 3.0  # of 32768: -24 dBFS, and a microphone's own
SPEAKERS = ((1.0, 1.0), (0.9, 0.88), (1.1, 1.0), (1.0, 1.12))  # rate of speech, and pitch
_BLOCK = RATE_HZ // 100
_NEAR_S = 0.4  # of where a voice that says the beginning alone is done with it
_DIP_DB, _DIP_BLOCKS = -25.0, 3  # below the sentence's loudness, and for how long

# "|" is where the speaker pauses.
PAUSED = (
    "I would like to book a table,| for two people on Friday evening.",
    "My order has not arrived,| and I wanted to ask where it is.",
    "I am calling because,| my internet has stopped working.",
    "Can you tell me,| when the next train to London leaves?",
    "I bought a pair of shoes and,| one of them is too small.",
    "If it is not too late,| I would like to change my flight.",
    "I need to speak to,| somebody about my last bill.",
    "The address is twelve,| Station Road in Cambridge.",
    "I have been waiting for two weeks,| but nobody has called me back.",
    "Could you please send,| the invoice to my new address?",
    "When I try to log in,| it says that my password is wrong.",
    "I was wondering if,| you have a room for the weekend.",
    "We are four adults and,| two small children.",
    "It was delivered yesterday, but,| the box was empty.",
    "I think that,| we should meet on Thursday morning.",
    "Before I pay for it,| can I see what it looks like?",
    "My name is Alice Brown, and,| my number is five five nine three.",
    "I want to cancel my subscription because,| I never use it.",
    "Please tell the doctor,| that I will be ten minutes late.",
    "I lost my card on Monday, so,| I would like to block it.",
    "The thing is that,| my daughter has the same name.",
    "What would it cost,| if I took three of them?",
    "I am looking for a present,| for my mother's birthday.",
    "Yes, but,| I already told your colleague.",
    "On the second of March,| I paid the first half of it.",
    "Is there anything,| that I can do about it?",
    "You can reach me in the morning or,| after six in the evening.",
    "I would like the soup,| the fish, and a glass of water.",
    "Turn off the lights in the kitchen and,| close the door.",
    "The car makes a strange noise,| whenever I turn to the left.",
    "Well,| I am not quite sure about that.",
    "My husband and I,| have been customers for ten years.",
    "Let me see,| it should be on the back of the card.",
    "I have a question about,| the insurance for my bicycle.",
    "Although I pressed the button,| nothing happened at all.",
    "First I want to know,| how long it will take.",
)
WHOLE = (
    *(
        "What is the capital of France?",
        "What time is it?",
        "Tell me a story.",
        "Hello, can you hear me?",
        "Thank you.",
    ),
    *("How is the weather in Paris today?", "Yes, please.", "No, thank you.", "I would like to book a table for two."),
    *("Please call me back tomorrow morning.", "My name is Alice and I live in London.", "How much does it cost?"),
    *("How do I reset my password?", "Where is the nearest station?", "I have a question about my last order."),
    *("The number is five five nine three.", "Could you repeat that?", "Please speak more slowly.", "I do not know."),
    *("Set a timer for ten minutes.", "How far is it to the airport?", "I want to cancel my subscription.", "Stop."),
    *("The package has not arrived yet.", "Can I speak to a person?", "That is not what I said.", "Good morning."),
    *("When do you open on Sunday?", "Send it to my other address.", "That would be great.", "On Friday at seven."),
    *("I am afraid that is not possible.", "It is red and blue.", "Because I was ill.", "He was not at home."),
    *("Two coffees and a tea.", "I will take the second one."),
)

Samples = npt.NDArray[np.float64]


class Turn(NamedTuple):
    """What one caller says, mono at 16 kHz in units of PCM16: silence, speech to the sample ``end``, and AFTER_S more;
    ``pauses`` are (first sample, past the last)."""

    text: str
    sound: Samples
    pauses: tuple[tuple[int, int], ...]
    end: int


class Voices:
    """The speakers: ``say`` gives a text by one of them, without silence at its ends, and as loud as all is."""

    def __init__(self) -> None:
        from hibari import Hibari  # it comes with the models

        self._voice = Hibari(model=str(VOICE.first), threads=1)

    def say(self, text: str, speaker: int) -> Samples:
        speed, pitch = SPEAKERS[speaker % len(SPEAKERS)]
        return _loud(_at_rate(np.asarray(self._voice(text, speed=speed, seed=0), np.float64), 24000 * pitch))


def turns(seed: int = 1) -> Iterator[Turn]:
    """Each sentence once, by one speaker after the other. Sentences in which the voice runs on over the mark are left
    out."""
    voices, random = Voices(), np.random.default_rng(seed)
    # Lengths of pauses are spread evenly, and in no order.
    lengths = random.permutation(np.linspace(*_PAUSES_MS, len(PAUSED)))
    for i, text in enumerate((*PAUSED, *WHOLE)):
        sound = voices.say(text.replace("|", ""), i)
        pauses: tuple[tuple[int, int], ...] = ()
        if "|" in text:
            dip = _dip(sound, len(voices.say(text.partition("|")[0], i)))
            if dip is None:
                continue
            silence = np.zeros(round(lengths[i] / 1000 * RATE_HZ))
            pauses = ((dip[0], dip[0] + len(silence)),)
            sound = np.concatenate([sound[: dip[0]], silence, sound[dip[1] :]])
        yield turn(text, sound, pauses)


def turn(text: str, sound: Samples, pauses: tuple[tuple[int, int], ...] = ()) -> Turn:
    """A turn of that speech, whose pauses are counted from its beginning."""
    before = round(BEFORE_S * RATE_HZ)
    whole = np.concatenate([np.zeros(before), sound, np.zeros(round(AFTER_S * RATE_HZ))])
    shifted = tuple((first + before, past + before) for first, past in pauses)
    return Turn(text, whole[: len(whole) // _BLOCK * _BLOCK], shifted, before + len(sound))


def heard(said: Turn, noise: str, seed: int = 2) -> bytes:
    """PCM16 of the turn under ``noise``, SNR_DB below its speech."""
    random = np.random.default_rng([seed, len(said.sound)])
    if noise == "clean":
        added = random.normal(0.0, _FLOOR_RMS, len(said.sound))
    else:
        at = int(random.integers(_NOISE_S * RATE_HZ - len(said.sound)))
        added = _noise(noise)[at : at + len(said.sound)]
        added = added * _SPEECH_RMS / 10 ** (SNR_DB / 20) / np.sqrt((added**2).mean())
    return bytes(np.clip(said.sound + added, -32768, 32767).astype("<i2").tobytes())


@cache
def _noise(noise: str) -> Samples:
    return noise_of(noise, _NOISE_S * RATE_HZ, np.random.default_rng(3))


def _dip(sound: Samples, near: int) -> tuple[int, int] | None:
    """The longest quiet place near a sample: (first sample, past the last), None where there is none."""
    levels = np.sqrt((sound[: len(sound) // _BLOCK * _BLOCK].reshape(-1, _BLOCK) ** 2).mean(axis=1))
    quiet = levels < _SPEECH_RMS * 10 ** (_DIP_DB / 20)
    first, last = (round((near / RATE_HZ + side * _NEAR_S) * 100) for side in (-1, 1))
    best, at = (0, 0), max(first, 1)
    while at < min(last, len(quiet) - 1):
        end = at
        while end < len(quiet) and quiet[end]:
            end += 1
        best = max(best, (end - at, at))
        at = max(end, at) + 1
    length, at = best
    return (at * _BLOCK, (at + length) * _BLOCK) if length >= _DIP_BLOCKS else None


def _loud(sound: Samples) -> Samples:
    """The speech without silence at its ends, and as loud as all is."""
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() * 0.02)
    sound = sound[loud[0] : loud[-1] + 1]
    loud_enough: Samples = sound * (_SPEECH_RMS / np.sqrt((sound**2).mean()))
    return loud_enough


def _at_rate(sound: Samples, rate: float) -> Samples:
    """The sound at 16 kHz; a ``rate`` that is not its own changes its pitch."""
    size = round(len(sound) * RATE_HZ / rate)
    narrow: Samples = np.fft.irfft(np.fft.rfft(sound)[: size // 2 + 1], size)
    return narrow
