"""Opus through libopus: what goes in comes out, and what is malformed is said."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from rtc.codecs.opus import SILENCE, Decoder, Encoder, OpusError
from rtc.frame import frame_bytes


def tone(rate_hz: int, seconds: float, amplitude: float = 8000.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def energy(pcm: bytes) -> float:
    return float(np.sqrt((np.frombuffer(pcm, np.int16).astype(float) ** 2).mean()))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_a_tone_keeps_its_energy(rate_hz: int) -> None:
    encoder, decoder = Encoder(rate_hz), Decoder(rate_hz)
    pcm = tone(rate_hz, 1.0).tobytes()
    frame = frame_bytes(rate_hz)
    heard = b"".join(decoder.decode(encoder.encode(pcm[at : at + frame])) for at in range(0, len(pcm), frame))
    assert len(heard) == len(pcm)
    assert energy(heard[len(heard) // 4 :]) == pytest.approx(energy(pcm), rel=0.1)


def test_rates_may_differ_at_both_ends() -> None:
    encoder, decoder = Encoder(48000), Decoder(24000)
    pcm = tone(48000, 0.5).tobytes()
    heard = b"".join(decoder.decode(encoder.encode(pcm[at : at + 1920])) for at in range(0, len(pcm), 1920))
    assert len(heard) == len(pcm) // 2
    spectrum = np.abs(np.fft.rfft(np.frombuffer(heard[-19200:], np.int16)))
    assert spectrum.argmax() == 440 * 9600 // 24000


@pytest.mark.parametrize("ms", [2.5, 5, 10, 20, 40, 60])
def test_every_frame_length_of_opus_is_taken(ms: float) -> None:
    samples = int(24 * ms)
    packet = Encoder(24000).encode(bytes(2 * samples))
    assert len(Decoder(24000).decode(packet)) == 2 * samples


@pytest.mark.parametrize("rate_hz", [24000, 48000])
def test_silence_is_20_ms_of_digital_silence(rate_hz: int) -> None:
    assert Decoder(rate_hz).decode(SILENCE) == bytes(frame_bytes(rate_hz))


def test_silence_ends_speech_within_two_frames() -> None:
    encoder, decoder = Encoder(24000), Decoder(24000)
    pcm = tone(24000, 0.2).tobytes()
    for at in range(0, len(pcm), 960):
        decoder.decode(encoder.encode(pcm[at : at + 960]))
    decoder.decode(SILENCE)
    decoder.decode(SILENCE)
    assert energy(decoder.decode(SILENCE)) < 20


def test_stereo_is_mixed_down_by_the_decoder() -> None:
    # The same frame with the stereo bit of the table of contents set (RFC 6716 section 3.1).
    assert len(Decoder(24000).decode(bytes([SILENCE[0] | 4]) + SILENCE[1:])) == 960


@pytest.mark.parametrize(
    "packet", [b"\xff\xff\xff", b"\xfb", b"\xfb\x00", b"\xfb\x3f" + bytes(10), b"\xfa\xff\xff", b"\xf9" + bytes(3)]
)
def test_a_malformed_packet_raises_and_the_next_is_heard(packet: bytes) -> None:
    decoder = Decoder(24000)
    with pytest.raises(OpusError, match="corrupted"):
        decoder.decode(packet)
    assert decoder.decode(SILENCE) == bytes(960)


def test_random_packets_raise_nothing_but_opus_errors() -> None:
    rng = random.Random(6716)
    decoder = Decoder(24000)
    for _ in range(3000):
        packet = rng.randbytes(rng.randrange(1, 200))
        try:
            heard = decoder.decode(packet)
        except OpusError:
            continue
        assert 0 < len(heard) <= 2 * 24 * 120
    assert len(decoder.decode(SILENCE)) == 960


@pytest.mark.parametrize("samples", [60, 120, 240, 480, 960, 1440, 2880])
def test_concealment_is_as_long_as_what_was_lost(samples: int) -> None:
    decoder = Decoder(24000)
    decoder.decode(Encoder(24000).encode(tone(24000, 0.02).tobytes()))
    assert len(decoder.conceal(samples)) == 2 * samples


def test_concealment_of_a_tone_is_not_silence_and_fades() -> None:
    encoder, decoder = Encoder(24000), Decoder(24000)
    pcm = tone(24000, 0.4).tobytes()
    for at in range(0, len(pcm), 960):
        decoder.decode(encoder.encode(pcm[at : at + 960]))
    lost = [energy(decoder.conceal(480)) for _ in range(50)]
    assert lost[0] > 1000
    assert lost[-1] < lost[0] / 5


def test_concealment_before_anything_was_heard_is_silence() -> None:
    assert Decoder(24000).conceal(480) == bytes(960)


@pytest.mark.parametrize("samples", [0, 1, 479, 481, 10000])
def test_a_frame_of_another_length_is_refused(samples: int) -> None:
    with pytest.raises(OpusError):
        Encoder(24000).encode(bytes(2 * samples))


@pytest.mark.parametrize("rate_hz", [0, 44100, -1])
def test_a_rate_that_opus_does_not_know_is_refused(rate_hz: int) -> None:
    with pytest.raises(OpusError):
        Encoder(rate_hz)
    with pytest.raises(OpusError):
        Decoder(rate_hz)


def importing(first: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that runs ``first``, and then imports the codec."""
    program = f"import ctypes, ctypes.util, sys\n{first}\nimport rtc.codecs.opus\n"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_importing_it_starts_no_other_program() -> None:
    told = "sys.addaudithook(lambda event, args: event == 'subprocess.Popen' and sys.exit(f'it starts {args[1]}'))"
    done = importing(told)
    assert done.returncode == 0, done.stderr


def test_without_libopus_importing_it_says_what_to_install() -> None:
    absent = "class Absent:\n    def __new__(cls, *args): raise OSError\n"
    done = importing(f"{absent}ctypes.CDLL, ctypes.util.find_library = Absent, lambda name: None")
    assert done.returncode != 0
    assert "libopus is not here: install PyAV (pip) or libopus0 (apt)" in done.stderr
