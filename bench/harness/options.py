"""The command line that benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["base_parser", "names_of", "numbers"]


def numbers(text: str) -> list[int]:
    """A reader of whole numbers with commas between."""
    return [int(part) for part in text.split(",")]


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A reader of some of these names, with commas between."""

    def names(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}: choose from {', '.join(known)}")
        return text.split(",")

    return names


def base_parser(
    name: str, what: str, compared: Collection[str], *, seconds: float, repeats: int
) -> argparse.ArgumentParser:
    """A parser with the options that every comparison has; the numbers are defaults."""
    parser = argparse.ArgumentParser(prog=f"bench.{name}", description=what.splitlines()[0])
    parser.add_argument("--only", type=names_of(compared), default=list(compared), help=f"some of {','.join(compared)}")
    parser.add_argument("--seconds", type=float, default=seconds, help="of load for each figure")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--patience", type=float, help="seconds for waiting while others use the machine")
    parser.add_argument("--again", action="store_true", help="measure nothing, judge and write the last figures again")
    parser.add_argument("--json", type=Path, help="where the figures go instead; no document is changed then")
    return parser
