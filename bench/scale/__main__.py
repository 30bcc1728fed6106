"""The command ``python -m bench.scale``: it measures one worker and one transceiver on the first of their cores, and
then as many as there are cores for them, with as many calls for each transceiver.

In the lab media goes past the workers, and then by them; over loopback, where there is no XDP, by them alone. Load has
cores of its own, or shares them: then it is as dense in both layouts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench.calls import voice
from bench.harness.conditions import conditions, say
from bench.harness.document import save
from bench.harness.options import names_of, numbers
from bench.scale import report
from bench.scale.measure import Layout, ScaleError, measure
from lab.network import Lab, LabError

WAYS = ("auto", "off")


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    samples: list[dict[str, Any]] = []
    began = time.monotonic()
    try:
        with (
            Lab() if options.where == "lab" else nullcontext() as lab,
            tempfile.TemporaryDirectory(prefix="bench-scale-") as folder,
        ):
            said = Path(folder, "voice.json")
            voice.encoded(voice.speech()).save(said)
            for repeat in range(options.repeats):
                for at, layout in enumerate(layouts(options)):
                    if samples and time.monotonic() - began > options.within:
                        break
                    place = Path(folder, f"{repeat}-{at}")
                    place.mkdir()
                    one = measure(place, lab, layout, said, options.calls, options.seconds)
                    say(f"{repeat + 1} {layout.express:4} {layout.name}: {report.line(one)}")
                    samples.append({"repeat": repeat, "express": layout.express, "layout": layout.name, **one})
    except (LabError, ScaleError) as error:
        raise SystemExit(f"scale: {error}") from None
    say(f"took {time.monotonic() - began:.0f} s")
    where = {name: getattr(options, name) for name in ("where", "workers", "transceivers", "load", "calls")}
    run = conditions(**where, seconds=options.seconds, repeats=options.repeats)
    points = report.medians(samples)
    result = {"run": run, "samples": samples, "points": points, "targets": report.targets(points)}
    if options.json:
        save(result, options.json)
    print(report.markdown(result))


def layouts(options: argparse.Namespace) -> list[Layout]:
    """Both layouts by each way; the load of one transceiver is on the first of its cores."""
    share = max(1, len(options.load) // len(options.transceivers))
    workers, transceivers, load = map(tuple, (options.workers, options.transceivers, options.load))
    return [
        layout
        for way in (options.ways if options.where == "lab" else WAYS[1:])
        for layout in (
            Layout(workers[:1], transceivers[:1], load[:share], way),
            Layout(workers, transceivers, load, way),
        )
    ]


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="bench.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--where", choices=("lab", "loopback"), default="lab", help="the lab needs root")
    for name in ("workers", "transceivers", "load"):
        parser.add_argument(f"--{name}", type=numbers, default=cores[:2], help="cores, with commas between")
    parser.add_argument("--ways", type=names_of(WAYS), default=list(WAYS), help=f"some of {','.join(WAYS)}, in the lab")
    parser.add_argument("--calls", type=int, default=15, help="for each transceiver")
    parser.add_argument("--seconds", type=float, default=5.0, help="of calls for each figure")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--within", type=float, default=600.0, help="seconds, after which nothing is begun any more")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
