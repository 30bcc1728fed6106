"""Versions of the wire, and which of them two ends speak with each other.

A release speaks the newest version and at least the one before it, so the hosts of a cluster can be upgraded one at a
time, in any order. A link begins in the oldest one. The end that connects says ``hello`` when its link has come up; the
other answers; from then on it speaks the highest version that both know, and is answered in the version that it speaks.
So an end that is started again with an older release is understood from its first message on.

* Version 4 is ``[4, request, map]``: the request's number stands outside, so that it is answered even where its fields
  cannot be read. Readers ignore fields that they do not know, so an optional field needs no new version.
* Version 5 has the messages by which calls move.

Data messages differ in the version's number only. A ``hello`` keeps the form of version 3 in all versions,
``[3, "control", map]`` with the request's number in the map, or two ends without a common version could not tell each
other. A release that speaks version 4 also begins in version 3, because the one before it did (``wire.opening``).
"""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

__all__ = ["GREETING", "HELD_TO", "MOVES", "OLDEST", "VERSION", "Versions", "software", "spoken"]

OLDEST, VERSION = 4, 5
GREETING = 3  # in whose form ends greet each other
MOVES = 5  # the first in which calls move
HELD_TO = "FIRSTHOP_WIRE_VERSION"  # the environment variable that holds a process to an older version


class Versions(NamedTuple):
    """The versions from ``least`` to ``most``, both included."""

    least: int
    most: int

    def common(self, others: tuple[int, int]) -> int | None:
        """The highest version that is also within ``others``, or None."""
        highest = min(self.most, others[1])
        return highest if highest >= max(self.least, others[0]) else None

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least} to {self.most}"


def spoken() -> Versions:
    """The versions that this process speaks. ``FIRSTHOP_WIRE_VERSION`` holds it to one, as if it were of that release.

    Raises ValueError where that is no version which this release knows.
    """
    held = os.environ.get(HELD_TO)
    if not held:
        return Versions(OLDEST, VERSION)
    if held not in {str(version) for version in range(OLDEST, VERSION + 1)}:
        raise ValueError(f"{HELD_TO}={held!r}: this release speaks {Versions(OLDEST, VERSION)}")
    return Versions(OLDEST, int(held))


@cache
def software() -> str:
    """The name and version of this release."""
    try:
        return f"firsthop {version('firsthop')}"
    except PackageNotFoundError:  # a source tree that is not installed
        return "firsthop"
