"""The engine around its models: resampling, spectra, pieces of text and sound, slots of conversations."""

from __future__ import annotations

import numpy as np
import pytest

from transceiver.engine import Message
from transceiver.engine.ears import pieces, repeats, text_of
from transceiver.engine.mind import Memory, Slots, fitted
from transceiver.engine.sound import RATE_HZ, log_mel, rms, samples
from transceiver.engine.voice import MOST_CHARACTERS, spoken_parts, trimmed


def tone(hertz: int, rate: int, seconds: float = 1.0) -> bytes:
    time = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * hertz * time) * 16384).astype("<i2").tobytes()


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_a_tone_stays_the_same_tone_at_any_rate(rate: int) -> None:
    heard = samples(tone(1000, rate), rate)
    assert len(heard) == RATE_HZ
    assert np.argmax(np.abs(np.fft.rfft(heard))) == 1000
    assert rms(heard) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_what_16_khz_cannot_hold_is_not_folded_back() -> None:
    assert rms(samples(tone(11000, 48000), 48000)) < 0.001


def test_half_a_sample_no_sound_and_another_rate() -> None:
    assert len(samples(b"\0\0\0", 16000)) == 1
    assert len(samples(b"", 24000)) == 0
    assert rms(samples(b"", 24000)) == 0
    with pytest.raises(ValueError, match="96000"):
        samples(b"", 96000)


def test_the_spectrogram_has_a_tone_in_the_mel_of_its_frequency() -> None:
    """On Slaney's scale a mel is 200/3 Hz below 1 kHz, and 8 kHz is 45.25 mels: band 18 of 80 is at 670 Hz."""
    found = log_mel(samples(tone(670, RATE_HZ), RATE_HZ))
    assert found.shape == (80, 100)
    assert found.dtype == np.float32
    assert int(np.argmax(found[:, 50])) == 18 - 1
    assert float(found.max() - found.min()) <= 2.0 + 1e-6  # eight powers of ten, by four


def test_long_sound_is_cut_where_it_is_quiet_and_nothing_is_lost() -> None:
    sound = np.ones(50 * RATE_HZ, np.float32)
    sound[20 * RATE_HZ : 20 * RATE_HZ + 3200] = 0
    cut = list(pieces(sound))
    assert 20 * RATE_HZ <= len(cut[0]) <= 20 * RATE_HZ + 3200
    assert all(len(piece) <= 24 * RATE_HZ for piece in cut)
    assert np.array_equal(np.concatenate(cut), sound)


def test_tokens_become_text() -> None:
    assert text_of(["ĠHow", "Ġmuch", "?", "<|endoftext|>"]) == "How much?"
    assert text_of(["ĠcafÃ", "©"]) == "café"
    assert text_of(["Ã"]) == "\ufffd"
    assert text_of(["Ġ[", "BLANK", "_AUDIO", "]"]) == ""
    assert text_of(["Ġ(", "door", "Ġcloses", ")", "ĠYes", "."]) == "Yes."
    assert text_of([]) == ""


def test_words_that_come_twice_are_noticed() -> None:
    assert repeats("Can you hear me? Can you Hear me?")
    assert repeats("10 of clubs 10 of clubs")
    assert not repeats("Can you hear me?")
    assert not repeats("No, no.")
    assert not repeats("")


def test_a_text_is_spoken_in_parts_that_end_with_sentences() -> None:
    sentence = "This is a sentence of some length, and it ends here. "
    parts = list(spoken_parts(sentence * 20))
    assert " ".join(parts) == (sentence * 20).strip()
    assert all(len(part) <= 300 and part.endswith("here.") for part in parts)
    assert [len(part) for part in spoken_parts("x" * 700)] == [300, 300, 100]
    assert sum(map(len, spoken_parts("x" * 10 * MOST_CHARACTERS))) == MOST_CHARACTERS
    assert list(spoken_parts(" \n ")) == []


def test_a_call_keeps_its_slot_until_another_needs_it() -> None:
    slots = Slots(2)
    a, b = slots.take("a")[0], slots.take("b")[0]
    assert {a, b} == {0, 1}
    assert slots.take("a")[0] == a
    assert slots.take("c")[0] == b  # b spoke longer ago than a
    slots.forget("a")
    slots.forget("a")
    assert slots.take("d")[0] == a
    assert slots.take("c")[0] == b


def conversation(turns: int) -> list[Message]:
    said: list[Message] = [{"role": "system", "content": "s" * 5000}]
    for i in range(turns):
        said.append({"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} " + "w" * 5000})
    return said


def test_messages_that_do_not_fit_are_left_out_many_at_once_and_then_stay_out() -> None:
    memory = Memory()
    assert len(fitted(conversation(21), memory)) == 22
    memory.shrink(21)
    first = fitted(conversation(21), memory)
    assert [m["content"][:2] for m in first[1:]] == ["15", "16", "17", "18", "19", "20"]
    assert first[0]["role"] == "system"
    later = fitted(conversation(23), memory)
    assert later[: len(first)] == first  # what was read before is not read again
    assert len(first[0]["content"]) == 2 * len(first[1]["content"]) == 2400


def test_one_message_that_does_not_fit_is_cut_and_a_new_conversation_begins_anew() -> None:
    memory = Memory()
    memory.shrink(1)
    system, last = fitted(conversation(1), memory)
    assert (len(system["content"]), len(last["content"])) == (1200, 600)
    memory.dropped = 10
    assert len(fitted(conversation(3), memory)) == 4


def test_speech_loses_the_silence_around_it_but_for_the_pause_after_it() -> None:
    loud = np.full(2400, 0.5, np.float32)
    silence = np.zeros(7200, np.float32)
    said = trimmed(np.concatenate([silence, loud, silence]), 0.25)
    assert len(said) == 480 + 2400 + 6000
    assert np.array_equal(said[480:2880], loud)
    # Where there is less of it than that, there is more afterwards.
    assert np.array_equal(trimmed(loud, 0.1), np.concatenate([loud, np.zeros(2400, np.float32)]))
    assert len(trimmed(silence, 0.25)) == 0
