"""The bytes that may be sent to an address before it has proved itself: less than three times what came from it (RFC
9000 section 8.1). A source address is easily invented, and its owner did not ask for our packets. Pure.
"""

from __future__ import annotations

__all__ = ["Allowance"]

_TIMES = 3


class Allowance:
    """The bytes of UDP payload that came from one address, and those that went there."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0

    def came(self, size: int) -> None:
        """Counts a datagram of ``size`` bytes that came from there."""
        self.received += size

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes may go there; if so, they count as sent."""
        if self.sent + size >= _TIMES * self.received:
            return False
        self.sent += size
        return True
