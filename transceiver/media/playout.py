"""The playout of an incoming RTP stream: jitter buffer and decoder make frames of 20 ms, which the agent hears.

Packets come when they come; ``tick`` is called by the call's 20 ms clock and makes one frame of what is due.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import numpy as np

from rtc.codecs.codec import Codec
from rtc.codecs.opus import OpusError
from rtc.frame import frame_bytes
from rtc.jitter.buffer import COMFORT, CONCEAL, EXPAND, NOTHING, RECOVER, SHORTEN, Came, JitterBuffer
from rtc.rtp.packet import Packet
from transceiver.counters import RX_FRAMES
from transceiver.media.state import PlayoutState

__all__ = ["Playout"]

_MOST_PIECES = 10  # a frame of 2.5 ms packets is eight
_QUIET_RMS = 200.0
_COMFORTED = 50  # frames in a row: an encoder that means it says so again every 400 ms
_HEARD = {Came.FRESH: "heard", Came.COPY: "red", Came.AGAIN: "nack"}


class Playout:
    """The playout of one stream. It calls ``heard(pcm)`` once a tick, from the first packet on, which returns whether
    that was voice. ``stats`` counts what ``RX_FRAMES`` counts, of this stream alone."""

    def __init__(self, codec: Codec, rate_hz: int, heard: Callable[[bytes], bool]) -> None:
        self.codec = codec
        self.jitter = JitterBuffer(codec.clock_hz, codec.ticks_of, codec.has_copy)
        self.stats: Counter[str] = Counter()
        self._heard = heard
        self._decoder = codec.decoder(rate_hz)
        self._voiced = False
        self._frame_bytes = frame_bytes(rate_hz)
        self._rate_hz, self._clock_hz = rate_hz, codec.clock_hz
        self._piece_samples = rate_hz // 400
        self._rest = b""
        self._left_out = b""
        self._comforted = 0

    def push(self, packet: Packet, now: float, came: int = Came.FRESH) -> bool:
        """Takes a packet that authenticated, at ``now`` in seconds. Returns False where it was of no use."""
        dropped = self.jitter.dropped
        why = self.jitter.push(packet, now, came)
        if self.jitter.dropped != dropped:
            self._count("overflow", self.jitter.dropped - dropped)
        if why and came == Came.FRESH:
            self._count(why)
        return not why

    def tick(self, now: float) -> None:
        """Makes the next 20 ms, which are due. What cannot be decoded is counted and concealed."""
        size = self._frame_bytes
        pcm = self._rest
        for _ in range(_MOST_PIECES):
            if len(pcm) >= size:
                break
            piece = self._piece(now)
            if piece is None:
                return
            if self._left_out and piece:
                piece = _crossfade(self._left_out, piece)
                self._left_out = b""
            pcm = pcm + piece if pcm else piece
        frame, self._rest = pcm[:size].ljust(size, b"\0"), pcm[size:]
        self._voiced = self._heard(frame)

    def _piece(self, now: float) -> bytes | None:
        """The samples of one packet or its substitute, none where a packet was left out; None before anything
        has come."""
        jitter, decoder = self.jitter, self._decoder
        action = jitter.pop(now, not self._voiced)
        if action == NOTHING:
            return None
        samples = jitter.ticks * self._rate_hz // self._clock_hz
        # Decoders invent whole pieces of 2.5 ms; timestamps may say anything.
        samples = max(samples - samples % self._piece_samples, self._piece_samples)
        if action == COMFORT:
            self._count("comfort")
            self._comforted += 1
            return decoder.conceal(samples) if self._comforted <= _COMFORTED else bytes(2 * samples)
        self._comforted = 0
        if action in (CONCEAL, EXPAND):
            self._count("concealed" if action == CONCEAL else "expanded")
            return decoder.conceal(samples)
        try:
            if action == RECOVER:
                pcm = decoder.recover(jitter.payload, samples)
                self._count("fec")
                return pcm
            pcm = decoder.decode(jitter.payload)
        except OpusError:
            self._count("malformed")
            return decoder.conceal(self._frame_bytes // 2)
        self._count(_HEARD[jitter.came])
        if action == SHORTEN and (jitter.urgent or (not self._voiced and _rms(pcm) < _QUIET_RMS)):
            self._count("accelerated")
            self._left_out = pcm
            return b""
        return pcm

    def export(self, now: float) -> PlayoutState:
        """All of it except for the decoder."""
        jitter = self.jitter.export(now)
        return PlayoutState(jitter, dict(self.stats), self._voiced, self._rest, self._left_out, self._comforted)

    def take_up(self, state: PlayoutState, now: float) -> None:
        """Goes on where ``export`` left off. A new decoder that is given what was played last goes on with hardly a
        crack."""
        self.jitter.take_up(state.jitter, now)
        self.stats.update(state.stats)
        self._voiced, self._left_out, self._comforted = state.voiced, state.left_out, state.comforted
        self._rest = state.rest[: 2 * self._frame_bytes]
        if state.jitter.payload:
            with contextlib.suppress(OpusError):
                self._decoder.decode(state.jitter.payload)

    def _count(self, outcome: str, count: int = 1) -> None:
        RX_FRAMES[outcome] += count
        self.stats[outcome] += count


def _rms(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, np.int16).astype(np.float32)
    return float(np.sqrt(samples @ samples / max(len(samples), 1)))


def _crossfade(old: bytes, new: bytes) -> bytes:
    """``new``, which begins as ``old`` did, faded in, so that there is no click where something was left out."""
    count = min(len(old), len(new)) // 2
    fade = np.linspace(0.0, 1.0, count, dtype=np.float32)
    into = np.frombuffer(new, np.int16)
    mixed = np.frombuffer(old, np.int16)[:count] * (1 - fade) + into[:count] * fade
    return mixed.astype(np.int16).tobytes() + new[2 * count :]
