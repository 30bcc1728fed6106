"""The places for calls: a connected call keeps its place, and calls that have not connected yet are bounded. Pure.

A call is half-open from its offer until DTLS is done; placing one costs a request, and no address that answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["GRACE_S", "Full", "Place", "room_for"]

# An ephemeral key is one browser's, with a tab or two, and attempts that failed a moment ago.
_PER_HOLDER = 4
_ALWAYS = 8  # half-open calls are not limited below
GRACE_S = 3.0  # a call is set up in a fraction of a second; with losses in two


class Full(Exception):
    """The error that there is no place: ``code`` is that of ``session.refused``."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Place(Protocol):
    """A call as far as places are concerned; times are in seconds."""

    began: float
    owner: str
    holder: str

    @property
    def half_open(self) -> bool:
        """Whether it has not connected yet."""


P = TypeVar("P", bound=Place)


def room_for(
    owner: str, holder: str, calls: Iterable[P], now: float, *, taken: int, most: int, half_open: bool = True
) -> P | None:
    """The half-open call that has to give its place to a new one of ``owner`` (an API key) and ``holder`` (an ephemeral
    key, or empty), or None where there is room without that. ``taken`` of ``most`` places are in use; a new call that
    is connected at once is not ``half_open``.

    Half-open calls of one owner take half of the places at most, and those of all three quarters. The oldest gives way,
    but each has 3 s. Raises Full.
    """
    waiting = [call for call in calls if call.half_open]
    if half_open and holder and sum(call.holder == holder for call in waiting) >= _PER_HOLDER:
        raise Full("rate_limit_exceeded", f"{_PER_HOLDER} calls of this key have not connected yet")
    its_own = [call for call in waiting if call.owner == owner]
    if half_open and len(its_own) >= max(most // 2, min(_ALWAYS, most)):
        return _oldest(its_own, now, f"{len(its_own)} calls on this account have not connected yet")
    if half_open and len(waiting) >= max(most - most // 4, min(_ALWAYS, most)):
        return _oldest(waiting, now, f"{len(waiting)} calls have not connected yet")
    if taken >= most:
        return _oldest(waiting, now, f"this transceiver holds its {most} calls")
    return None


def _oldest(waiting: list[P], now: float, why: str) -> P:
    oldest = min(waiting, key=lambda call: call.began, default=None)
    if oldest is None or now - oldest.began < GRACE_S:
        raise Full("full", why)
    return oldest
