"""G.711 against ffmpeg's, the filters between its rate and the agents', and its concealment."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
import pytest

from rtc.codecs.g711 import A_LAW, MU_LAW, Decoder, Encoder, Law
from rtc.codecs.resample import Down, Up
from rtc.frame import frame_bytes

LAWS = pytest.mark.parametrize("law", [MU_LAW, A_LAW], ids=lambda law: law.name)
FFMPEG = {"PCMU": "pcm_mulaw", "PCMA": "pcm_alaw"}


def tone(hz: float, rate_hz: int, seconds: float = 1.0, amplitude: float = 8000.0) -> npt.NDArray[np.float32]:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def rms(samples: npt.NDArray[np.float32] | bytes) -> float:
    if isinstance(samples, bytes):
        samples = np.frombuffer(samples, np.int16).astype(np.float32)
    return float(np.sqrt((samples**2).mean()))


@LAWS
def test_every_code_means_what_it_does_elsewhere(law: Law) -> None:
    theirs = av.CodecContext.create(FFMPEG[law.name], "r")
    theirs.sample_rate = 8000
    theirs.layout = "mono"
    (frame,) = theirs.decode(av.Packet(bytes(range(256))))
    assert frame.to_ndarray().reshape(-1).tolist() == law.levels.astype(int).tolist()


@LAWS
def test_every_level_is_its_own_code(law: Law) -> None:
    levels = law.levels.astype(np.int16)
    again = law.levels[law.codes[levels.view(np.uint16)]]
    assert (again == law.levels).all()


@LAWS
def test_silence_is_silent(law: Law) -> None:
    assert len(law.silence) == 160
    assert rms(Decoder(law, 24000).decode(law.silence)) <= 8


@LAWS
@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
def test_a_tone_comes_through_at_every_rate(law: Law, rate_hz: int) -> None:
    encoder, decoder = Encoder(law, rate_hz), Decoder(law, rate_hz)
    pcm = tone(1000, rate_hz).astype(np.int16).tobytes()
    size = frame_bytes(rate_hz)
    payloads = [encoder.encode(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert {len(payload) for payload in payloads} == {160}
    heard = b"".join(decoder.decode(payload) for payload in payloads)
    assert len(heard) == len(pcm)
    samples = np.frombuffer(heard, np.int16).astype(np.float32)[rate_hz // 2 :]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    peak = int(spectrum.argmax())
    assert peak == 500
    assert rms(samples) == pytest.approx(rms(tone(1000, rate_hz)), rel=0.02)
    # Quantising costs about 38 dB; nothing else is heard.
    rest = np.concatenate((spectrum[: peak - 3], spectrum[peak + 4 :]))
    assert (rest**2).sum() < (spectrum**2).sum() * 10**-3.3


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_the_telephone_band_passes_and_what_is_above_does_not_fold_into_it(factor: int) -> None:
    for hz, least, most in (
        (300, 0.97, 1.03),
        (1000, 0.97, 1.03),
        (3400, 0.9, 1.05),
        (4400, 0, 0.03),
        (5000, 0, 0.005),
    ):
        if hz < 4000 * factor:
            down = Down(factor).push(tone(hz, 8000 * factor))
            assert least <= rms(down[100:]) / rms(tone(1000, 8000)) <= most, hz


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_no_images_appear_above_the_telephone_band(factor: int) -> None:
    up = Up(factor).push(tone(1000, 8000))[100 * factor :]
    spectrum = np.abs(np.fft.rfft(up * np.hanning(len(up))))
    above = round(4500 / (4000 * factor) * len(spectrum))
    assert spectrum[above:].max() < spectrum.max() * 0.003


def test_blocks_join_without_a_seam() -> None:
    signal = tone(700, 24000)
    whole, parts = Down(3).push(signal), Down(3)
    assert np.allclose(
        whole, np.concatenate([parts.push(signal[at : at + 480]) for at in range(0, 24000, 480)]), atol=1
    )


@LAWS
def test_a_lost_frame_goes_on_as_before_and_a_long_loss_fades(law: Law) -> None:
    encoder, decoder = Encoder(law, 8000), Decoder(law, 8000)
    pcm = tone(125, 8000).astype(np.int16).tobytes()
    for at in range(0, 3200, 320):
        decoder.decode(encoder.encode(pcm[at : at + 320]))
    filled = decoder.conceal(160)
    assert len(filled) == 320
    wanted = np.frombuffer(pcm[3200:3520], np.int16).astype(np.float32)
    error = np.frombuffer(filled, np.int16)[:80].astype(np.float32) - wanted[:80]
    assert rms(error) < 0.2 * rms(wanted)
    for _ in range(5):
        filled = decoder.conceal(160)
    assert rms(filled) == 0


@LAWS
def test_concealment_before_anything_is_silence(law: Law) -> None:
    assert rms(Decoder(law, 24000).conceal(480)) <= 8


@LAWS
def test_an_empty_payload_is_nothing(law: Law) -> None:
    assert Decoder(law, 24000).decode(b"") == b""
