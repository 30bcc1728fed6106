"""The command ``python -m bench.relay``: it measures the relays side by side, and judges firsthop's edge against its
targets.

A repeat is every relay at every point, one right after the other and each freshly started, so that what else the
machine does falls on all of them. A figure is the median over repeats, and so is the ratio of two in one repeat. While
others use the machine, a run waits, and a run that they disturbed is made again, as far as there is patience.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness.comparison import compare
from bench.harness.conditions import conditions, debian_version, say
from bench.harness.options import base_parser, numbers
from bench.harness.undisturbed import Undisturbed
from bench.relay import report
from bench.relay.measure import Point, measure, saturation, worker_memory
from bench.relay.relays import RELAYS, RelayError, Site
from lab.links import set_checksum_offload_off
from lab.network import Lab

RATES = (10_000, 20_000, 50_000, 100_000, 200_000)
FLOWS = (100, 1, 1000, 5000)
SWEPT_AT = 20_000
MEMORY_FLOWS = 10_000
TRIES = 4
PATIENCE_S = 120.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)

    def run(lab: Lab, directory: Path) -> dict[str, Any]:
        _fill_checksums_in(lab)
        return Bench(Site(lab, directory), options).run()

    compare("relay", options, report, run, RelayError)


def _fill_checksums_in(lab: Lab) -> None:
    """Has those who answer leave nothing to a card, so that the client can look at what comes by any way."""
    lab.edge.inside(lambda: set_checksum_offload_off(lab.edge_interface))
    lab.transceiver.inside(lambda: set_checksum_offload_off("to-edge"))


class Bench:
    """All the runs of one invocation."""

    def __init__(self, site: Site, options: argparse.Namespace) -> None:
        self._site = site
        self._options = options
        self._began = time.monotonic()
        self._undisturbed = Undisturbed(PATIENCE_S if options.patience is None else options.patience, TRIES)

    def run(self) -> dict[str, Any]:
        options = self._options
        result: dict[str, Any] = {"run": _conditions(options)}
        if "saturation" not in options.skip:
            result["saturation"] = self._saturations()
        result["samples"] = self._rounds(result.get("saturation", {}))
        if "memory" not in options.skip and "firsthop" in options.only:
            say(f"firsthop: memory with {MEMORY_FLOWS:,} flows")
            result["memory"] = worker_memory(self._site, MEMORY_FLOWS)
        return result

    def _saturations(self) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for repeat in range(self._options.repeats):
            for relay in _rotated([relay for relay in self._options.only if relay not in report.NO_RELAY], repeat):
                one = self._undisturbed(partial(saturation, self._site, relay), lambda one: float(one["others"]))
                found.setdefault(relay, []).append(one)
                say(f"{repeat + 1} {relay:9} brings at most {one['achieved']:,} a second back ({one['limited_by']})")
        return {relay: sorted(all_, key=lambda one: one["achieved"])[len(all_) // 2] for relay, all_ in found.items()}

    def _rounds(self, saturations: dict[str, Any]) -> list[dict[str, Any]]:
        options = self._options
        swept_at = min(options.rates, key=lambda rate: abs(rate - SWEPT_AT))
        points = [Point(rate, options.flows[0]) for rate in options.rates]
        points += [Point(swept_at, flows) for flows in options.flows[1:]]
        of_relay = {
            relay: [*points, *(Point(round(one["achieved"] * share), options.flows[0]) for share in report.SHARES)]
            for relay, one in saturations.items()
        }
        samples: list[dict[str, Any]] = []
        for repeat in range(options.repeats):
            if samples and time.monotonic() - self._began > options.within:
                say(f"time is up after {repeat} of {options.repeats} repeats")
                break
            for i in range(len(points) + len(report.SHARES)):
                for relay in _rotated(options.only, repeat):
                    mine = of_relay.get(relay, points)
                    if i < len(mine):
                        share = report.SHARES[i - len(points)] if i >= len(points) else None
                        samples.append({"repeat": repeat, "share": share, **self._sample(repeat, relay, mine[i])})
        return samples

    def _sample(self, repeat: int, relay: str, point: Point) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            one = measure(self._site, relay, point, self._options.seconds)
            say(f"{repeat + 1} {relay:9} {point.rate:7,}/s {point.flows:5} flows: {report.line(one)}")
            return one

        one = self._undisturbed(once, lambda one: report.figures(one)["others"])
        return {"relay": relay, "rate": point.rate, "flows": point.flows, **one}


def _rotated(relays: list[str], by: int) -> list[str]:
    """The relays in another order, so that none is always the first after a pause."""
    return [relays[(i + by) % len(relays)] for i in range(len(relays))]


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    return conditions(
        versions={name: version for name in ("nginx", "coturn") if (version := debian_version(name))},
        seconds=options.seconds,
        repeats=options.repeats,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = base_parser("relay", __doc__ or "", RELAYS, seconds=2.5, repeats=3)
    parser.add_argument("--rates", type=numbers, default=list(RATES), help="datagrams a second, with commas between")
    parser.add_argument("--flows", type=numbers, default=list(FLOWS), help="the first at all rates, the others at one")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds, after which no repeat begins any more")
    parser.add_argument("--skip", action="append", default=[], choices=("saturation", "memory"), help="leave this out")
    options = parser.parse_args(arguments)
    whole = (list(RELAYS), list(RATES), list(FLOWS), list[str]())
    options.whole = (options.only, options.rates, options.flows, options.skip) == whole
    return options


if __name__ == "__main__":
    main()
