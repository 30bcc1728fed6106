"""The vault: memory in which the last whole state of each call outlives the process that wrote it. Pure.

Its slots have two copies each, written in turn, so that whatever a kill leaves half written the other one is whole. A
copy is a head of ``sequence``, ``size`` and a CRC-32 over these and the data, and then the data; a sequence of 0 is no
copy. Between the two are four bytes that are not the copy's: those of a slot's two copies are its counters, which are
right at any moment, because a store of four aligned bytes is never half done. Each slot has room for parts besides,
which are written before the first state that names them, and not written over before the last state that does is none
any more (``transceiver.survival.shelf``). What was never touched costs no memory, where the memory is a memfd.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

__all__ = ["COPY_BYTES", "PARTS_BYTES", "Vault", "size_of"]

COPY_BYTES = 4 << 20  # of address space; memory is what a state has
PARTS_BYTES = 64 << 20  # the same, of one call
_MOST_PARTS_BYTES = 512 << 20  # of all calls together, and that is memory
_HEAD = struct.Struct("<QQI")
_DATA_AT = 24
_SEQUENCE = struct.Struct("<Q")
_CHECKED = struct.Struct("<QQ")
_LAST = (1 << 64) - 1


def size_of(slots: int, copy_bytes: int = COPY_BYTES, parts_bytes: int = PARTS_BYTES) -> int:
    """The number of bytes of a vault."""
    return slots * (2 * copy_bytes + parts_bytes)


def _nothing(at: int, size: int) -> None:
    pass


class Vault:
    """A vault over ``memory``, which may hold anything: a predecessor's copies, or garbage. ``free(at, size)`` gives
    memory that is not needed back, as zeros. ``parts_left`` is how many bytes of parts it takes in all."""

    def __init__(
        self,
        memory: memoryview,
        *,
        copy_bytes: int = COPY_BYTES,
        parts_bytes: int = PARTS_BYTES,
        free: Callable[[int, int], None] = _nothing,
    ) -> None:
        self._memory = memory
        self._copy_bytes = copy_bytes
        self.parts_bytes = parts_bytes
        self.parts_left = _MOST_PARTS_BYTES
        self._free = free
        self.slots = len(memory) // (2 * copy_bytes + parts_bytes)

    @property
    def most_bytes(self) -> int:
        """The number of bytes that a state may have."""
        return self._copy_bytes - _DATA_AT

    def put(self, slot: int, data: bytes) -> None:
        """Keeps ``data`` in place of what the slot had. Raises ValueError where it has more than ``most_bytes``."""
        size = len(data)
        if size > self.most_bytes:
            raise ValueError(f"a state of {size} bytes, and {self.most_bytes} are kept")
        newest, sequence = self._newest(slot)
        at, sequence = self._at(slot, 1 - newest), sequence + 1 & _LAST or 1
        memory = self._memory
        _SEQUENCE.pack_into(memory, at, 0)
        memory[at + _DATA_AT : at + _DATA_AT + size] = data
        # The sequence is in the CRC as well, so a head of one write with the data of another is no copy.
        _HEAD.pack_into(memory, at, 0, size, _crc(sequence, data))
        _SEQUENCE.pack_into(memory, at, sequence)

    def get(self, slot: int) -> bytes | None:
        """The last state that was kept whole, or None."""
        copies = [found for which in (0, 1) if (found := self._copy(slot, which)) is not None]
        return max(copies)[1] if copies else None

    def counters(self, slot: int) -> tuple[memoryview, memoryview]:
        """The slot's two counters, each the only item of a view of 32 bits; ``clear`` may set them to 0, and ``put``
        leaves them as they are."""
        first, second = (self._at(slot, which) + _HEAD.size for which in (0, 1))
        return self._memory[first : first + 4].cast("I"), self._memory[second : second + 4].cast("I")

    def clear(self, slot: int) -> None:
        """Keeps no state in that slot any more, and gives its memory back."""
        newest, _ = self._newest(slot)
        for which in (1 - newest, newest):  # so that no older state is ever the last one
            at = self._at(slot, which)
            _SEQUENCE.pack_into(self._memory, at, 0)
        self._free(self._at(slot, 0), 2 * self._copy_bytes)

    # --- parts

    def put_part(self, slot: int, at: int, data: bytes | memoryview) -> None:
        """Writes a part, or a piece of one, ``at`` bytes into the slot's room for them."""
        at = self._part_at(slot, at, len(data))
        self._memory[at : at + len(data)] = data

    def part(self, slot: int, at: int, size: int) -> bytes:
        """Those bytes of the slot's room for parts. Raises IndexError where they are not in it."""
        at = self._part_at(slot, at, size)
        return bytes(self._memory[at : at + size])

    def free_parts(self, slot: int, at: int, size: int) -> None:
        """Gives that memory back: whole pages of the slot's room for parts."""
        if size:
            self._free(self._part_at(slot, at, size), size)

    def _part_at(self, slot: int, at: int, size: int) -> int:
        if not (0 <= slot < self.slots and 0 <= at <= at + size <= self.parts_bytes):
            raise IndexError(slot)
        return 2 * self.slots * self._copy_bytes + slot * self.parts_bytes + at

    # --- copies

    def _at(self, slot: int, which: int) -> int:
        if not 0 <= slot < self.slots:
            raise IndexError(slot)
        return (2 * slot + which) * self._copy_bytes

    def _newest(self, slot: int) -> tuple[int, int]:
        """The copy that has the higher sequence, and that. Only what this object wrote is looked at so."""
        first, second = (_SEQUENCE.unpack_from(self._memory, self._at(slot, which))[0] for which in (0, 1))
        return (0, first) if first > second else (1, second)

    def _copy(self, slot: int, which: int) -> tuple[int, bytes] | None:
        at = self._at(slot, which)
        sequence, size, crc = _HEAD.unpack_from(self._memory, at)
        if not sequence or size > self.most_bytes:
            return None
        data = bytes(self._memory[at + _DATA_AT : at + _DATA_AT + size])
        return (sequence, data) if crc == _crc(sequence, data) else None


def _crc(sequence: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_CHECKED.pack(sequence, len(data))))
