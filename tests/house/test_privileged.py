"""The part of an edge that has privileges: it is small, and serves no caller."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from paths import OPERATIONS, ROOT

_IMPORTED = """
import json, sys
import edge.supervisor, edge.xdp.program, firsthop.cli, firsthop.preflight
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if getattr(module, "__file__", None)}))
"""
# What speaks to callers or to transceivers, and what it is made of.
_NOT_FOR_IT = {"aiohttp", "aiortc", "caller", "numpy", "rtc", "transceiver"}


def test_the_privileged_process_imports_nothing_that_serves_callers_and_its_size_is_as_documented() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTED], capture_output=True, text=True, cwd=ROOT, check=True)
    imported: dict[str, str] = json.loads(done.stdout)
    assert not {name.partition(".")[0] for name in imported} & _NOT_FOR_IT
    ours = {name: file for name, file in imported.items() if file.startswith(f"{ROOT}/") and ".venv" not in file}
    assert {name for name in ours if name.startswith(("edge.relay.", "edge.links.", "edge.signaling"))} == {
        "edge.relay.spec"
    }
    files = [*map(Path, ours.values()), *(ROOT / "bpf").glob("*.[ch]")]
    lines = sum(len(file.read_text().splitlines()) for file in files)
    said = re.search(r"about (\d+) files with ([\d,]+) lines", OPERATIONS.read_text())
    assert said is not None
    assert abs(int(said[1]) - len(files)) <= 0.15 * len(files), len(files)
    assert abs(int(said[2].replace(",", "")) - lines) <= 0.15 * lines, lines
