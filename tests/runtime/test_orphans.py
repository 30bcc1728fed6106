"""The first process of a container reaps whose parent has died, and nobody whom it started itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

# As process 1: a grandchild whose parent ends at once, and a child of its own that fails.
PROGRAM = """
import asyncio, os, subprocess
from runtime.supervision import orphans

async def main():
    reaping = asyncio.create_task(orphans.reap(0.05))
    orphan = int(subprocess.run(["sh", "-c", "sleep 0.2 >&- & echo $!"], stdout=subprocess.PIPE).stdout)
    while os.path.exists(f"/proc/{orphan}"):
        await asyncio.sleep(0.01)
    own = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    print(os.getpid(), await own.wait(), orphans.zombies(), reaping.done())

asyncio.run(main())
"""


@pytest.mark.needs_root
def test_orphans_are_reaped_and_children_are_heard() -> None:
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    told = subprocess.run([*container, sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert told.stdout == "1 7 set() False\n", told.stderr
