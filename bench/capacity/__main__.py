"""The command ``python -m bench.capacity``: what a transceiver lets in, beside the best number to configure.

For each agent three times as many callers come as can be served, and the transceiver measures for itself. Then the same
callers meet fixed numbers of calls, from that one up or down, until the largest is found that keeps its frames on
schedule. Each run has servers of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.calls import voice
from bench.calls.servers import MOST_CALLS, ServerError, Site, firsthop
from bench.capacity import report
from bench.harness.comparison import compare
from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, pin, say
from bench.harness.cpu import Watch
from bench.harness.options import base_parser
from bench.harness.speed import Speed
from bench.harness.undisturbed import Undisturbed
from lab.network import Lab

AGENTS = ("echo", "loopback", "parrot")
FIRST_GUESS = 60  # calls of a core, before the first run
OFFERED = 3
STEP = 1.15
MOST_STEPS = 6
RATE = 30  # new callers a second
SHORT_OF = 5  # one caller of so many makes short calls
SETTLE_S = 8.0
TRIES, PATIENCE_S = 2, 90.0
ENDS_S = 60.0
Sample = dict[str, Any]


class Bench:
    """All the runs of one invocation."""

    def __init__(self, site: Site, options: argparse.Namespace) -> None:
        self._site = site
        self._options = options
        self._undisturbed = Undisturbed(float(options.patience), TRIES)
        self._voice = site.directory / "voice.json"
        voice.encoded(voice.speech()).save(self._voice)
        self._until = time.monotonic() + options.minutes * 60

    def run(self) -> dict[str, Any]:
        options = self._options
        samples: list[Sample] = []
        for at, agent in enumerate(options.only):
            # What is left of the time is for those that are left.
            share = (self._until - time.monotonic()) / (len(options.only) - at)
            samples += self._agent(agent, time.monotonic() + share)
        return {"run": conditions(seconds=options.seconds, offered=OFFERED), "samples": samples}

    def _agent(self, agent: str, until: float) -> list[Sample]:
        measured = self._sample(agent, None, self._options.guess * OFFERED)
        samples = [measured]
        if "failed" in measured or time.monotonic() > until:
            return samples
        # As many as three times what was found, where the guess was too low for that.
        if (wanted := round(OFFERED * measured["calls"])) > 1.2 * measured["callers"]:
            samples = [measured := self._sample(agent, None, wanted)]
        # What was let in kept its frames as a rule, so the search begins a step further up.
        most = max(1, round(STEP * measured["calls"]))
        one = self._sample(agent, most, 2 * most)
        samples.append(one)
        up = report.keeps(one)
        for _ in range(MOST_STEPS):
            if time.monotonic() > until or most <= 1:
                break
            most = round(most * STEP) if up else round(most / STEP)
            samples.append(self._sample(agent, most, 2 * most))
            if report.keeps(samples[-1]) != up:
                break
        return samples

    def _sample(self, agent: str, most: int | None, callers: int) -> Sample:
        return self._undisturbed(partial(self._once, agent, most, callers), report.disturbed)

    def _once(self, agent: str, most: int | None, callers: int) -> Sample:
        one: Sample = {"agent": agent, "fixed": most, "callers": callers}
        try:
            if most is None:
                server = firsthop(self._site, agent, max_sessions=MOST_CALLS, capacity="measured")
            else:
                server = firsthop(self._site, agent, max_sessions=most, capacity="fixed")
            with server as running:
                plan = {
                    "protocol": running.protocol,
                    "where": running.where,
                    "host": self._site.lab.client.address,
                    "voice": str(self._voice),
                    "echoes": agent == "echo",
                    "callers": callers,
                    "rate": RATE,
                    "short_of": SHORT_OF,
                    "settle": self._options.settle,
                    "seconds": self._options.seconds,
                }
                one |= self._load(plan, running.processes)
        except ServerError as error:
            one["failed"] = str(error)
        say(report.line(one))
        return one

    def _load(self, plan: dict[str, Any], processes: Any) -> Sample:
        argv = pin([sys.executable, "-m", "bench.capacity.load"], LOAD_CPU)
        log = self._site.log_file("load")
        with log.open("w") as errors:
            load = self._site.lab.client.popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        watch = Watch({"relay": processes(), "backend": (), "load": [load.pid]}, SERVER_CPU)
        within_s = plan["callers"] / RATE + plan["settle"] + plan["seconds"] + ENDS_S
        try:
            with Speed(SERVER_CPU) as speed:
                said, _ = load.communicate(json.dumps(plan), timeout=within_s)
        except subprocess.TimeoutExpired:
            raise ServerError("the load did not end") from None
        finally:
            load.kill()
            load.wait()
        if load.returncode:
            raise ServerError(f"the load failed: {(log.read_text().strip().splitlines() or ['no word'])[-1]}")
        usage = watch.usage()
        one: Sample = json.loads(said)
        slowest = speed.between(one.pop("begin"), one.pop("end"))
        return {**one, "others": round(max(0.0, usage.others) / usage.wall, 4), "slowest": round(slowest, 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = base_parser("capacity", __doc__ or "", AGENTS, seconds=8.0, repeats=1)
    parser.add_argument("--guess", type=int, default=FIRST_GUESS, help="calls of a core, before the first run")
    parser.add_argument(
        "--settle", type=float, default=SETTLE_S, help="seconds from the last caller to the first figure"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no further number is tried")
    options = parser.parse_args(arguments)
    options.whole = options.only == list(AGENTS)
    if options.patience is None:
        options.patience = PATIENCE_S if options.whole else 0.0

    def run(lab: Lab, directory: Path) -> dict[str, Any]:
        return Bench(Site(lab, directory), options).run()

    compare("capacity", options, report, run, ServerError)


if __name__ == "__main__":
    main()
