"""The reassembly of SCTP messages from DATA chunks (RFC 9260 sections 6.5 to 6.9, RFC 3758). Pure.

aiortc sorts all that is missing for every chunk, and walks through all fragments of a stream, so what a peer sends out
of order costs the square of it. Here a chunk costs the same whatever is held: TSNs that came early are a sorted list of
blocks, and fragments are runs that are found by their ends. What is held is bounded by count and bytes. A chunk past a
bound is not taken and not acknowledged, as if the network had lost it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
)
from msgspec import Struct

__all__ = [
    "MOST_BLOCKS",
    "MOST_CHUNKS",
    "MOST_STREAMS",
    "MOST_WAITING",
    "Message",
    "Reassembly",
    "ReassemblyState",
    "Violation",
]

MOST_BLOCKS = 250  # of TSNs behind a missing one: that many fit in one SACK of 1,200 bytes
MOST_CHUNKS = 8192  # held, early or of messages that are not whole: 8 MB of them in full chunks
MOST_WAITING = 2048  # messages for an earlier one of their stream: it brings them all at once
MOST_STREAMS = 256  # that ordered messages came by
_MOST_DUPLICATES = 16  # told in one SACK
_MOST_REFUSED = 1024  # chunks in a row, with nothing that was missing between them
_SPACE = 1 << 32


class Violation(Exception):
    """The error that the peer did what it may not: the association is to be aborted. ``reason`` is a label, the text is
    for a log."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Message(NamedTuple):
    """A whole message, with its stream and payload protocol."""

    stream: int
    protocol: int
    data: bytes


class ReassemblyState(Struct, frozen=True):
    """A reassembly as a value. TSNs are extended past 32 bits as in ``Reassembly``. ``blocks`` are of early TSNs:
    first, last and bytes. ``runs`` are fragments side by side: TSN of the first, whether the message's first and last
    are among them, stream, number, whether unordered, payload protocol, and the fragments. ``streams`` have the number
    that is next, and by its number each message that waits: payload protocol and data."""

    initial_tsn: int
    last: int
    skipped: int
    refused: int
    duplicates: list[int]
    blocks: list[tuple[int, int, int]]
    runs: list[tuple[int, bool, bool, int, int, int, int, list[bytes]]]
    streams: dict[int, tuple[int, dict[int, tuple[int, bytes]]]]


class _Run:
    """Fragments of one message with consecutive TSNs, from ``start`` to ``end``."""

    __slots__ = ("bytes", "end", "first", "key", "last", "parts", "protocol", "start")

    def __init__(
        self, tsn: int, first: bool, last: bool, key: tuple[int, int, int], protocol: int, parts: Iterable[bytes]
    ) -> None:
        self.start = tsn
        self.first, self.last, self.key, self.protocol = first, last, key, protocol
        self.parts = deque(parts)
        self.end = tsn + len(self.parts) - 1
        self.bytes = sum(map(len, self.parts))

    @classmethod
    def of(cls, tsn: int, chunk: DataChunk) -> _Run:
        """A run of one chunk."""
        flags = chunk.flags
        key = (chunk.stream_id, chunk.stream_seq, flags & SCTP_DATA_UNORDERED)
        first, last = bool(flags & SCTP_DATA_FIRST_FRAG), bool(flags & SCTP_DATA_LAST_FRAG)
        return cls(tsn, first, last, key, chunk.protocol, (chunk.user_data,))

    def join(self, after: _Run) -> _Run:
        """Both runs as one; it costs what the smaller has."""
        one, other = (self, after) if len(self.parts) >= len(after.parts) else (after, self)
        if one is self:
            self.parts.extend(after.parts)
        else:
            after.parts.extendleft(reversed(self.parts))
        start, end, first, last, protocol = self.start, after.end, self.first, after.last, self.protocol
        one.start, one.end, one.first, one.last, one.protocol = start, end, first, last, protocol
        one.bytes += other.bytes
        return one


class _Stream:
    __slots__ = ("next", "waiting")

    def __init__(self) -> None:
        self.next = 0
        self.waiting: dict[int, Message] = {}


class Reassembly:
    """The incoming data of one association. ``last_tsn`` is the peer's initial TSN less one. Messages of more than
    ``most_bytes`` are a violation, and ``early_bytes`` may come before what is missing; together they bound all that is
    held."""

    def __init__(self, last_tsn: int, *, most_bytes: int, early_bytes: int) -> None:
        self.initial_tsn = (last_tsn + 1) % _SPACE
        self._last = last_tsn  # grows past 32 bits
        self._most_bytes = most_bytes
        self._early_bytes = early_bytes
        self._starts: list[int] = []  # of blocks of early TSNs
        self._ends: list[int] = []
        self._sizes: list[int] = []  # in bytes
        self._early = 0  # their sum
        self._by_start: dict[int, _Run] = {}
        self._by_end: dict[int, _Run] = {}
        self._streams: dict[int, _Stream] = {}
        self._skipped = last_tsn - 1  # up to here fragments may be without their message's first, or last
        self._held_bytes = 0
        self._held = 0
        self._waiting = 0
        self._refused = 0
        self._duplicates: list[int] = []

    @property
    def last_tsn(self) -> int:
        """The last TSN before which none is missing (Cumulative TSN)."""
        return self._last % _SPACE

    @property
    def held_bytes(self) -> int:
        """The bytes in messages that are not whole, or wait for others."""
        return self._held_bytes

    @property
    def held(self) -> int:
        """The number of chunks that are held, at most."""
        return self._held

    @property
    def window_bytes(self) -> int:
        """The number of bytes that the peer may send now, as a SACK says it."""
        return max(0, self._most_bytes + self._early_bytes - self._held_bytes)

    def gaps(self) -> list[tuple[int, int]]:
        """The blocks of early TSNs as a SACK has them, from ``last_tsn`` on."""
        return [(start - self._last, end - self._last) for start, end in zip(self._starts, self._ends, strict=True)]

    def duplicates(self) -> list[int]:
        """The first of the TSNs that came again since the last call."""
        said, self._duplicates = self._duplicates, []
        return said

    def add(self, chunk: DataChunk) -> list[Message]:
        """The messages that ``chunk`` makes whole or brings into order. Raises Violation."""
        if not chunk.user_data:
            raise Violation("malformed", "a DATA chunk without data")  # RFC 9260 section 6.2
        tsn = self._extended(chunk.tsn)
        if self._has(tsn):
            if len(self._duplicates) < _MOST_DUPLICATES:
                self._duplicates.append(chunk.tsn)
            return []
        if tsn != self._last + 1 and not self._takes_early(tsn, len(chunk.user_data)):
            self._refused += 1
            if self._refused > _MOST_REFUSED:
                raise Violation(
                    "misordered", f"{self._refused} chunks past a missing one that do not fit in the window"
                )
            return []
        run = self._placed(tsn, chunk)
        self._mark(tsn, len(chunk.user_data))
        return self._delivered(run) if run is not None and run.first and run.last else []

    def forward(self, last_tsn: int, streams: Iterable[tuple[int, int]]) -> list[Message]:
        """Gives up what is missing up to ``last_tsn``; ``streams`` has the last sequence number of each stream that is
        given up (RFC 3758 section 3.6). Raises Violation."""
        to = self._extended(last_tsn)
        if to <= self._last:
            return []
        # Their rest will not come, but for a message that goes on behind ``to``.
        for run in [run for run in self._by_start.values() if run.start <= to and (run.end < to or not run.first)]:
            self._drop(run)
            self._skipped = max(self._skipped, run.end)
        self._skipped = max(self._skipped, to)
        self._last = to
        self._refused = 0
        count = bisect_right(self._starts, to + 1)
        if count:
            self._last = max(self._last, self._ends[count - 1])
            self._early -= sum(self._sizes[:count])
            del self._starts[:count], self._ends[:count], self._sizes[:count]
        messages: list[Message] = []
        for number, sequence in dict(streams).items():
            stream = self._stream(number)
            ahead = (sequence + 1 - stream.next) & 0xFFFF
            if 0 < ahead < 0x8000:
                behind = sorted((waiting - stream.next) & 0xFFFF for waiting in stream.waiting)
                base = stream.next
                messages += [self._taken(stream, (base + n) & 0xFFFF) for n in behind if n < ahead]
                stream.next = (sequence + 1) & 0xFFFF
                messages += self._in_order(stream)
        return messages

    def reset(self, stream: int) -> None:
        """Resets a stream whose side the peer closed: it begins anew, or not at all (RFC 6525)."""
        if (gone := self._streams.pop(stream, None)) is not None:
            for sequence in tuple(gone.waiting):
                self._taken(gone, sequence)

    # --- TSNs

    def _extended(self, tsn: int) -> int:
        return self._last + ((tsn - self._last + _SPACE // 2) % _SPACE - _SPACE // 2)

    def _has(self, tsn: int) -> bool:
        at = bisect_right(self._starts, tsn) - 1
        return tsn <= self._last or (at >= 0 and tsn <= self._ends[at])

    def _takes_early(self, tsn: int, size: int) -> bool:
        if self._held >= MOST_CHUNKS or self._waiting >= MOST_WAITING or tsn - self._last > 0xFFFF:
            return False
        if self._early + size > self._early_bytes:
            return False
        return len(self._starts) < MOST_BLOCKS or self._has(tsn - 1) or self._has(tsn + 1)

    def _mark(self, tsn: int, size: int) -> None:
        starts, ends, sizes = self._starts, self._ends, self._sizes
        if tsn == self._last + 1:
            self._last = tsn
            self._refused = 0
            if starts and starts[0] == tsn + 1:
                self._last = ends[0]
                self._early -= sizes[0]
                del starts[0], ends[0], sizes[0]
            return
        self._early += size
        at = bisect_right(starts, tsn)
        joins_before = at > 0 and ends[at - 1] == tsn - 1
        joins_after = at < len(starts) and starts[at] == tsn + 1
        if joins_before and joins_after:
            ends[at - 1] = ends[at]
            sizes[at - 1] += size + sizes[at]
            del starts[at], ends[at], sizes[at]
        elif joins_before:
            ends[at - 1] = tsn
            sizes[at - 1] += size
        elif joins_after:
            starts[at] = tsn
            sizes[at] += size
        else:
            starts.insert(at, tsn)
            ends.insert(at, tsn)
            sizes.insert(at, size)

    # --- fragments

    def _placed(self, tsn: int, chunk: DataChunk) -> _Run | None:
        """The run that has the chunk now; None where its message was given up."""
        before, after = self._by_end.get(tsn - 1), self._by_start.get(tsn + 1)
        before = before if before is not None and not before.last else None
        after = after if after is not None and not after.first else None
        run = _Run.of(tsn, chunk)
        if not run.first and before is None and tsn - 1 <= self._skipped:
            self._skipped = max(self._skipped, tsn)
            if after is not None and not run.last:
                self._drop(after)
                self._skipped = max(self._skipped, after.end)
            return None
        if before is not None if run.first else before is None and self._has(tsn - 1):
            raise Violation("malformed", "a message begins before the one before it has ended, or not at all")
        if after is not None if run.last else after is None and self._has(tsn + 1):
            raise Violation("malformed", "a message ends amid its fragments, or not before the next")
        self._held_bytes += run.bytes
        self._held += 1
        for neighbour in (before, after):
            if neighbour is None:
                continue
            if neighbour.key != run.key:
                raise Violation("malformed", "fragments of one message with more than one stream or number")
            del self._by_start[neighbour.start], self._by_end[neighbour.end]
            run = neighbour.join(run) if neighbour.end < run.start else run.join(neighbour)
        if run.bytes > self._most_bytes:
            raise Violation("too_large", f"a message of more than {self._most_bytes} bytes")
        if len(run.parts) > MOST_CHUNKS:
            raise Violation("too_large", f"a message of more than {MOST_CHUNKS} fragments")
        self._by_start[run.start] = self._by_end[run.end] = run
        return run

    def _drop(self, run: _Run) -> None:
        del self._by_start[run.start], self._by_end[run.end]
        self._held_bytes -= run.bytes
        self._held -= len(run.parts)

    # --- messages

    def _stream(self, number: int) -> _Stream:
        stream = self._streams.get(number)
        if stream is None:
            if len(self._streams) >= MOST_STREAMS:
                raise Violation("too_many", f"more than {MOST_STREAMS} streams")
            stream = self._streams[number] = _Stream()
        return stream

    def _delivered(self, run: _Run) -> list[Message]:
        self._drop(run)
        number, sequence, unordered = run.key
        message = Message(number, run.protocol, b"".join(run.parts))
        if unordered:
            return [message]
        stream = self._stream(number)
        ahead = (sequence - stream.next) & 0xFFFF
        if ahead >= 0x8000:
            return [message]  # given up, and came all the same
        if ahead:
            if sequence in stream.waiting:
                raise Violation("malformed", "two messages with one number")
            stream.waiting[sequence] = message
            self._held_bytes += len(message.data)
            self._held += 1
            self._waiting += 1
            if self._waiting > MOST_WAITING or not self.window_bytes:
                raise Violation("misordered", "messages without those that come before them")
            return []
        stream.next = (sequence + 1) & 0xFFFF
        return [message, *self._in_order(stream)]

    def _in_order(self, stream: _Stream) -> list[Message]:
        messages = []
        while stream.next in stream.waiting:
            messages.append(self._taken(stream, stream.next))
            stream.next = (stream.next + 1) & 0xFFFF
        return messages

    def _taken(self, stream: _Stream, sequence: int) -> Message:
        message = stream.waiting.pop(sequence)
        self._waiting -= 1
        self._held_bytes -= len(message.data)
        self._held -= 1
        return message

    # --- as a value

    def export(self) -> ReassemblyState:
        """The data that came and is not delivered, and the TSNs that are missing."""
        return ReassemblyState(
            self.initial_tsn,
            self._last,
            self._skipped,
            self._refused,
            self._duplicates,
            list(zip(self._starts, self._ends, self._sizes, strict=True)),
            [(r.start, r.first, r.last, *r.key, r.protocol, list(r.parts)) for r in self._by_start.values()],
            {
                number: (stream.next, {n: (m.protocol, m.data) for n, m in stream.waiting.items()})
                for number, stream in self._streams.items()
            },
        )

    @classmethod
    def take_up(cls, state: ReassemblyState, *, most_bytes: int, early_bytes: int) -> Reassembly:
        """A reassembly that goes on where ``export`` left off."""
        made = cls((state.initial_tsn - 1) % _SPACE, most_bytes=most_bytes, early_bytes=early_bytes)
        made._last, made._skipped, made._refused = state.last, state.skipped, state.refused
        made._duplicates = list(state.duplicates)
        for start, end, size in state.blocks:
            made._starts.append(start)
            made._ends.append(end)
            made._sizes.append(size)
        made._early = sum(made._sizes)
        for start, first, last, number, sequence, unordered, protocol, parts in state.runs:
            run = _Run(start, first, last, (number, sequence, unordered), protocol, parts)
            made._by_start[run.start] = made._by_end[run.end] = run
            made._held_bytes += run.bytes
            made._held += len(run.parts)
        for number, (following, waiting) in state.streams.items():
            stream = made._streams[number] = _Stream()
            stream.next = following
            stream.waiting = {n: Message(number, protocol, data) for n, (protocol, data) in waiting.items()}
            made._waiting += len(waiting)
            made._held += len(waiting)
            made._held_bytes += sum(len(message.data) for message in stream.waiting.values())
        return made
