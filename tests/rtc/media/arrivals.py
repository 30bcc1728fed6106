"""Streams of packets as networks deliver them, played through a jitter buffer by a clock of 20 ms. All simulated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

from rtc.jitter.buffer import COMFORT, CONCEAL, EXPAND, NOTHING, PLAY, RECOVER, SHORTEN, JitterBuffer
from rtc.rtp.packet import Packet

SPOKEN, COPIED, DTX = b"s", b"c", b"d"  # the first byte of a payload; the second is its length in units of 10 ms
NAMES = {PLAY: "play", SHORTEN: "play", RECOVER: "recover", CONCEAL: "conceal", EXPAND: "expand", COMFORT: "comfort"}
Arrival = tuple[float, Packet]


def payload(kind: bytes = SPOKEN, ms: int = 20) -> bytes:
    body = kind + bytes([ms // 10])
    return body if kind == DTX else body + b"-"


def stream(
    count: int,
    *,
    ms: int = 20,
    delay: Callable[[int], float | None] = lambda i: 0.05,
    start: float = 1000.0,
    sequence: int = 100,
    timestamp: int = 5000,
    ppm: float = 0.0,
    kind: bytes = SPOKEN,
    ssrc: int = 1,
) -> list[Arrival]:
    """The arrivals of ``count`` packets of ``ms``, each after its ``delay`` in seconds, or never; in the order in which
    they come."""
    out = []
    for i in range(count):
        late = delay(i)
        if late is not None:
            packet = Packet(
                111, False, (sequence + i) & 0xFFFF, (timestamp + i * ms * 48) & 0xFFFFFFFF, ssrc, payload(kind, ms)
            )
            out.append((start + i * ms / 1000 * (1 + ppm / 1e6) + late, packet))
    return sorted(out, key=lambda arrival: arrival[0])


def uniform(most_ms: float, seed: int = 1) -> Callable[[int], float]:
    rng = random.Random(seed)
    return lambda i: 0.05 + rng.uniform(0, most_ms) / 1000


def lossy(share: float, seed: int = 1, jitter_ms: float = 0) -> Callable[[int], float | None]:
    rng = random.Random(seed)
    return lambda i: None if rng.random() < share and i else 0.05 + rng.uniform(0, jitter_ms) / 1000


class Played:
    """The outcome of ``arrivals``: ``actions`` of each 20 ms, ``waited_ms`` of each packet played from its sending on
    (by sequence number), ``counts`` of actions, of what ``push`` refused, and of frames left out."""

    def __init__(
        self,
        arrivals: Iterable[Arrival],
        *,
        seconds: float = 0.0,
        phase: float = 0.007,
        quiet: Callable[[float], bool] = lambda now: False,
        buffer: JitterBuffer | None = None,
    ) -> None:
        self.buffer = buffer or JitterBuffer(48000, lambda p: p[1] * 480, lambda p: p[:1] == COPIED)
        self.counts: Counter[str] = Counter()
        self.actions: list[tuple[float, str]] = []
        self.at: dict[int, float] = {}
        self.order: list[int] = []
        self.held_ms: list[tuple[float, float]] = []  # when played, and how long after the packet came
        waiting = list(arrivals)
        self.came = {packet.sequence: at for at, packet in waiting}
        by_payload_of = {packet.sequence: packet for _, packet in waiting}
        start = waiting[0][0] - 0.1 + phase
        end = waiting[-1][0] + 0.3 if not seconds else waiting[0][0] + seconds
        tick, have, i = 0, 0, 0
        while (now := start + tick * 0.02) < end:
            tick += 1
            while i < len(waiting) and waiting[i][0] <= now:
                why = self.buffer.push(waiting[i][1], waiting[i][0])
                self.counts[why or "taken"] += 1
                i += 1
            for _ in range(10):
                if have >= 960:
                    break
                before = set(self.buffer._held)
                action = self.buffer.pop(now, quiet(now))
                if action == NOTHING:
                    self.counts["nothing"] += 1
                    break
                self.counts[NAMES[action]] += 1
                self.actions.append((now, NAMES[action]))
                if action in (PLAY, SHORTEN):
                    (sequence,) = before - set(self.buffer._held)
                    self.order.append(sequence)
                    self.at[sequence] = now
                    self.held_ms.append((now, (now - self.came[sequence]) * 1000))
                    if action == SHORTEN and (self.buffer.urgent or quiet(now)):
                        self.counts["left out"] += 1
                        continue
                    have += by_payload_of[sequence].payload[1] * 480
                else:
                    have += self.buffer.ticks
            have = max(have - 960, 0)

    def held_after(self, seconds: float) -> list[float]:
        """The time that packets were held, without those played in the first ``seconds``."""
        begin = self.held_ms[0][0] + seconds
        return [held for at, held in self.held_ms if at >= begin]

    def delays_ms(self, arrivals: list[Arrival], sent: Callable[[Packet], float]) -> list[float]:
        return [(self.at[p.sequence] - sent(p)) * 1000 for _, p in arrivals if p.sequence in self.at]
