"""Speech through the receive side, on networks that lose and delay it, in simulated time."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from stoi import aligned, stoi

from caller.voice import generated
from rtc.codecs.codec import CODECS, OPUS, Codec
from rtc.codecs.encoder_policy import Settings
from rtc.frame import frame_bytes
from rtc.jitter.buffer import Came
from rtc.rtp.packet import Packet
from rtc.vad.webrtc import WebrtcDetector
from transceiver.media.playout import Playout

RATE_HZ = 24000
COPIES = Settings(complexity=1, loss_percent=10)
Network = Callable[[int], float | None]


@cache
def speech() -> bytes:
    """Half a minute of speech at 24 kHz, in whole frames."""
    pcm = generated().pcm(RATE_HZ)
    pcm = pcm * (30 * 2 * RATE_HZ // len(pcm) + 1)
    return pcm[: 30 * 2 * RATE_HZ]


@cache
def payloads(codec: str, settings: Settings) -> list[bytes]:
    encoder = CODECS[codec].encoder(RATE_HZ, settings)
    return [encoder.encode(speech()[at : at + 960]) for at in range(0, len(speech()), 960)]


class Heard:
    """What an agent hears of the speech over ``network``, which says how late each packet is, or None."""

    def __init__(self, network: Network, codec: str = "opus/48000/2", settings: Settings = COPIES) -> None:
        which: Codec = CODECS[codec]
        self.frames: list[bytes] = []
        self.turns: list[str] = []
        self.playout = Playout(which, RATE_HZ, self._listen)
        self._detector = WebrtcDetector(RATE_HZ)
        self.stats = self.playout.stats
        step = which.clock_hz // 50
        arrivals = []
        for i, payload in enumerate(payloads(codec, settings)):
            late = network(i)
            if late is not None:
                arrivals.append((i * 0.02 + late, Packet(111, False, i & 0xFFFF, i * step, 1, payload)))
        arrivals.sort(key=lambda arrival: arrival[0])
        at = 0
        for tick in range(30 * 50 + 20):
            now = tick * 0.02 + 0.007
            while at < len(arrivals) and arrivals[at][0] <= now:
                self.playout.push(arrivals[at][1], arrivals[at][0])
                at += 1
            self.playout.tick(now)
            if not self.frames:
                self.began = tick + 1

    def _listen(self, pcm: bytes) -> bool:
        edge = self._detector.push(pcm)
        self.frames.append(pcm)
        if edge:
            self.turns.append(edge)
        return self._detector.voiced

    def judged(self) -> tuple[float, float]:
        """STOI and mouth-to-ear delay in ms, without the first five seconds."""
        clean = np.frombuffer(speech(), np.int16).astype(np.float64)[5 * RATE_HZ : 28 * RATE_HZ]
        heard = np.frombuffer(b"".join(self.frames), np.int16).astype(np.float64)
        heard = np.concatenate((np.zeros(getattr(self, "began", 0) * 480), heard))[5 * RATE_HZ :]
        x, y, late = aligned(clean, heard)
        return stoi(x, y, RATE_HZ), late * 1000 / RATE_HZ


def clean(i: int) -> float:
    return 0.0


def loses(share: float, seed: int = 1, jitter_ms: float = 0.0) -> Network:
    rng = random.Random(seed)
    return lambda i: None if rng.random() < share else rng.uniform(0, jitter_ms) / 1000


def test_a_clean_network_adds_a_few_milliseconds() -> None:
    score, delay_ms = Heard(clean).judged()
    assert score > 0.98
    assert delay_ms < 45


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tenth_lost_with_copies_is_understood_and_hardly_later(seed: int) -> None:
    _, before_ms = Heard(clean).judged()
    heard = Heard(loses(0.1, seed))
    score, delay_ms = heard.judged()
    print(f"STOI {score:.3f}, {delay_ms - before_ms:.0f} ms later, {dict(heard.stats)}")
    assert score >= 0.90
    assert delay_ms - before_ms <= 60
    # There are no copies of silence, which is two fifths of it, nor where two in a row are lost.
    assert heard.stats["fec"] >= 0.4 * (heard.stats["fec"] + heard.stats["concealed"])


def test_copies_are_worth_having() -> None:
    with_copies, _ = Heard(loses(0.1)).judged()
    without, _ = Heard(loses(0.1), settings=Settings()).judged()
    assert with_copies > without


def test_loss_and_jitter_together_are_understood() -> None:
    score, delay_ms = Heard(loses(0.1, jitter_ms=40)).judged()
    assert score >= 0.85
    assert delay_ms < 140


@pytest.mark.parametrize("codec", ["PCMU/8000", "PCMA/8000"])
def test_g711_is_heard_like_opus(codec: str) -> None:
    score, delay_ms = Heard(clean, codec).judged()
    assert score > 0.95
    assert delay_ms < 45
    lossy = Heard(loses(0.03), codec)
    assert lossy.judged()[0] > 0.85
    assert lossy.stats["malformed"] == 0


def test_every_tick_is_one_frame_from_the_first_packet_on() -> None:
    heard = Heard(loses(0.3, jitter_ms=100))
    assert {len(frame) for frame in heard.frames} == {960}
    assert len(heard.frames) >= 30 * 50
    assert heard.turns[:2] == ["started", "stopped"]


def test_a_copy_in_red_is_counted_as_such() -> None:
    frames: list[bytes] = []
    playout = Playout(OPUS, RATE_HZ, lambda pcm: bool(frames.append(pcm)))
    spoken = payloads("opus/48000/2", COPIES)
    packets = [Packet(111, False, i, 960 * i, 1, spoken[i]) for i in range(3)]
    playout.push(packets[0], 0.0)
    playout.push(packets[2], 0.04)
    assert playout.push(packets[1], 0.04, Came.COPY)
    assert not playout.push(packets[1], 0.04, Came.COPY)
    for tick in range(3):
        playout.tick(0.025 + tick * 0.02)
    assert playout.stats == {"heard": 2, "red": 1}
    assert len(frames) == 3


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("codec", list(CODECS))
def test_an_agent_hears_at_the_rate_that_it_asks_for(codec: str, rate_hz: int) -> None:
    frames: list[bytes] = []
    playout = Playout(CODECS[codec], rate_hz, lambda pcm: bool(frames.append(pcm)))
    step = CODECS[codec].clock_hz // 50
    for i, payload in enumerate(payloads(codec, Settings())[:50]):
        if i not in (20, 21):
            playout.push(Packet(111, False, i, step * i, 1, payload), i * 0.02)
        playout.tick(i * 0.02 + 0.01)
    assert {len(frame) for frame in frames} == {frame_bytes(rate_hz)}
    assert playout.stats["concealed"] == 2


def test_silence_goes_on_when_nothing_comes_any_more() -> None:
    frames: list[bytes] = []
    playout = Playout(OPUS, RATE_HZ, lambda pcm: bool(frames.append(pcm)))
    playout.push(Packet(111, False, 1, 960, 1, payloads("opus/48000/2", COPIES)[20]), 0.0)
    for tick in range(500):
        playout.tick(0.01 + tick * 0.02)
    assert len(frames) == 500
    assert frames[-1] == bytes(960)
