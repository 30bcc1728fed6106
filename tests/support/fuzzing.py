"""Inputs that are nearly good ones, as fuzzers change them."""

from __future__ import annotations

import os
import random
import time


def fresh_seed() -> int:
    """The seed of a fuzzer: that of the environment variable FUZZ_SEED, else in CI a new one each time, else always the
    same. It is printed, and pytest shows that where the test fails."""
    fresh = time.time_ns() if os.environ.get("CI") == "true" else 1
    seed = int(os.environ.get("FUZZ_SEED", fresh))
    print(f"FUZZ_SEED={seed}")
    return seed


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
