"""Which transceiver a flow belongs to: a hash table in NumPy arrays, looked up a batch at a time.

Open addressing with linear probing of at most PROBES places; only proven flows are entered, so strangers cannot
fill it. Keys are the three 64 bit words that an 18 byte address makes.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

__all__ = ["NOBODY", "FlowTable"]

NOBODY = -1
PROBES = 16

Words = npt.NDArray[np.uint64]
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))


class FlowTable:
    """Up to half of ``capacity`` flows; each has an owner (int32) and the time it was last seen (seconds)."""

    def __init__(self, capacity: int = 1 << 17) -> None:
        self._mask = np.uint64((1 << (capacity - 1).bit_length()) - 1)
        places = int(self._mask) + 1
        self._keys: Words = np.zeros((places, 3), np.uint64)
        self._owner = np.full(places, NOBODY, np.int32)
        self._seen = np.zeros(places, np.float64)
        self._seed = np.uint64(secrets.randbits(64))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, addresses: npt.NDArray[np.uint8], now: float) -> npt.NDArray[np.int32]:
        """Owners of the (n, 18) ``addresses``, NOBODY where there is none; those found are seen at ``now``."""
        places = self._places(_words(addresses))
        found = places >= 0
        self._seen[places[found]] = now
        return np.where(found, self._owner[places], np.int32(NOBODY))

    def put(self, address: bytes, owner: int, now: float) -> bool:
        """Enters or changes a flow. False when there is no room: the caller counts it."""
        key = _one(address)
        place = int(self._places(key)[0])
        if place < 0:
            candidates = self._candidates(key)[0]
            free = candidates[self._owner[candidates] == NOBODY]
            if not len(free) or 2 * self._count > int(self._mask):
                return False
            place = int(free[0])
            self._keys[place] = key[0]
            self._count += 1
        self._owner[place] = owner
        self._seen[place] = now
        return True

    def remove(self, address: bytes) -> bool:
        """Forgets a flow; False if it was not there."""
        place = int(self._places(_one(address))[0])
        if place < 0:
            return False
        # Look-ups try all PROBES places, so a freed one breaks no chain.
        self._owner[place] = NOBODY
        self._count -= 1
        return True

    def idle(self, before: float) -> list[bytes]:
        """Addresses not seen since ``before``."""
        places = np.flatnonzero((self._owner != NOBODY) & (self._seen < before))
        return [self._keys[place].tobytes()[:18] for place in places]

    def _candidates(self, keys: Words) -> npt.NDArray[np.int64]:
        with np.errstate(over="ignore"):
            h = keys[:, 0] * _MIX[0] ^ keys[:, 1] * _MIX[1] ^ keys[:, 2] * _MIX[2] ^ self._seed
            h ^= h >> np.uint64(29)
            h *= _MIX[0]
            h ^= h >> np.uint64(32)
            probes = h[:, None] + np.arange(PROBES, dtype=np.uint64)
        places: npt.NDArray[np.int64] = (probes & self._mask).astype(np.int64)
        return places

    def _places(self, keys: Words) -> npt.NDArray[np.int64]:
        """Where each key stands, -1 for those that are not here."""
        candidates = self._candidates(keys)
        places = candidates[:, 0].copy()
        hit = (self._keys[places] == keys).all(axis=1) & (self._owner[places] != NOBODY)
        if hit.all():
            return places
        # Some do not stand in their first place: look at all of theirs at once.
        miss = np.flatnonzero(~hit)
        among = candidates[miss]
        match = (self._keys[among] == keys[miss, None]).all(axis=2) & (self._owner[among] != NOBODY)
        at = among[np.arange(len(miss)), match.argmax(axis=1)]
        places[miss] = np.where(match.any(axis=1), at, -1)
        return places


def _one(address: bytes) -> Words:
    return _words(np.frombuffer(address, np.uint8).reshape(1, 18))


def _words(addresses: npt.NDArray[np.uint8]) -> Words:
    padded = np.zeros((len(addresses), 24), np.uint8)
    padded[:, :18] = addresses
    return padded.view(np.uint64)
