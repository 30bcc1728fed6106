"""The command ``python -m bench.calls``: it measures the servers side by side, and judges firsthop against its targets.

Each server is freshly started for each number of calls. While others use the machine, a run waits, and a run that they
disturbed is made again, as far as there is patience.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.calls import report, voice
from bench.calls.measure import measure, setups, setups_beside
from bench.calls.quality import quality
from bench.calls.servers import FASTRTC, SERVERS, ServerError, Site
from bench.harness.comparison import compare
from bench.harness.conditions import conditions, debian_version, say
from bench.harness.options import base_parser, numbers
from bench.harness.undisturbed import Undisturbed
from lab.network import Lab

CALLS = (1, 10, 20, 50, 100)
NEW_RATES = (10, 30, 100)
TALKING = 50
JUDGED_BY_EAR = ("firsthop", "aiortc")
TRIES = 3
PATIENCE_S = 120.0
Sample = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)

    def run(lab: Lab, directory: Path) -> dict[str, Any]:
        return Bench(Site(lab, directory), options).run()

    compare("calls", options, report, run, ServerError)


class Bench:
    """All the runs of one invocation."""

    def __init__(self, site: Site, options: argparse.Namespace) -> None:
        self._site = site
        self._options = options
        self._undisturbed = Undisturbed(float(options.patience), TRIES)
        self._speech = voice.speech()
        self._voice = site.directory / "voice.json"
        voice.encoded(self._speech).save(self._voice)

    def run(self) -> dict[str, Any]:
        options = self._options
        result: dict[str, Any] = {"run": _conditions(options, self._speech.speaker)}
        result["samples"] = self._rounds()
        if "setup" not in options.skip:
            result["setup"] = [row for server in options.only for row in self._setups(server, result["samples"])]
        if "quality" not in options.skip:
            result["quality"] = [row for server in options.only if server in JUDGED_BY_EAR for row in self._ear(server)]
        return result

    def _setups(self, server: str, samples: list[Sample]) -> list[dict[str, Any]]:
        """Measures new calls alone, and beside as many calls that talk as the server has been seen to hold."""
        rows: list[dict[str, Any]] = []
        bears = [one["calls"] for one in samples if one["server"] == server and report.bears(one)]
        try:
            rows += setups(self._site, server, NEW_RATES)
            if TALKING in bears:
                rows.append(setups_beside(self._site, server, report.JUDGED_RATE, self._voice, TALKING))
        except ServerError as error:
            say(f"{server:13} new calls: failed: {error}")
        for row in rows:
            say(f"{server:13} {report.setup_line(row)}")
        return rows

    def _ear(self, server: str) -> list[dict[str, Any]]:
        try:
            rows = quality(self._site, server, self._speech)
        except ServerError as error:
            say(f"{server:13} speech: failed: {error}")
            return []
        for row in rows:
            say(f"{server:13} {report.quality_line(row)}")
        return rows

    def _rounds(self) -> list[Sample]:
        options = self._options
        samples: list[Sample] = []
        for repeat in range(options.repeats):
            # Servers that have lost too much, or did not take so many calls.
            over: set[str] = set()
            for calls in sorted(options.calls):
                for server in options.only:
                    if server in over:
                        continue
                    one = self._undisturbed(partial(self._sample, repeat, server, calls), report.disturbed)
                    samples.append(one)
                    if not report.bears(one):
                        over.add(server)
        return samples

    def _sample(self, repeat: int, server: str, calls: int) -> Sample:
        one: Sample = {"repeat": repeat, "server": server, "calls": calls}
        try:
            one |= measure(self._site, server, self._voice, calls, self._options.seconds)
        except ServerError as error:
            one["failed"] = str(error)
        say(f"{repeat + 1} {server:13} {calls:4} calls: {report.line(one)}")
        return one


def _conditions(options: argparse.Namespace, speaker: str) -> dict[str, Any]:
    return conditions(
        versions={name: version for name in options.only if (version := _version(name))},
        speaker=speaker,
        seconds=options.seconds,
        repeats=options.repeats,
    )


def _version(server: str) -> str:
    ask = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    commands = {
        "aiortc": [sys.executable, "-c", ask, "aiortc"],
        "fastrtc": [str(FASTRTC), "-c", ask, "fastrtc"],
    }
    if server == "janus":
        return debian_version("janus")
    if (command := commands.get(server)) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()  # noqa: S603
    except FileNotFoundError:
        return ""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = base_parser("calls", __doc__ or "", SERVERS, seconds=5.0, repeats=1)
    parser.add_argument("--calls", type=numbers, default=list(CALLS), help="numbers of calls, with commas between")
    skips = ("quality", "setup")
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[], help=f"some of {','.join(skips)}")
    options = parser.parse_args(arguments)
    # A part is for a look: nobody waits for it, and it is in no document.
    options.whole = (options.only, options.calls, options.skip) == (list(SERVERS), list(CALLS), [])
    if options.patience is None:
        options.patience = PATIENCE_S if options.whole else 0.0
    if unknown := set(options.skip) - set(skips):
        parser.error(f"--skip: there is no {', '.join(unknown)}: choose from {', '.join(skips)}")
    return options


if __name__ == "__main__":
    main()
