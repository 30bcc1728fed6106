"""The results, as files of figures and as parts of docs/performance.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["DOCUMENT", "ROOT", "results_file", "save", "write"]

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"


def results_file(name: str) -> Path:
    """The file with the figures of benchmark ``name``."""
    return ROOT / "bench" / "results" / f"{name}.json"


def save(result: dict[str, Any], file: Path) -> None:
    """Writes figures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")


def write(name: str, text: str) -> None:
    """Replaces the part of the document that benchmark ``name`` makes. Ends the process where its marks are lost."""
    begin, end = f"<!-- made by make bench-{name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = DOCUMENT.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{name}: {DOCUMENT.name} has lost its marks: {begin.strip()} and {end.strip()}")
    DOCUMENT.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}")
