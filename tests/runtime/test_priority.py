"""The priority of a process among others, and of its session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")
PROGRAM = """
from pathlib import Path
from runtime.process import set_session_nice
set_session_nice(10)
print(Path("/proc/self/autogroup").read_text(), end="")
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no priorities of sessions")
@pytest.mark.parametrize("leads", [True, False])
def test_a_process_steps_back_with_its_own_session_and_with_no_other(leads: bool) -> None:
    before = AUTOGROUP.read_text()  # nothing at all in the session that the kernel itself began
    argv = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(argv, start_new_session=leads, capture_output=True, text=True, check=True)
    if leads:
        assert told.stdout.split()[-1] == "10"
    else:
        assert told.stdout == before
    assert AUTOGROUP.read_text() == before
