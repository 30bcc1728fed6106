"""The receive side of one call, from RTP that authenticated to what its agent hears."""

from __future__ import annotations

from collections.abc import Callable

from transceiver import rtp
from transceiver.codec import Codec
from transceiver.counters import RX_DATAGRAMS, TARGET
from transceiver.hearing import Hearing
from transceiver.reception import Reception
from transceiver.rtp import Packet
from transceiver.source import BEGINS, STRANGER, Source

__all__ = ["Receiver"]


class Receiver:
    """``take`` each packet, and ``tick`` every 20 ms. Packets go to ``passed`` as they come where that is given, and
    else to ``hearing``."""

    def __init__(
        self, codec: Codec, payload_type: int, hearing: Hearing, passed: Callable[[Packet], None] | None = None
    ) -> None:
        self.reception = Reception(codec.clock_hz)
        self._payload_type = payload_type
        self._hearing = hearing
        self._passed = passed
        self._source = Source()
        self._targets = TARGET.of(codec.name)

    def take(self, plain: bytes, now: float) -> None:
        """An RTP packet that came at ``now``, in seconds. What is bad is dropped and counted."""
        packet = rtp.parse(plain)
        if packet is None:
            RX_DATAGRAMS["rtp_malformed"] += 1
            return
        if packet.payload_type != self._payload_type:
            RX_DATAGRAMS["other_payload"] += 1
            return
        admitted = self._source.admit(packet, now)
        if admitted == STRANGER:
            RX_DATAGRAMS["other_source"] += 1
            return
        RX_DATAGRAMS["audio"] += 1
        self.reception.add(packet, now, anew=admitted == BEGINS)
        if self._passed is not None:
            self._passed(packet)
            return
        if admitted == BEGINS:
            self._hearing.jitter.restart()
        self._hearing.push(packet, now)

    def tick(self, now: float) -> None:
        """The next 20 ms of what is heard are due."""
        if self._passed is None:
            self._hearing.tick(now)

    def observe(self) -> None:
        """Called about once a second: the buffer's target goes into the process's histogram."""
        if self._passed is None and self.reception.ssrc is not None:
            self._targets.add(int(self._hearing.jitter.wait_ms * 1e6))
