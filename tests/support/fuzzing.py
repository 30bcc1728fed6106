"""Inputs that are nearly good ones, as fuzzers change them."""

from __future__ import annotations

import asyncio
import io
import os
import random
import time
import wave
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

_ANSWERS_S, _LOOKS_S = 30.0, 0.02


def fresh_seed() -> int:
    """The seed of a fuzzer: that of the environment variable FUZZ_SEED, else in CI a new one each time, else always the
    same. It is printed, and pytest shows that where the test fails."""
    fresh = time.time_ns() if os.environ.get("CI") == "true" else 1
    seed = int(os.environ.get("FUZZ_SEED", fresh))
    print(f"FUZZ_SEED={seed}")
    return seed


def wav(channels: int = 1, rate: int = 16000) -> bytes:
    """A good WAV file, 96 bytes of silence in PCM16, to be changed."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(96))
    return made.getvalue()


def mutated(rng: random.Random, seed: bytes) -> bytes:
    """``seed`` with a few bytes changed, cut out, doubled or made up."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])])
            case 3:
                data[at : at + 2] = rng.choice([b"\x00\x00", b"\xff\xff", b"\x00\x01", b"\x80\x00"])
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 64)]
            case _:
                del data[at:]
    return bytes(data)


def grown(rng: random.Random, seed: bytes) -> bytes:
    """``seed`` with a piece of it repeated, up to 64 KiB: what costs more than its length shows."""
    at = rng.randrange(len(seed) + 1)
    piece = rng.choice(
        [seed[at : at + rng.randint(1, 40)], rng.choice([b"[", b"{}", b'"",', b"\\n", b"9", b",", b" "])]
    )
    times = ((64 << 10) - len(seed)) // max(len(piece), 1)
    return seed[:at] + piece * rng.choice([times, rng.randint(0, times)]) + seed[at:]


@dataclass(frozen=True)
class Request:
    """Bytes for a server of HTTP, of which ``kept`` stay as they are. A ``{length}`` in it is that of what follows; the
    server then has a whole request, and must answer."""

    kept: bytes
    changed: bytes

    def made(self, rng: random.Random) -> tuple[bytes, bool]:
        """The request with the rest mutated, and whether it must be answered."""
        change = grown if rng.random() < 0.05 else mutated
        changed = change(rng, self.changed)
        return self.kept.replace(b"{length}", b"%d" % len(changed)) + changed, b"{length}" in self.kept


async def hammer(address: tuple[str, int], requests: Sequence[Request], rng: random.Random, seconds: float) -> set[int]:
    """Sends mutated requests to a server, each on a connection of its own and a few at once, for so long and some
    hundreds at least. Returns the statuses of the answers. Raises TimeoutError or IncompleteReadError where there must
    be one and is none."""
    statuses: set[int] = set()
    until = time.monotonic() + seconds

    async def one() -> None:
        data, whole = rng.choice(requests).made(rng)
        reader, writer = await asyncio.open_connection(*address)
        try:
            with suppress(ConnectionError):
                writer.write(data)
                async with asyncio.timeout(_ANSWERS_S if whole else _LOOKS_S):
                    answer = await reader.readuntil(b"\r\n")
                    statuses.add(int(answer.split()[1]))
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as e:
            if whole:
                e.add_note(f"after {data[:8192]!r}")
                raise
        finally:
            writer.transport.abort()

    async def several() -> None:
        rounds = 0
        while rounds < 50 or time.monotonic() < until:
            rounds += 1
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(several())
    return statuses
