"""Transport-wide feedback: it tells the caller's bandwidth estimator when each packet came. Pure; times are seconds.

draft-holmer-rmcat-transport-wide-cc-extensions-01: senders number their packets in a header extension, and get a list
of arrival times back about ten times a second.
"""

from __future__ import annotations

import struct

from rtc.rtp.state import ArrivalsState

__all__ = ["Arrivals"]

_EVERY_S = 0.1
_MOST = 128  # packets in one report
_TICK_S = 0.00025
_REFERENCE_TICKS = 256  # the reference time counts 64 ms
_RTPFB, _TRANSPORT_CC = 205, 15
_LOST, _SMALL, _LARGE = 0, 1, 2
_IN_VECTOR = 7


class Arrivals:
    """The arrival times of one stream's packets. ``add`` each packet's transport-wide number, and send what ``report``
    returns."""

    def __init__(self) -> None:
        self._came: dict[int, float] = {}
        self._next: int | None = None  # the first number of the next report
        self._reported_at = 0.0
        self._count = 0
        self._ahead_s = 0.0  # of our clock, that by which the sender is told

    def add(self, number: int, now: float) -> None:
        """Tells that the packet with the 16 bit ``number`` came now."""
        if self._next is None:
            self._next = number
        if (number - self._next) & 0xFFFF < 0x8000 and len(self._came) < _MOST:
            self._came.setdefault(number, now)

    @property
    def waits(self) -> bool:
        """Whether something came that is not reported yet."""
        return bool(self._came)

    def report(self, now: float, sender: int, media: int) -> bytes | None:
        """An RTCP packet from ``sender`` about ``media``, or None where there is nothing to say yet."""
        if not self._came or self._next is None or now - self._reported_at < _EVERY_S:
            return None
        self._reported_at = now
        start = self._next
        numbers = sorted(self._came, key=lambda number: (number - start) & 0xFFFF)
        if ((numbers[-1] - start) & 0xFFFF) >= _MOST:
            # They jumped: what is before the last of them is not worth a list of what did not come.
            start = numbers[-1]
        count = ((numbers[-1] - start) & 0xFFFF) + 1
        self._next = (start + count) & 0xFFFF
        return self._pack(start, count, sender, media)

    def _pack(self, start: int, count: int, sender: int, media: int) -> bytes:
        came, self._came = self._came, {}
        ahead_s = self._ahead_s
        times = [None if (at := came.get((start + i) & 0xFFFF)) is None else at + ahead_s for i in range(count)]
        first = next(int(at / _TICK_S) for at in times if at is not None)
        last = first // _REFERENCE_TICKS * _REFERENCE_TICKS
        head = struct.pack("!HHI", start, count, (last // _REFERENCE_TICKS & 0xFFFFFF) << 8 | self._count)
        self._count = (self._count + 1) & 0xFF
        symbols, deltas = [], b""
        for at in times:
            delta = int(at / _TICK_S) - last if at is not None else None
            if delta is None or not -0x8000 <= delta < 0x8000:
                symbols.append(_LOST)
                continue
            last += delta
            small = 0 <= delta < 256
            symbols.append(_SMALL if small else _LARGE)
            deltas += struct.pack("!B" if small else "!h", delta)
        body = struct.pack("!II", sender, media) + head + _chunks(symbols) + deltas
        body += bytes(-len(body) % 4)
        return struct.pack("!BBH", 0x80 | _TRANSPORT_CC, _RTPFB, len(body) // 4) + body

    # --- as a value

    def export(self, now: float) -> ArrivalsState:
        """All of it."""
        came = [(number, now - at) for number, at in self._came.items()]
        return ArrivalsState(came, self._next, now - self._reported_at, self._count, now + self._ahead_s)

    def take_up(self, state: ArrivalsState, now: float) -> None:
        """Goes on where ``export`` left off: the clock by which the sender is told does not jump."""
        self._came = {number: now - age_s for number, age_s in state.came[:_MOST]}
        self._next, self._reported_at, self._count = state.next, now - state.reported_s, state.count
        self._ahead_s = state.clock_s - now


def _chunks(symbols: list[int]) -> bytes:
    """The packet status chunks: runs of seven and more by their length, the others seven at a time (sections 3.1.3 and
    3.1.4)."""
    out, at = b"", 0
    while at < len(symbols):
        symbol, run = symbols[at], 1
        while at + run < len(symbols) and symbols[at + run] == symbol:
            run += 1
        if run >= _IN_VECTOR:
            out += struct.pack("!H", symbol << 13 | run)
            at += run
        else:
            word = 0xC000
            for i, each in enumerate(symbols[at : at + _IN_VECTOR]):
                word |= each << (12 - 2 * i)
            out += struct.pack("!H", word)
            at += _IN_VECTOR
    return out
