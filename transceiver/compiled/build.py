"""The command ``python -m transceiver.compiled.build``: it makes the compiled form, where it is not made yet.

It needs mypy, setuptools and a C compiler with Python's headers. One source serves both forms: mypyc reads the types
that are there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from transceiver import compiled

__all__ = ["build"]

# Types of other people's packages are not looked for: their objects are used as Python uses them.
_MYPY = ("--ignore-missing-imports", "--follow-imports=silent", "--cache-dir=cache")


def main() -> None:
    """Makes it, and prints where it is."""
    print(build())


def build() -> Path:
    """The folder of the compiled form of this source, which is made where it is not there; those of other sources are
    removed. Raises SystemExit, and says why, where mypyc or the compiler does not take it."""
    made = compiled.folder()
    if made.is_dir():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix="making-") as scratch:
        place = Path(scratch)
        # mypyc takes no file of an installed package, and writes beside what it reads.
        for package in ("bpf", "rtc", "runtime", "transceiver", "wire"):
            shutil.copytree(compiled.ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(place)
        (place / "made").rename(made)
    for other in made.parent.iterdir():
        if other != made:
            shutil.rmtree(other, ignore_errors=True)
    return made


def _compile(place: Path) -> None:
    from mypyc.build import mypycify  # which is there where it is wanted alone
    from setuptools import Distribution

    left = Path.cwd()
    os.chdir(place)
    try:
        files = [f"{name.replace('.', '/')}.py" for name in compiled.MODULES]
        extensions = mypycify(
            [*_MYPY, *files], opt_level="2", debug_level="0", target_dir="c", group_name=compiled.GROUP
        )
        command = Distribution({"name": "compiled", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = "made", "objects"
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(left)


if __name__ == "__main__":
    main()
