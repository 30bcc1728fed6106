"""The maps that say to XDP which transceivers of this host take media themselves, and at which ports."""

from __future__ import annotations

from collections.abc import Collection

from bpf.layout import EXPRESS, U32, U64
from edge.xdp.kernel import BpfMap

__all__ = ["ExpressPorts"]


class ExpressPorts:
    """The ports of the transceivers that take media themselves, past the workers. XDP lets nobody else send there."""

    def __init__(self, express_fd: int, ports_fd: int) -> None:
        self._of = BpfMap(express_fd, U32.size, EXPRESS.size)
        self._bits = BpfMap(ports_fd, U32.size, U64.size)

    @property
    def by_transceiver(self) -> dict[int, int]:
        """The port of each transceiver to which media goes now."""
        return {U32.unpack(key)[0]: EXPRESS.unpack(value)[0] for key, value in self._of.items()}

    def seen(self, transceiver: int) -> int:
        """A number that has grown, modulo 2^32, when media went to the transceiver since it was last asked for: by
        about one a second for each flow. 0 where none goes."""
        value = self._of.lookup(U32.pack(transceiver))
        return int(EXPRESS.unpack(value)[1]) if value is not None else 0

    def client(self, transceiver: int) -> bytes | None:
        """The address (``wire/address.py``) of the client whose media was last seen to go there; None before that."""
        value = self._of.lookup(U32.pack(transceiver))
        _, seen, host, port = EXPRESS.unpack(value) if value is not None else (0, 0, b"", b"")
        return host + port if seen else None

    def guard(self, ports: Collection[int]) -> None:
        """Has XDP refuse what others send to these ports, and to no others. A port is to be guarded before media
        goes there, and for as long as its socket is open."""
        words = [0] * (1 << 10)
        for port in ports:
            words[port // 64] |= 1 << port % 64
        for at, bits in enumerate(words):
            key, value = U32.pack(at), U64.pack(bits)
            if self._bits.lookup(key) != value:
                self._bits.update(key, value)

    def put(self, transceiver: int, port: int) -> bool:
        """Has the media of the transceiver's flows go to ``port`` from now on. Returns False where there is no room."""
        return self._of.put(U32.pack(transceiver), EXPRESS.pack(port, 0, bytes(16), bytes(2)))

    def remove(self, transceiver: int) -> bool:
        """Has the media of the transceiver's flows go to the workers. Returns False where it does already."""
        return self._of.delete(U32.pack(transceiver))
