"""A received and a sent RTP stream as values. Times are ages in seconds: another host's clock counts from elsewhere.
Pure."""

from __future__ import annotations

from msgspec import Struct

__all__ = [
    "ArrivalsState",
    "HistoryState",
    "KeypadState",
    "MissingState",
    "ReceptionState",
    "SsrcState",
]


class SsrcState(Struct, frozen=True, array_like=True):
    """The choice as a value; ``age_s`` is how long ago the stream's last packet came."""

    ssrc: int | None
    highest: int
    age_s: float
    expected: tuple[int, int] | None


class ReceptionState(Struct, frozen=True, array_like=True):
    """The statistics as a value. ``first_s`` and ``last_s`` are ages in seconds, ``seen`` the window as big-endian
    bytes."""

    ssrc: int | None
    received: int
    duplicates: int
    reordered: int
    first_s: float | None
    last_s: float | None
    longest_gap_ms: float
    base: int
    highest: int
    seen: bytes
    unique: int
    lost_before: int
    jitter: float
    reported: tuple[int, int]


class ArrivalsState(Struct, frozen=True, array_like=True):
    """The arrival times as a value: ``came`` has numbers, and how long ago each came, in seconds. ``clock_s`` is what
    the clock shows by which the sender is told."""

    came: list[tuple[int, float]]
    next: int | None
    reported_s: float
    count: int
    clock_s: float


class MissingState(Struct, frozen=True, array_like=True):
    """The gaps as a value: ``wanted`` has sequence numbers, how often each was asked for, and how long ago, in
    seconds."""

    highest: int | None
    wanted: list[tuple[int, int, float]]


class KeypadState(Struct, frozen=True, array_like=True):
    """The keys as a value: of each press its timestamp, code, whether it has ended, and its newest sequence number, the
    newest press last. ``age_s`` is how long ago the last one began."""

    presses: list[tuple[int, int, bool, int]]
    allowed: float
    age_s: float


class HistoryState(Struct, frozen=True, array_like=True):
    """A history as a value: of each datagram its sequence number and how often it was sent again, oldest first."""

    newest: int
    kept: list[tuple[int, int, bytes]]
