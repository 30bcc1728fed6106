"""The cost of keeping calls for the next process: how long writing a state takes, and what share of a core it is.

Calls talk to ``parrot``, with data channels, on a transceiver host of one process; the callers are on the other core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, say
from bench.harness.document import results_file, save
from lab.appliance import Appliance, Loopback, end

_NAME = "firsthop_transceiver_kept_time_seconds"
_PROCESS = "media-1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--agent", default="parrot")
    parser.add_argument("--judge", type=int, default=100, help="calls to which the share of a core is carried on")
    parser.add_argument("--json", type=Path, default=results_file("keeping"))
    options = parser.parse_args()
    if missing := {LOAD_CPU, SERVER_CPU} - os.sched_getaffinity(0):
        raise SystemExit(f"keeping: callers and transceiver need a core each, and there is no core {missing}")
    with tempfile.TemporaryDirectory(prefix="bench-keeping-") as directory:
        result = measure(Path(directory), options.calls, options.seconds, options.agent, options.judge)
    save({"run": conditions(agent=options.agent, seconds=options.seconds), **result}, options.json)
    print(markdown(result))


def measure(directory: Path, calls: int, seconds: float, agent: str, judge: int) -> dict[str, Any]:
    """What writing costs while that many calls talk."""
    with Appliance(directory, agent=agent, transceiver_cores=[SERVER_CPU]) as house:
        argv = [sys.executable, "-m", "firsthop", "call", house.url, "-n", str(calls), "--model", agent]
        argv += ["--token-file", str(house.token_file), "--duration", "3600", "--json", "--quiet"]
        callers = Loopback().popen(["taskset", "--cpu-list", str(LOAD_CPU), *argv], stdout=subprocess.DEVNULL)
        try:
            while house.metrics(_PROCESS).get(("firsthop_transceiver_kept_calls",)) != calls:
                if callers.poll() is not None:
                    raise SystemExit("keeping: the callers have ended")
                time.sleep(0.1)
            say(f"{calls} calls are kept; measuring for {seconds:.0f} s")
            before, began = house.metrics(_PROCESS), time.monotonic()
            cpu = sum(house.children()[_PROCESS].cpu_times()[:2])
            time.sleep(seconds)
            after, took_s = house.metrics(_PROCESS), time.monotonic() - began
            cpu = sum(house.children()[_PROCESS].cpu_times()[:2]) - cpu
        finally:
            end(callers, 30)

    def gained(*key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    writes, busy_s = gained(f"{_NAME}_count", "state"), gained(f"{_NAME}_sum", "state")
    return {
        "calls": calls,
        "writes_a_second_and_call": writes / calls / took_s,
        "us_a_write": 1e6 * busy_s / max(1.0, writes),
        "share_of_a_core": busy_s / took_s,
        "judged_at": judge,
        "share_at_that": busy_s / took_s * judge / calls,
        "process_share_of_a_core": cpu / took_s,
        "not_written": {key[1]: gained(*key) for key in after if key[0] == "firsthop_transceiver_kept_total"},
    }


def markdown(result: dict[str, Any]) -> str:
    """The figures as a table."""
    head = ("calls", "writes a second and call", "a write", "share of a core", f"at {result['judged_at']} calls")
    row = (
        str(result["calls"]),
        f"{result['writes_a_second_and_call']:.2f}",
        f"{result['us_a_write']:.0f} us",
        f"{result['share_of_a_core']:.2%}, of {result['process_share_of_a_core']:.1%} that the process used",
        f"{result['share_at_that']:.2%}",
    )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), row))


if __name__ == "__main__":
    main()
