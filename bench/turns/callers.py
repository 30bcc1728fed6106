"""The callers of a benchmark, started in the lab: those who speak and wait for answers, and those who only listen for
frames that come too late."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.calls import voice
from bench.harness.conditions import LOAD_CPU, pin
from lab.appliance import Appliance
from lab.network import Lab

__all__ = ["converse", "listeners", "quantiles", "recorded"]

_RATE = 30  # new listeners a second
_SETTLE_S = 5.0
_ENDS_S = 60.0
_MORE_S = 120.0  # than they talk, before they are given up


def recorded(path: Path, rate_hz: int, pcm: bytes) -> None:
    """Writes mono PCM16 as the WAV file that callers say."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)


def converse(
    lab: Lab, appliance: Appliance, calls: int, seconds: float, wav: Path, agent: str = "parrot"
) -> dict[str, Any]:
    """Has ``calls`` callers say ``wav`` for so many seconds to ``agent``. Returns what ``bench.turns.client`` says.
    Ends the process where a call fails."""
    argv = [appliance.url, str(appliance.token_file), str(calls), str(seconds), str(wav), agent]
    client = lab.client.popen(
        pin([sys.executable, "-m", "bench.turns.client", *argv], LOAD_CPU), stdout=subprocess.PIPE
    )
    said, _ = client.communicate(timeout=seconds + _MORE_S)
    if client.returncode:
        raise SystemExit(f"turns: the client of {calls} calls of {agent} failed")
    measured: dict[str, Any] = json.loads(said)
    if measured["failed"]:
        raise SystemExit(
            f"turns: {len(measured['failed'])} of {calls} calls of {agent} failed: {measured['failed'][0]}"
        )
    return measured


@contextmanager
def listeners(lab: Lab, appliance: Appliance, calls: int, seconds: float) -> Iterator[dict[str, Any]]:
    """``calls`` calls of agent ``loopback`` for ``seconds``, whose frames have been counted when this ends: what
    ``bench.capacity.load`` says is in the dictionary then. Ends the process where they fail."""
    encoded = appliance.token_file.with_name("listeners.json")
    voice.encoded(voice.speech()).save(encoded)
    where = {"host": lab.edge.address, "url": appliance.url, "token": appliance.token, "agent": "loopback"}
    plan = {
        "protocol": "firsthop",
        "where": where,
        "host": lab.client.address,
        "voice": str(encoded),
        "echoes": False,
        "callers": calls,
        "rate": _RATE,
        "short_of": calls + 1,
        "settle": _SETTLE_S,
        "seconds": seconds - _SETTLE_S - calls / _RATE,
    }
    argv = pin([sys.executable, "-m", "bench.capacity.load"], LOAD_CPU)
    load = lab.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    counted: dict[str, Any] = {}
    try:
        assert load.stdin is not None
        load.stdin.write(json.dumps(plan))
        load.stdin.close()
        load.stdin = None
        yield counted
        said, _ = load.communicate(timeout=_ENDS_S)
        if load.returncode:
            raise SystemExit(f"turns: the {calls} calls beside failed")
        counted |= json.loads(said)
    finally:
        load.kill()
        load.wait()


def quantiles(samples: list[float], *which: int) -> dict[str, float]:
    """The quantiles of that name, such as 50 for ``p50``."""
    return {f"p{q}": float(np.percentile(samples, q)) for q in which}
