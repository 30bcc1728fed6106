"""Hints for media from an unknown address: the SSRC suggests a transceiver, and nothing is believed because of it."""

from __future__ import annotations

from edge.xdp.kernel import FlowStore
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["Hints"]


class Hints:
    """The SSRCs of flows by address, and those of flows elsewhere, at other edges. ``store`` is the kernel's map, which
    sends their packets to the core ``cpu``."""

    def __init__(self, store: FlowStore | None, cpu: int) -> None:
        self._store = store
        self._cpu = cpu
        self._held: dict[int, tuple[int, bytes]] = {}  # to the transceiver, and the flow that was last told of it
        self._of: dict[bytes, list[int]] = {}
        self._elsewhere: dict[int, int] = {}

    @property
    def here(self) -> dict[int, int]:
        """The transceiver of each SSRC of this worker's flows, but for those of other clusters' calls."""
        return {ssrc: at for ssrc, (at, _) in self._held.items() if at <= MAX_TRANSCEIVER}

    def transceiver(self, ssrc: int) -> int | None:
        """The transceiver that has a flow with that SSRC, here or elsewhere."""
        held = self._held.get(ssrc)
        return held[0] if held is not None else self._elsewhere.get(ssrc)

    def put(self, address: bytes, transceiver: int, ssrcs: list[int]) -> None:
        """Notes the flow's SSRCs. An SSRC stays with another transceiver's caller that had it first."""
        self.forget(address)
        ssrcs = [ssrc for ssrc in ssrcs if self._held.get(ssrc, (transceiver,))[0] == transceiver]
        self._of[address] = ssrcs
        self._held.update(dict.fromkeys(ssrcs, (transceiver, address)))
        for ssrc in ssrcs:
            self._steer(ssrc)

    def move(self, address: bytes, transceiver: int) -> None:
        """Notes that the flow is ``transceiver``'s now."""
        self.put(address, transceiver, self._of.get(address, []))

    def forget(self, address: bytes) -> None:
        """Forgets the SSRCs of a flow that has ended."""
        for ssrc in self._of.pop(address, ()):
            if self._held.get(ssrc, (-1, b""))[1] != address:
                continue  # the caller moved: its new flow holds it now, or held it
            del self._held[ssrc]
            self._unsteer(ssrc)

    def put_elsewhere(self, ssrc: int, transceiver: int) -> None:
        """Notes the SSRC of a flow at another edge. One of this worker's own flows goes before it."""
        self._elsewhere[ssrc] = transceiver
        if self._store is not None and self._store.ssrc_holder(ssrc) is None:
            self._steer(ssrc)

    def forget_elsewhere(self, ssrc: int) -> None:
        """Forgets the SSRC of a flow at another edge."""
        if self._elsewhere.pop(ssrc, None) is not None:
            self._unsteer(ssrc)

    def _steer(self, ssrc: int) -> None:
        if self._store is not None:
            self._store.put_ssrc(ssrc, self._cpu)

    def _unsteer(self, ssrc: int) -> None:
        if ssrc in self._held or ssrc in self._elsewhere or self._store is None:
            return
        if self._store.ssrc_holder(ssrc) == self._cpu:
            self._store.remove_ssrc(ssrc)
