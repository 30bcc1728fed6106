"""The main loop of a benchmark that compares firsthop with others in the lab."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bench.harness.conditions import say, take_load_cpu
from bench.harness.document import results_file, save
from lab.network import Lab, LabError

__all__ = ["Report", "compare"]


class Report(Protocol):
    """The interface of a benchmark's report."""

    def medians(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One row for each of those that are compared and each load."""

    def targets(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """The targets of firsthop, as ``bench.harness.targets`` has them."""

    def markdown(self, result: dict[str, Any]) -> str:
        """Targets and figures as tables."""

    def into_documents(self, result: dict[str, Any]) -> None:
        """Writes tables and plot into the documents."""


def compare(
    name: str,
    options: argparse.Namespace,
    report: Report,
    run: Callable[[Lab, Path], dict[str, Any]],
    failures: type[RuntimeError],
) -> None:
    """Measures by ``run``, judges, and prints what comes of it. The documents change where ``options.whole`` says that
    nothing was left out, and ``options.json`` names no other file. Ends the process with one line for ``failures``."""
    results = results_file(name)
    if options.again:
        _finish(json.loads(results.read_text()), report, results, results)
        return
    take_load_cpu(name)
    began = time.monotonic()
    try:
        with Lab() as lab, tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as directory:
            result = run(lab, Path(directory))
    except (LabError, failures) as error:
        raise SystemExit(f"{name}: {error}") from None
    say(f"took {time.monotonic() - began:.0f} s")
    _finish(result, report, options.json or (results if options.whole else None), results)


def _finish(result: dict[str, Any], report: Report, out: Path | None, results: Path) -> None:
    if out:
        save(result, out)  # before they are judged: they took a while
    result["points"] = report.medians(result["samples"])
    result["targets"] = report.targets(result)
    if out:
        save(result, out)
    if out == results:
        report.into_documents(result)
    print(report.markdown(result))
