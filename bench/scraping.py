"""The cost of Prometheus: the share of a core that each process takes to answer a scrape a second, under calls."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, pin
from bench.harness.document import results_file, save
from lab.appliance import Appliance
from lab.network import Lab
from lab.prometheus import Prometheus

RESULTS = results_file("scraping")
MOST_SHARE = 0.005
_MODEL = "echo"
_SETTLE_S = 10.0


def main() -> None:
    """Measures, prints the shares, and writes them down."""
    parser = argparse.ArgumentParser(prog="bench.scraping", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60, help="how long scrapes are counted")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("scraping: needs root, for a lab of network namespaces")
    shares, held = measure(options.calls, options.seconds)
    for process, share in shares.items():
        verdict = "" if share <= MOST_SHARE else f"  more than {MOST_SHARE:.1%}"
        print(f"{process}: {share:.2%} of a core for a scrape a second, {held} calls{verdict}", flush=True)
    save(conditions(calls=held, seconds=options.seconds, shares=shares), RESULTS)


def measure(calls: int, seconds: int) -> tuple[dict[str, float], int]:
    """The share of a core of each process, and how many calls there were."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-scraping-")))
        lab = stack.enter_context(Lab())
        appliance = Appliance(folder, lab=lab, cores=[SERVER_CPU], transceiver_cores=[SERVER_CPU])
        metrics = f"{lab.transceiver.address}:9500"
        appliance.environment["transceiver"] = {
            "FIRSTHOP_TRANSCEIVER__METRICS": metrics,
            "FIRSTHOP_TRANSCEIVER__MAX_SESSIONS": str(2 * calls),
        }
        stack.enter_context(appliance)
        jobs = {
            "supervisor": ["127.0.0.1:9400"],
            "signaling": ["127.0.0.1:9401"],
            "worker": ["127.0.0.1:9402"],
            "transceivers' supervisor": [f"{lab.transceiver.address}:9500"],
            "transceiver": [f"{lab.transceiver.address}:9501"],
        }
        prometheus = stack.enter_context(Prometheus(lab.edge, folder / "prometheus", jobs))
        argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--token-file", str(appliance.token_file)]
        argv += ["--quiet", "--json", "-n", str(calls), "--model", _MODEL, "--duration", "3600"]
        client = lab.client.popen(pin(argv, LOAD_CPU), stdout=subprocess.DEVNULL)
        try:
            _wait(prometheus, calls)
            time.sleep(_SETTLE_S + seconds)
            held = _values(prometheus, "firsthop_transceiver_sessions")
            shares = _values(prometheus, f"rate(firsthop_scrape_cpu_seconds_total[{seconds}s])")
        finally:
            client.terminate()
            client.wait()
        return shares, int(sum(held.values()))


def _wait(prometheus: Prometheus, calls: int) -> None:
    until = time.monotonic() + 120
    while sum(_values(prometheus, "firsthop_transceiver_sessions").values()) < calls:
        if time.monotonic() > until:
            raise SystemExit(f"scraping: {calls} calls do not come up")
        time.sleep(0.5)


def _values(prometheus: Prometheus, expr: str) -> dict[str, float]:
    series: list[dict[str, Any]] = prometheus.query(expr)
    return {each["metric"]["job"]: float(each["value"][1]) for each in series}


if __name__ == "__main__":
    main()
