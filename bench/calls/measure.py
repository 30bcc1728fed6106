"""One measurement: a server that has just been started, so many calls, and what both used meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.calls.servers import LOAD_CPU, SERVER_CPU, SERVERS, Running, ServerError, Site
from bench.calls.usage import ServerWatch
from bench.relay.cpu import Watch
from bench.relay.relays import pin

__all__ = ["Saying", "load", "measure"]

WARM_UP_S = 1.5


@dataclass(frozen=True, slots=True)
class Saying:
    """How one call says its voice: the file of its packets, what share of them is lost on the way to the server, how
    many seconds each is held up at most, and whether it offers to send again what the server asks for."""

    voice: str
    loss: float = 0.0
    jitter_s: float = 0.0
    nack: bool = False


def measure(site: Site, server: str, voice: Path, calls: int, seconds: float) -> dict[str, Any]:
    """What ``calls`` calls heard, and what the server used. Raises ServerError where they did not come up."""
    with SERVERS[server](site) as running:
        return load(site, running, [Saying(str(voice))] * calls, seconds)


def load(
    site: Site,
    running: Running,
    sayings: Sequence[Saying],
    seconds: float,
    *,
    spread: bool = True,
    warm_up: float = WARM_UP_S,
    pcm: Path | None = None,
) -> dict[str, Any]:
    """With ``spread`` each call begins elsewhere in its voice. What each heard goes to ``pcm`` with its number."""
    plan = {
        "protocol": running.protocol,
        "where": running.where,
        "channel": running.channel,
        "host": site.lab.client.address,
        "calls": [asdict(saying) for saying in sayings],
        "warm_up": warm_up,
        "seconds": seconds,
        "spread": spread,
        "pcm": str(pcm) if pcm else None,
    }
    process = site.lab.client.popen(
        pin([sys.executable, "-m", "bench.calls.load"], LOAD_CPU),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(plan))
            process.stdin.close()
            _await(process, "begin")
            everybody = Watch({"relay": running.processes(), "backend": (), "load": [process.pid]}, LOAD_CPU)
            watch = ServerWatch(running.processes, SERVER_CPU)
            _await(process, "end")
            cpu, usage = watch.usage(), everybody.usage()
            assert process.stdout is not None
            figures = json.loads(process.stdout.readline() or "null")
            if figures is None:
                raise ServerError(f"the load ended early: {_last_words(process)}")
        finally:
            process.kill()
    cpu |= {"others": round(max(0.0, usage.others), 4), "load": round(usage.load, 4)}
    return {**figures, "cpu": cpu}


def _await(process: subprocess.Popen[str], mark: str) -> None:
    assert process.stdout is not None
    if (line := process.stdout.readline().strip()) != mark:
        raise ServerError(line or _last_words(process))


def _last_words(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return (process.stderr.read().strip().splitlines() or ["no word"])[-1]
