"""The ways back to clients that other clusters' edges pass on: by which of their workers each client's datagrams come.
Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Ways"]

# A flood of checks that others pass on has to bring as many addresses between two packets of a call to push it out.
_MOST = 1 << 16


class Ways:
    """The worker of each client, the latest ``most`` of them, by the client's address."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._of: dict[bytes, bytes] = {}  # who spoke last is last

    def __len__(self) -> int:
        return len(self._of)

    def came(self, addresses: npt.NDArray[np.uint8], worker: bytes) -> None:
        """Notes that datagrams of clients at (n, 18) ``addresses`` came by ``worker``."""
        for address in addresses:
            key = address.tobytes()
            self._of.pop(key, None)
            self._of[key] = worker
            if len(self._of) > self._most:
                del self._of[next(iter(self._of))]

    def back(self, address: bytes) -> bytes | None:
        """The worker by which that client comes."""
        return self._of.get(address)

    def split(self, addresses: npt.NDArray[np.uint8]) -> list[tuple[bytes, npt.NDArray[np.bool_]]]:
        """The workers by which (n, 18) ``addresses`` come, each with those of them that are its own."""
        backs: Sequence[bytes | None] = [self._of.get(address.tobytes()) for address in addresses]
        workers = dict.fromkeys(back for back in backs if back is not None)
        return [(worker, np.array([back == worker for back in backs])) for worker in workers]
