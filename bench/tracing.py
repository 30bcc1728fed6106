"""The cost of tracing beside media: how late frames are, and what a transceiver takes, without it and with every call
traced.

Calls speak with ``parrot`` on a transceiver of one process, whose exporter sends to an endpoint beside the callers, on
the other core. Both ways take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.harness.conditions import LOAD_CPU, SERVER_CPU, conditions, pin, say
from bench.harness.document import results_file, save
from lab.appliance import Appliance, Loopback, end

_PROCESS, _AGENT = "media-1", "parrot"
_LATE, _SPANS = ("firsthop_transceiver_late_seconds",), "firsthop_trace_spans_total"
_SETTLE_S = 5.0
_UP_S = 120.0


class _Endpoint(BaseHTTPRequestHandler):
    """Takes spans, and looks at none."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.tracing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30, help="how long each way is watched")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=results_file("tracing"))
    options = parser.parse_args()
    if missing := {LOAD_CPU, SERVER_CPU} - os.sched_getaffinity(0):
        raise SystemExit(f"tracing: callers and transceiver need a core each, and there is no core {missing}")
    figures: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    with _an_endpoint() as url:
        for _ in range(options.rounds):
            for way, endpoint in (("off", ""), ("on", url)):
                figures[way].append(measure(options.calls, options.seconds, endpoint))
    save({"run": conditions(agent=_AGENT, calls=options.calls, seconds=options.seconds), **figures}, options.json)
    print(markdown(figures))


def measure(calls: int, seconds: int, endpoint: str) -> dict[str, float]:
    """What one transceiver does with so many calls, traced where there is an ``endpoint``."""
    with tempfile.TemporaryDirectory(prefix="bench-tracing-") as folder:
        house = Appliance(Path(folder), agent=_AGENT, transceiver_cores=[SERVER_CPU])
        tracing = {"FIRSTHOP_TRACING__ENDPOINT": endpoint, "FIRSTHOP_TRACING__RATIO": "1"}
        house.environment = {"edge": tracing, "transceiver": tracing}
        with house:
            argv = [sys.executable, "-m", "firsthop", "call", house.url, "-n", str(calls), "--model", _AGENT]
            argv += ["--token-file", str(house.token_file), "--duration", "3600", "--json", "--quiet"]
            callers = Loopback().popen(pin(argv, LOAD_CPU), stdout=subprocess.DEVNULL)
            try:
                _wait(house, callers, calls)
                say(f"{calls} calls are up, {'traced' if endpoint else 'not traced'}; watching for {seconds} s")
                return _watched(house, seconds)
            finally:
                end(callers, 30)


def _watched(house: Appliance, seconds: int) -> dict[str, float]:
    late_ms: list[float] = []
    before, began = house.metrics(_PROCESS), time.monotonic()
    cpu_s = _cpu_s(house)
    for _ in range(seconds):
        time.sleep(1)
        late_ms.append(1e3 * house.metrics(_PROCESS)[_LATE])
    cpu_s, took_s = _cpu_s(house) - cpu_s, time.monotonic() - began
    after = house.metrics(_PROCESS)
    spans = {key[1]: after[key] - before.get(key, 0.0) for key in after if key[0] == _SPANS}
    return {
        "late_p99_ms_median": statistics.median(late_ms),
        "late_p99_ms_worst": max(late_ms),
        "share_of_a_core": cpu_s / took_s,
        "spans_a_second": spans.pop("sent", 0.0) / took_s,
        "spans_lost": sum(spans.values()),
    }


def _cpu_s(house: Appliance) -> float:
    used = house.children()[_PROCESS].cpu_times()
    return float(used.user + used.system)


def _wait(house: Appliance, callers: subprocess.Popen[Any], calls: int) -> None:
    until = time.monotonic() + _UP_S
    while house.metrics(_PROCESS).get(("firsthop_transceiver_sessions",)) != calls:
        if callers.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"tracing: {calls} calls do not come up")
        time.sleep(0.2)
    time.sleep(_SETTLE_S)


@contextmanager
def _an_endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:

        def serve() -> None:
            os.sched_setaffinity(0, {LOAD_CPU})  # of this thread, and of those that it starts
            server.serve_forever()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()


def markdown(figures: dict[str, list[dict[str, float]]]) -> str:
    """The medians over rounds as a table."""
    head = ("tracing", "late p99 ms, median / worst second", "share of a core", "spans a second", "spans lost")
    rows = [head, ("---",) * len(head)]
    for way, rounds in figures.items():
        of = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        late = f"{of['late_p99_ms_median']:.2f} / {of['late_p99_ms_worst']:.2f}"
        rest = f"{of['share_of_a_core']:.1%}", f"{of['spans_a_second']:.1f}", f"{of['spans_lost']:.0f}"
        rows.append((way, late, *rest))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    main()
