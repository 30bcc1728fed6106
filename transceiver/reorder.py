"""Puts RTP packets back in order. A gap is waited for until three later packets are there, then given up."""

from __future__ import annotations

from transceiver.rtp import Packet, sequence_distance

__all__ = ["PATIENCE", "Reorder"]

PATIENCE = 3
_RESET = 100


class Reorder:
    """Packets in, packets and gaps out. A packet is handed on at once if it is the next."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, Packet] = {}
        self.late = 0

    def push(self, packet: Packet) -> list[Packet | None]:
        """What can be played now, in order; None stands for a packet that is lost. Late ones and duplicates are
        counted in ``late``. A jump of more than 100 is a new beginning, not a loss."""
        if self._next is None or abs(sequence_distance(self._next, packet.sequence)) > _RESET:
            self._next = packet.sequence
            self._held.clear()
        if sequence_distance(self._next, packet.sequence) < 0 or packet.sequence in self._held:
            self.late += 1
            return []
        self._held[packet.sequence] = packet
        out: list[Packet | None] = []
        while self._held:
            ready = self._held.pop(self._next, None)
            if ready is None and len(self._held) < PATIENCE:
                break
            out.append(ready)
            self._next = (self._next + 1) & 0xFFFF
        return out
