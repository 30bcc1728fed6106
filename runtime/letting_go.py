"""Letting go: what is over is taken apart, so that reference counts free it at once.

The parts of a session call one another back, so they are circles that only the garbage collector would find, and it
would look through all sessions that go on to find them: a pause for each of these.
"""

from __future__ import annotations

__all__ = ["let_go"]


def let_go(whole: object) -> None:
    """Empties an object that nobody uses any more, and its parts. A class names the attributes in which its parts are
    as ``owns``; what an object refers to besides belongs to others, and stays as it is."""
    for name in getattr(whole, "owns", ()):
        part = getattr(whole, name, None)
        if part is not None:
            let_go(part)
    if hasattr(whole, "__dict__"):  # which a compiled object has not (``transceiver.compiled``)
        vars(whole).clear()
