"""The end of children that have something to bring to an end: one that dies meanwhile has a successor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import eventually

from runtime.errors import ConfigError
from runtime.families.shared import supervised
from runtime.supervision.beats import Beats
from runtime.supervision.children import Child, Children
from runtime.supervision.store import Store

# Each notes that it has begun, and that it was told to end: the first ``dies`` of them are killed by that.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from runtime.supervision.beats import Beat
text = sys.stdin.buffer.read()
if not text:
    sys.exit()
spec = json.loads(text)
notes = Path(spec["notes"])
def note(what):
    with notes.open("a") as file:
        file.write(f"{what} {os.getpid()}\\n")
def end(*_):
    note("ends")
    if notes.read_text().count("ends") <= spec["dies"]:
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit()
signal.signal(signal.SIGTERM, end)
note("begins")
beat = Beat(*spec["beat"])
while True:
    beat()
    time.sleep(0.02)
"""


class Home:
    """The part of a supervisor that keeps one child."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, dies: int, goodbye_s: float) -> None:
        (directory / "a_child_that_ends.py").write_text(PROGRAM)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(directory), str(Path.cwd())]))
        self.notes = directory / "notes"
        self.notes.touch()
        self.beats = Beats(store := Store())
        spec = json.dumps({"beat": [self.beats.fd, 3], "notes": str(self.notes), "dies": dies}).encode()
        child = Child("one", "a_child_that_ends", spec, (self.beats.fd,), "same", 3)
        self.children = Children(
            [child], child.module, "spare", store, self.beats, supervised("t"), goodbye_s=goodbye_s
        )
        self._running = asyncio.create_task(self.children.run())

    async def begun(self) -> int:
        """The pid of the first child, when it is at work."""
        await eventually(lambda: self.noted("begins") and self.beats.count(3))
        return int(self.noted("begins")[0])

    def noted(self, what: str) -> list[str]:
        """The pids of those that noted that."""
        return [line.split()[1] for line in self.notes.read_text().splitlines() if line.split()[0] == what]

    async def end(self) -> None:
        """As the supervisor does when it is told to end."""
        self._running.cancel()
        with suppress(asyncio.CancelledError, ConfigError):
            await self._running
        await self.children.end()

    def close(self) -> None:
        for process in self.children._running.values():
            process.close()
        os.close(self.beats.fd)


@pytest.mark.parametrize("dies", [0, 1, 2])
async def test_what_one_that_dies_had_to_bring_to_an_end_its_successor_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: int
) -> None:
    home = Home(tmp_path, monkeypatch, dies=dies, goodbye_s=60)
    await home.begun()
    await home.end()
    assert len(home.noted("begins")) == dies + 1
    assert home.noted("ends") == home.noted("begins")
    home.close()


async def test_so_does_that_of_one_that_has_just_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, monkeypatch, dies=0, goodbye_s=60)
    first = await home.begun()
    os.kill(first, signal.SIGKILL)
    await home.end()
    assert len(home.noted("begins")) == 2
    assert home.noted("ends") == home.noted("begins")[1:]
    home.close()


async def test_where_there_is_nothing_to_bring_to_an_end_nobody_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, monkeypatch, dies=1, goodbye_s=0)
    await home.begun()
    await home.end()
    assert len(home.noted("begins")) == 1
    home.close()
