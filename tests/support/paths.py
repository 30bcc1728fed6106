"""The places of things: the repository, its tests, the modules that tests share, and the documents that list steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
README = ROOT / "README.md"
OPERATIONS = ROOT / "docs/operations.md"


def steps(document: Path, title: str) -> list[list[str]]:
    """The commands of the block for a shell in that chapter."""
    found = rf"^## {title}\n(?:(?!^## ).)*?^```sh\n(.*?)^```"
    (block,) = re.findall(found, document.read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines()]
