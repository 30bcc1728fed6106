"""The shelf of one call: the large parts of its state, each written into the vault once, a piece at a time. Pure.

A part lies in whole pages, and stays where it is while the last state that was kept whole names it.
"""

from __future__ import annotations

import zlib
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transceiver.survival.vault import Vault

__all__ = ["Place", "Shelf", "parts_at"]

_PAGE = 4096

Place = tuple[int, int, int]  # where a part is, its size and its CRC-32


@dataclass(slots=True)
class _Part:
    data: bytes
    at: int
    done: int = 0
    crc: int = 0

    @property
    def end(self) -> int:
        return self.at + _pages(len(self.data))


class Shelf:
    """The parts of the call in that slot of the vault."""

    def __init__(self, vault: Vault, slot: int) -> None:
        self.vault, self._slot = vault, slot
        self._parts: dict[int, _Part] = {}  # by the identity of the bytes, which are held here
        self._taken: list[tuple[int, int]] = []  # from and to, in order
        self._unfinished: list[_Part] = []

    def offer(self, parts: Iterable[bytes]) -> None:
        """Takes parts that a state is to name, and has none yet. Raises ValueError where there is no room for one."""
        for data in parts:
            if id(data) not in self._parts:
                self._add(_Part(data, self._room(len(data))))
                self._unfinished.append(self._parts[id(data)])

    def work(self, most_bytes: int) -> bool:
        """Writes so many bytes of what was offered. Returns whether nothing is left."""
        while self._unfinished and most_bytes > 0:
            part = self._unfinished[-1]
            piece = memoryview(part.data)[part.done : part.done + most_bytes]
            self.vault.put_part(self._slot, part.at + part.done, piece)
            part.crc = zlib.crc32(piece, part.crc)
            part.done += len(piece)
            most_bytes -= len(piece)
            if part.done == len(part.data):
                self._unfinished.pop()
        return not self._unfinished

    def places(self, parts: Iterable[bytes]) -> tuple[Place, ...]:
        """The places of parts that are written."""
        found = [self._parts[id(data)] for data in parts]
        return tuple((part.at, len(part.data), part.crc) for part in found)

    def keep_only(self, parts: Iterable[bytes]) -> None:
        """Forgets all other parts, when a state has been kept that names these."""
        wanted = {id(data) for data in parts}
        for gone in [part for key, part in self._parts.items() if key not in wanted]:
            del self._parts[id(gone.data)]
            self._taken.remove((gone.at, gone.end))
            self.vault.parts_left += gone.end - gone.at
            self.vault.free_parts(self._slot, gone.at, gone.end - gone.at)
        self._unfinished = [part for part in self._unfinished if id(part.data) in wanted]

    def take_up(self, parts: Sequence[bytes], places: Sequence[Place]) -> None:
        """Goes on with the parts that a process before this one wrote there, as ``parts_at`` gave them."""
        for data, (at, size, crc) in zip(parts, places, strict=True):
            if id(data) not in self._parts:
                self._add(_Part(data, at, size, crc))

    def clear(self) -> None:
        """Forgets everything, also what another process left."""
        self.keep_only(())
        self.vault.free_parts(self._slot, 0, self.vault.parts_bytes)

    def _add(self, part: _Part) -> None:
        self._parts[id(part.data)] = part
        insort(self._taken, (part.at, part.end))
        self.vault.parts_left -= part.end - part.at

    def _room(self, size: int) -> int:
        size = _pages(size)
        if size > self.vault.parts_left:
            raise ValueError("the parts of all calls are too large to be kept")
        at = self._taken[-1][1] if self._taken else 0
        if at + size <= self.vault.parts_bytes:
            return at
        at = 0
        for begin, end in self._taken:
            if begin - at >= size:
                return at
            at = end
        raise ValueError("a call's parts are too large to be kept")


def parts_at(vault: Vault, slot: int, places: Iterable[Place]) -> list[bytes]:
    """The parts that were written there. Raises ValueError where one is not whole."""
    found: dict[Place, bytes] = {}
    parts = []
    for place in places:
        if place not in found:
            at, size, crc = place
            try:
                data = found[place] = vault.part(slot, at, size)
            except IndexError:
                raise ValueError("a part that is nowhere") from None
            if zlib.crc32(data) != crc:
                raise ValueError("a part that is not whole")
        parts.append(found[place])
    return parts


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
