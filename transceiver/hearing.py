"""What the agent hears: one incoming RTP stream, put in order, decoded, cut into 20 ms frames and into turns."""

from __future__ import annotations

from collections.abc import Callable

from transceiver.counters import RX_FRAMES
from transceiver.opus import Decoder, OpusError
from transceiver.reorder import Reorder
from transceiver.rtp import Packet
from transceiver.turns import FRAME_BYTES, Turns
from transceiver.voice import RATE_HZ

__all__ = ["Hearing"]

_FRAME_SAMPLES = FRAME_BYTES // 2


class Hearing:
    """Calls ``heard(pcm, speaking)`` every 20 ms and ``turn("started" | "stopped")`` at the edges of speech."""

    def __init__(self, heard: Callable[[bytes, bool], None], turn: Callable[[str], None]) -> None:
        self._heard = heard
        self._turn = turn
        self._reorder = Reorder()
        self._decoder = Decoder(RATE_HZ)
        self._turns = Turns()
        self._samples = _FRAME_SAMPLES
        self._rest = b""

    def push(self, packet: Packet) -> None:
        """A packet that authenticated. What cannot be decoded is counted and concealed."""
        late = self._reorder.late
        for ready in self._reorder.push(packet):
            self._play(ready)
        RX_FRAMES["late"] += self._reorder.late - late

    def _play(self, packet: Packet | None) -> None:
        if packet is None or not packet.payload:
            RX_FRAMES["concealed"] += 1
            pcm = self._decoder.conceal(self._samples)
        else:
            try:
                pcm = self._decoder.decode(packet.payload)
                self._samples = len(pcm) // 2
                RX_FRAMES["heard"] += 1
            except OpusError:
                RX_FRAMES["malformed"] += 1
                pcm = self._decoder.conceal(self._samples)
        pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        for at in range(0, whole, FRAME_BYTES):
            frame = pcm[at : at + FRAME_BYTES]
            edge = self._turns.push(frame)
            if edge == "started":
                self._turn(edge)
            self._heard(frame, self._turns.speaking)
            if edge == "stopped":
                self._turn(edge)
        self._rest = pcm[whole:]
