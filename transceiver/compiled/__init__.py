"""The compiled form of the modules by which each packet of a call goes: Python imports it in their place, where it has
been made (``transceiver.compiled.build``).

mypyc makes it of the modules' own source. It is kept in a folder that is named after all that it was made of, so it
never runs beside another source; the source itself runs then, and ``reason`` says why. FIRSTHOP_COMPILED=off does
without it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = [
    "GROUP",
    "MODULES",
    "NEVER",
    "OFF",
    "ROOT",
    "STALE",
    "SWITCH",
    "Finder",
    "choose",
    "folder",
    "home",
    "missed",
    "reason",
    "use",
]

# Those in which the time of a packet goes, and those that they call for each. What is gained of others is not worth a
# class that cannot be changed from outside, which a compiled one is.
MODULES = (
    "rtc.bucket",
    "rtc.dtls.replay",
    "rtc.dtls.srtp",
    "rtc.ice.allowance",
    "rtc.ice.lite",
    "rtc.ice.paths",
    "rtc.pacer",
    "rtc.rtp.gate",
    "rtc.rtp.history",
    "rtc.rtp.packet",
    "rtc.rtp.reception",
    "rtc.rtp.ssrc",
    "rtc.rtp.transport_cc",
    "runtime.batch",
    "runtime.datagrams",
    "runtime.histogram",
    "runtime.timer",
    "transceiver.links.expressway",
    "transceiver.links.rhythm",
    "transceiver.links.routing",
    "transceiver.media.receiver",
    "transceiver.media.voice",
    "transceiver.transport",
)
GROUP = "firsthop"
SWITCH = "FIRSTHOP_COMPILED"

ROOT = Path(__file__).parents[2]
# What they import of ours, and so may depend on.
_PACKAGES = ("rtc", "runtime", "transceiver", "wire")
_SUFFIX = EXTENSION_SUFFIXES[0]  # names the version of Python and the machine
_SHARED = f"{GROUP}__mypyc"

# Reasons why the source runs.
OFF = f"{SWITCH} is off"
NEVER = "no compiled form was made"
STALE = "the compiled form is of another source"

reason: str | None = NEVER  # why the source runs here; None where the compiled form does


def home() -> Path:
    """The folder of all compiled forms of this installation."""
    in_source = (ROOT / "pyproject.toml").exists()
    return ROOT / "build/compiled" if in_source else Path(sys.prefix, "share/firsthop/compiled")


def folder() -> Path:
    """The folder of the compiled form of this source, which is there once that has been made."""
    digest = hashlib.blake2b(_SUFFIX.encode(), digest_size=12)
    for package in _PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return home() / digest.hexdigest()


def choose() -> Path | str:
    """The folder of the compiled form, or why there is none to run."""
    if os.environ.get(SWITCH) == "off":
        return OFF
    if not home().is_dir():
        return NEVER
    made = folder()
    return made if made.is_dir() else STALE


def missed(why: str | None) -> bool:
    """Whether the source runs, for this reason, though a compiled form was made and is wanted."""
    return why not in (None, OFF, NEVER)


def use() -> None:
    """Has the compiled form imported from now on, all of it or, where that cannot be, nothing."""
    global reason
    chosen = choose()
    if isinstance(chosen, Path):
        if early := [name for name in MODULES if name in sys.modules]:
            chosen = f"{early[0]} was imported before the compiled form could be"
        else:
            finder = Finder(chosen)
            sys.meta_path.insert(0, finder)
            try:
                import_module(_SHARED)
            except ImportError as e:
                sys.meta_path.remove(finder)
                chosen = f"the compiled form cannot be loaded: {e}"
    reason = chosen if isinstance(chosen, str) else None


class Finder:
    """A finder (``importlib.abc.MetaPathFinder``) of what was compiled into a folder."""

    def __init__(self, made: Path) -> None:
        self._made = made

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of that name, where it was compiled."""
        if name not in MODULES and name != _SHARED:
            return None
        file = str(self._made / (name.replace(".", "/") + _SUFFIX))
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file))
