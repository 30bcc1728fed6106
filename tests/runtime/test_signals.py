"""A program that starts itself anew: it is the release that is installed now, interpreter and all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of a release whose environment is its own folder; the first one lets another take its place before it starts anew.
_PROGRAM = """#!{python}
import os, sys
if sys.argv[-1] == "--check":
    sys.exit(0)
print(os.path.basename(sys.prefix), *sys.argv[1:], flush=True)
if {takes_its_place!r}:
    from runtime.supervision import signals
    os.remove({link!r})
    os.symlink({takes_its_place!r}, {link!r})
    signals.start_anew()
"""


def release(folder: Path, name: str, link: Path, takes_its_place: str) -> Path:
    """An environment in ``folder``, as venv makes one, with a program in it."""
    here = folder / name
    (here / "bin").mkdir(parents=True)
    (here / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    python = here / "bin/python"
    python.symlink_to(Path(sys.executable).resolve())
    program = here / "bin/firsthop"
    program.write_text(_PROGRAM.format(python=python, link=str(link), takes_its_place=takes_its_place))
    program.chmod(0o755)
    return here


@pytest.mark.parametrize("by_its_path", [True, False], ids=["the command", "python -m"])
def test_after_a_link_was_moved_the_release_that_it_leads_to_is_started(tmp_path: Path, *, by_its_path: bool) -> None:
    link = tmp_path / "current"
    new = release(tmp_path, "new", link, "")
    old = release(tmp_path, "old", link, str(new))
    link.symlink_to(old)
    argv = [str(link / "bin/firsthop"), "edge"]
    if not by_its_path:  # an interpreter was named, and stays
        argv = [str(old / "bin/python"), "-c", f"import runpy; runpy.run_path({str(link / 'bin/firsthop')!r})", "edge"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == ("old edge\nnew edge\n" if by_its_path else "old edge\nold edge\n"), done.stderr
