"""The simulation of placement: a day of calls on a fleet with stale reports, deaths and drains, placed by firsthop's
own code and by four simpler ways; and what a choice costs. It needs one core, and neither root nor network."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from bench.harness.conditions import conditions, say
from bench.harness.document import results_file, save
from bench.harness.options import names_of
from bench.placement import report
from bench.placement.cost import cost
from bench.placement.simulation import Plan, simulate
from bench.placement.strategies import STRATEGIES
from bench.placement.world import make_world

RESULTS = results_file("placement")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.placement", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=names_of(STRATEGIES), default=list(STRATEGIES), help="some, commas between")
    parser.add_argument("--transceivers", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=100)
    parser.add_argument("--day", type=float, default=240.0, help="seconds into which a day is compressed")
    parser.add_argument("--call", type=float, default=100.0, help="seconds that a call lasts on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="simulate nothing, write the last figures again")
    parser.add_argument("--json", type=Path, help="where the figures go instead; no document is changed then")
    options = parser.parse_args()
    if options.again:
        report.into_documents(json.loads(RESULTS.read_text()))
        return
    world = make_world(options.transceivers, options.edges, options.seed)
    plan = Plan(options.day, options.call, seed=options.seed)
    took = cost(options.seed)
    rows = []
    for name in options.only:
        strategy, began = STRATEGIES[name](world, options.seed), time.monotonic()
        day = simulate(world, strategy, plan, lambda so_far, name=name: say(f"{name}: {100 * so_far:.0f} %"))  # type: ignore[misc]
        rows.append(report.figures(name, day, time.monotonic() - began))
        print(report.line(rows[-1]), flush=True)
    result = conditions(
        transceivers=options.transceivers,
        edges=options.edges,
        day_s=plan.day_s,
        call_s=plan.call_s,
        cost=took,
        rows=rows,
    )
    if options.json:
        save(result, options.json)
        print(report.markdown(result))
        return
    save(result, RESULTS)
    report.into_documents(result)


if __name__ == "__main__":
    main()
