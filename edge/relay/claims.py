"""The rule for which transceiver may claim a client's address. Pure.

A worker passes checks on by the transceiver that their sealed ufrag names, and media from unknown addresses by an SSRC
that a transceiver knows. Only a transceiver that was passed something from an address can know whether the client there
is authentic; one that claims the address without that is wrong or lies.
"""

from __future__ import annotations

__all__ = ["Claims"]

# Under a flood of checks with one good ufrag from invented addresses this is more than half a second: longer than an
# answer takes.
_MOST = 1 << 15


class Claims:
    """The last ``most`` addresses from which something was passed on, each with the transceiver that had it last."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._passed: dict[bytes, int] = {}

    def passed(self, address: bytes, transceiver: int) -> None:
        """Notes that a datagram from ``address``, which was no flow of ``transceiver``, was passed on to it."""
        self._passed.pop(address, None)
        self._passed[address] = transceiver
        if len(self._passed) > self._most:
            del self._passed[next(iter(self._passed))]

    def taken(self, address: bytes, transceiver: int) -> bool:
        """Whether ``transceiver`` may have the flow; it can have it once."""
        if self._passed.get(address) != transceiver:
            return False
        del self._passed[address]
        return True
