"""The flow table of a worker, from a client's address to its transceiver: a hash table in NumPy arrays, looked up by
the batch.

A flow's 18 byte address is three numbers, which secret odd multipliers make into one, its print (multiply, shift and
add, as in Lemire and Kaser, "Strongly universal string hashing is fast", 2014). No two IPv4 addresses have one print:
the port alone decides its low half, and the address moves the high one. Of IPv6 two may, by a chance in 2^64 that
nobody can improve without the multipliers. So the print stands for the address, and its high bits are where it is
looked for: open addressing with linear probing of at most PROBES places. Only proven flows are entered, so strangers
cannot fill it.
"""

from __future__ import annotations

import secrets
import socket

import numpy as np
import numpy.typing as npt

from runtime.batch import Words

__all__ = ["NOBODY", "FlowTable", "words"]

NOBODY = -1
PROBES = 16

Prints = npt.NDArray[np.uint64]


def words(addresses: npt.NDArray[np.uint8]) -> Words:
    """The three numbers of each of (n, 18) ``addresses``."""
    names = np.empty((len(addresses), 24), np.uint8)
    numbers = names.view(np.uint64)
    numbers[:, 0] = socket.AF_INET6
    names[:, 2:4] = addresses[:, 16:]
    names[:, 8:] = addresses[:, :16]
    return numbers[:, 0], numbers[:, 1], numbers[:, 2]


def _word(value: int) -> Prints:
    """An array of one number: combining it with another array takes half of the time that a NumPy scalar takes."""
    return np.array([value], np.uint64)


_HALF = _word(32)


class FlowTable:
    """Up to half of ``capacity`` flows; each has an owner (int32) and the time at which it was last seen (seconds)."""

    def __init__(self, capacity: int = 1 << 17) -> None:
        bits = max(1, (capacity - 1).bit_length())
        places = 1 << bits
        self._last = places - 1
        self._shift = _word(64 - bits)
        self._multipliers = tuple(_word(secrets.randbits(64) | 1) for _ in range(3))
        self._prints = np.zeros(places, np.uint64)
        self._owner = np.full(places, NOBODY, np.int32)
        self._seen = np.zeros(places, np.float64)
        self._addresses = np.zeros((places, 18), np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, asked: Words, seen: float | None = None) -> npt.NDArray[np.int32]:
        """The owners of the addresses, NOBODY where there is none. With ``seen``, flows that are found are marked as
        seen then."""
        prints = self._prints_of(asked)
        places = self._places(prints)
        owners: npt.NDArray[np.int32]
        if self._prints[places].tobytes() == prints.tobytes():
            # A free place has print 0, and so may an address that is not here: its owner is nobody then.
            owners = self._owner[places]
            if seen is not None:
                self._seen[places] = seen
            return owners
        at = self._probe(prints)
        found = at >= 0
        if seen is not None:
            self._seen[at[found]] = seen
        return np.where(found, self._owner[at], np.int32(NOBODY))

    def put(self, address: bytes, owner: int, now: float) -> bool:
        """Enters or changes a flow. Returns False when there is no room; the caller counts that."""
        prints = self._prints_of(_one(address))
        place = int(self._probe(prints)[0])
        if place < 0:
            candidates = self._candidates(prints)[0]
            free = candidates[self._owner[candidates] == NOBODY]
            if not len(free) or 2 * self._count > self._last:
                return False
            place = int(free[0])
            self._prints[place] = prints[0]
            self._addresses[place] = np.frombuffer(address, np.uint8)
            self._count += 1
        self._owner[place] = owner
        self._seen[place] = now
        return True

    def remove(self, address: bytes) -> bool:
        """Forgets a flow. Returns False if it was not there."""
        place = int(self._probe(self._prints_of(_one(address)))[0])
        if place < 0:
            return False
        # Look-ups try all PROBES places, so a freed one breaks no chain.
        self._owner[place] = NOBODY
        self._prints[place] = 0
        self._count -= 1
        return True

    def idle(self, before: float) -> list[bytes]:
        """The addresses that were not seen since ``before``."""
        places = np.flatnonzero((self._owner != NOBODY) & (self._seen < before))
        return [self._addresses[place].tobytes() for place in places]

    def of(self, owner: int) -> list[bytes]:
        """Addresses of the flows that ``owner`` has."""
        return [self._addresses[place].tobytes() for place in np.flatnonzero(self._owner == owner)]

    def _prints_of(self, asked: Words) -> Prints:
        port, high, low = self._multipliers
        prints = asked[1] * high
        prints ^= prints >> _HALF
        prints += asked[2]
        prints *= low
        prints += asked[0] * port
        return prints

    def _places(self, prints: Prints) -> npt.NDArray[np.int64]:
        """The place where each is looked for first. It is signed, because NumPy uses signed indices as they are and
        converts all others."""
        return (prints >> self._shift).view(np.int64)

    def _candidates(self, prints: Prints) -> npt.NDArray[np.int64]:
        return (self._places(prints)[:, None] + np.arange(PROBES)) & self._last

    def _probe(self, prints: Prints) -> npt.NDArray[np.int64]:
        """The place of each print, -1 for those that are not here."""
        candidates = self._candidates(prints)
        match = (self._prints[candidates] == prints[:, None]) & (self._owner[candidates] != NOBODY)
        at = candidates[np.arange(len(prints)), match.argmax(axis=1)]
        return np.where(match.any(axis=1), at, np.int64(-1))


def _one(address: bytes) -> Words:
    return words(np.frombuffer(address, np.uint8).reshape(1, 18))
