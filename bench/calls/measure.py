"""One measurement: a server that has just been started, so many calls, and what both used meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.calls.servers import SERVERS, Running, ServerError, Site
from bench.calls.usage import ServerWatch
from bench.harness.conditions import LOAD_CPU, SERVER_CPU, pin
from bench.harness.cpu import Watch

__all__ = ["Saying", "load", "measure", "setups", "setups_beside"]

WARM_UP_S = 1.5
NEWCOMERS_S = 3.0
HANG_UP_S = 1.0  # those of one rate are gone before the next


@dataclass(frozen=True, slots=True)
class Saying:
    """The way in which a call says its voice: the file of its packets, the share of them that is lost on the way to the
    server, how many seconds each is held up at most, and whether the client offers to send again what the server asks
    for."""

    voice: str
    loss: float = 0.0
    jitter_s: float = 0.0
    nack: bool = False


def measure(site: Site, server: str, voice: Path, calls: int, seconds: float) -> dict[str, Any]:
    """Runs ``calls`` calls, and returns what they heard and what the server used. Raises ServerError where they did not
    come up."""
    with SERVERS[server](site) as running:
        return load(site, running, [Saying(str(voice))] * calls, seconds)


def setups(site: Site, server: str, rates: Sequence[int]) -> list[dict[str, Any]]:
    """The time that new calls take at each of these ``rates`` a second, while nobody talks."""
    rows = []
    with SERVERS[server](site) as running:
        for rate in rates:
            with _newcomers(site, running, rate) as newcomers:
                rows.append({"server": server, "rate": rate, "talking": 0, **newcomers()})
            time.sleep(HANG_UP_S)
    return rows


def setups_beside(site: Site, server: str, rate: int, voice: Path, talking: int) -> dict[str, Any]:
    """The same while others talk, and what these hear meanwhile."""
    with SERVERS[server](site) as running, _newcomers(site, running, rate) as newcomers:
        new: dict[str, Any] = {}
        talk = load(
            site, running, [Saying(str(voice))] * talking, NEWCOMERS_S, while_talking=lambda: new.update(newcomers())
        )
    heard = {"lost": talk["lost"] / talk["sent"], "round_trip_ms": talk["round_trip_ms"]}
    return {"server": server, "rate": rate, "talking": talking, **new, "heard": heard}


def load(
    site: Site,
    running: Running,
    sayings: Sequence[Saying],
    seconds: float,
    *,
    spread: bool = True,
    warm_up: float = WARM_UP_S,
    pcm: Path | None = None,
    while_talking: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Runs the load. With ``spread`` each call begins elsewhere in its voice. What each heard goes to ``pcm`` with its
    number. ``while_talking`` is called when all of them talk."""
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
    process = _python(site, "bench.calls.load")
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(plan))
            process.stdin.close()
            _await(process, "begin")
            everybody = Watch({"relay": running.processes(), "backend": (), "load": [process.pid]}, LOAD_CPU)
            watch = ServerWatch(running.processes, SERVER_CPU)
            while_talking()
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


@contextmanager
def _newcomers(site: Site, running: Running, rate: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Starts a process that stands by. The function that is yielded lets it begin and returns its figures."""
    plan: dict[str, Any] = {"protocol": running.protocol, "where": running.where, "host": site.lab.client.address}
    plan |= {"rate": rate, "count": round(rate * NEWCOMERS_S)}
    with _python(site, "bench.calls.newcomers") as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def say(line: str) -> None:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()

        def begin() -> dict[str, Any]:
            say("begin")
            assert process.stdout is not None
            figures: dict[str, Any] | None = json.loads(process.stdout.readline() or "null")
            if figures is None:
                raise ServerError(_last_words(process))
            return figures

        try:
            say(json.dumps(plan))
            _await(process, "ready")
            yield begin
        finally:
            process.kill()


def _python(site: Site, module: str) -> subprocess.Popen[str]:
    """Starts a process of the load."""
    return site.lab.client.popen(
        pin([sys.executable, "-m", module], LOAD_CPU),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _await(process: subprocess.Popen[str], mark: str) -> None:
    assert process.stdout is not None
    if (line := process.stdout.readline().strip()) != mark:
        raise ServerError(line or _last_words(process))


def _last_words(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return (process.stderr.read().strip().splitlines() or ["no word"])[-1]
