"""Hints for media from an unknown address: the SSRC suggests a transceiver, and nothing is believed because of it."""

from __future__ import annotations

from edge.xdp.kernel import FlowStore

__all__ = ["Hints"]


class Hints:
    """The SSRCs of flows by address. ``store`` is the kernel's map, which sends their packets to the core ``cpu``."""

    def __init__(self, store: FlowStore | None, cpu: int) -> None:
        self._store = store
        self._cpu = cpu
        self._held: dict[int, tuple[int, bytes]] = {}  # to the transceiver, and the flow that was last told of it
        self._of: dict[bytes, list[int]] = {}

    def transceiver(self, ssrc: int) -> int | None:
        """The transceiver that has a flow with that SSRC."""
        held = self._held.get(ssrc)
        return held[0] if held is not None else None

    def put(self, address: bytes, transceiver: int, ssrcs: list[int]) -> None:
        """Notes the flow's SSRCs. An SSRC stays with another transceiver's caller that had it first."""
        self.forget(address)
        ssrcs = [ssrc for ssrc in ssrcs if self.transceiver(ssrc) in (None, transceiver)]
        self._of[address] = ssrcs
        self._held.update(dict.fromkeys(ssrcs, (transceiver, address)))
        if self._store is not None:
            for ssrc in ssrcs:
                self._store.put_ssrc(ssrc, self._cpu)

    def move(self, address: bytes, transceiver: int) -> None:
        """Notes that the flow is ``transceiver``'s now."""
        self.put(address, transceiver, self._of.get(address, []))

    def forget(self, address: bytes) -> None:
        """Forgets the SSRCs of a flow that has ended."""
        for ssrc in self._of.pop(address, ()):
            if self._held.get(ssrc, (-1, b""))[1] != address:
                continue  # the caller moved: its new flow holds it now, or held it
            del self._held[ssrc]
            if self._store is not None and self._store.ssrc_holder(ssrc) == self._cpu:
                self._store.remove_ssrc(ssrc)
