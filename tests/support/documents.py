"""The documents' own steps, for tests that take them."""

from __future__ import annotations

import re
import shlex

from paths import ROOT

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def steps(document: str, title: str) -> list[list[str]]:
    """The commands of the block for a shell in that chapter."""
    (block,) = re.findall(rf"^## {title}\n(?:(?!^## ).)*?^```sh\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines()]
