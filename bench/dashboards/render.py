"""Pictures of the dashboards, drawn with matplotlib from their JSON and what a Prometheus has seen of calls in the lab.

Grafana would draw them otherwise; the queries and the data are the same.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.dashboards.boards import DASHBOARDS
from lab.appliance import Appliance
from lab.network import Lab
from lab.prometheus import Prometheus

_ROOT = Path(__file__).parents[2]
_PICTURES = _ROOT / "docs/dashboards"
_WIDE, _CELL_IN = 24, (0.75, 0.42)  # inches of a cell of Grafana's grid
_UNITS = {"s": "s", "percentunit": "share", "bytes": "bytes", "pps": "packets/s", "cps": "1/s"}
_MOST_SERIES = 12
_GOODBYE_S = 5.0  # that hanging up takes: pictures end before
_BATCHES_S = 5.0  # between calls, so that what is only counted when they come up is a line and no dot


def main() -> None:
    """Places calls in the lab, lets Prometheus watch them, and draws what it saw."""
    parser = argparse.ArgumentParser(prog="bench.dashboards.render", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="how long calls are watched")
    parser.add_argument("--calls", type=int, default=10)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-dashboards-")))
        lab = stack.enter_context(Lab())
        appliance = Appliance(folder, lab=lab, cores=[0], transceiver_cores=[1])
        appliance.environment["transceiver"] = {"FIRSTHOP_TRANSCEIVER__METRICS": f"{lab.transceiver.address}:9500"}
        stack.enter_context(appliance)
        jobs = {
            "firsthop-edge": [f"127.0.0.1:{port}" for port in (9400, 9401, 9402)],
            "firsthop-transceiver": [f"{lab.transceiver.address}:{port}" for port in (9500, 9501)],
        }
        prometheus = stack.enter_context(Prometheus(lab.edge, folder / "prometheus", jobs))
        _wait_for(prometheus, sum(map(len, jobs.values())))
        began = time.time()
        _call(lab, appliance, options.calls, options.seconds)
        ended = time.time() - _GOODBYE_S
        says = (
            f"{options.calls} calls in the lab, {time.strftime('%Y-%m-%d', time.gmtime())}; drawn with matplotlib "
            "from the dashboard's JSON and Prometheus's data, not by Grafana"
        )
        _PICTURES.mkdir(exist_ok=True)
        for dashboard in DASHBOARDS:
            board = dashboard.json()
            picture(board, prometheus, began, ended, says, _PICTURES / f"{dashboard.uid}.png")


def _wait_for(prometheus: Prometheus, targets: int) -> None:
    """Waits until so many targets were scraped twice: a rate needs two values."""
    until = time.monotonic() + 60
    expr = "count(count_over_time(firsthop_process_id[1m]) >= 2)"
    while not (found := prometheus.query(expr)) or int(found[0]["value"][1]) < targets:
        if time.monotonic() > until:
            raise SystemExit("Prometheus does not scrape all processes")
        time.sleep(0.2)


def _call(lab: Lab, appliance: Appliance, calls: int, seconds: int) -> None:
    """Places the calls one after the other; all of them last until ``seconds`` are over."""
    argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--token-file", str(appliance.token_file)]
    argv += ["--quiet", "--json", "--model", "parrot", "--duration"]
    until = time.monotonic() + seconds
    placed = []
    for _ in range(calls):
        left = max(10, round(until - time.monotonic()))
        placed.append(lab.client.popen([*argv, str(left)], stdout=subprocess.DEVNULL))
        time.sleep(min(_BATCHES_S, seconds / 2 / calls))
    for client in placed:
        if client.wait(seconds + 120):
            print("a call was not good: its machine has other work", file=sys.stderr)


def picture(board: dict[str, Any], prometheus: Prometheus, start: float, end: float, says: str, path: Path) -> None:
    """Draws a dashboard, as it would be seen from ``start`` to ``end`` (Unix time), into ``path``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tall = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = plt.figure(figsize=(_WIDE * _CELL_IN[0], (tall + 2) * _CELL_IN[1]), dpi=60)
    grid = figure.add_gridspec(
        tall, _WIDE, hspace=7, wspace=9, top=1 - 2.6 / (tall + 2), bottom=0.03, left=0.08, right=0.99
    )
    figure.suptitle(board["title"], x=0.02, ha="left", fontsize=16, y=1 - 0.4 / (tall + 2))
    figure.text(0.02, 1 - 1.4 / (tall + 2), says, fontsize=9, color="#666666")
    for panel in board["panels"]:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        axes.set_title(panel["title"], fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        _DRAW[panel["type"]](axes, panel, prometheus, start, end)
    figure.savefig(path)
    plt.close(figure)


def _lines(axes: Any, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    drawn = 0
    for target in panel["targets"]:
        for series in prometheus.over(_expr(target), start, end, 1.0):
            points = [(float(at) - start, float(value)) for at, value in series["values"] if value != "NaN"]
            if points and (any(value for _, value in points) or drawn == 0) and drawn < _MOST_SERIES:
                axes.plot(*zip(*points, strict=True), linewidth=1, label=_name(target, series["metric"]))
                drawn += 1
    axes.set_ylim(bottom=0)
    axes.set_ylabel(_UNITS.get(panel["fieldConfig"]["defaults"]["unit"], ""), fontsize=7)
    if drawn:
        axes.legend(fontsize=6, loc="upper left", ncols=2, framealpha=0.6)
    else:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes, color="#999999")


def _number(axes: Any, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    found = prometheus.query(_expr(panel["targets"][0]), end)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    value = float(found[0]["value"][1]) if found else float("nan")
    text = f"{100 * value:.2g} %" if unit == "percentunit" else f"{value:.3g}"
    axes.axis("off")
    axes.text(0.5, 0.4, text, ha="center", va="center", fontsize=20, transform=axes.transAxes)


def _bars(axes: Any, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float) -> None:
    rows = []
    for target in panel["targets"]:
        for series in prometheus.query(_expr(target), end):
            rows.append((_name(target, series["metric"]), float(series["value"][1])))
    rows = sorted(rows, key=lambda row: row[1], reverse=True)[:_MOST_SERIES][::-1]
    axes.barh([name for name, _ in rows], [value for _, value in rows])
    axes.set_xlabel(_UNITS.get(panel["fieldConfig"]["defaults"]["unit"], ""), fontsize=7)


_DRAW = {"timeseries": _lines, "stat": _number, "bargauge": _bars}


def _expr(target: dict[str, Any]) -> str:
    expr: str = target["expr"]
    return expr.replace("$instance", ".*").replace("$__rate_interval", "10s")


def _name(target: dict[str, Any], labels: dict[str, str]) -> str:
    legend: str = target["legendFormat"]
    if legend == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__") or "all"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


if __name__ == "__main__":
    main()
