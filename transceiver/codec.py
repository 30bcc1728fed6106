"""The codec of a call's audio, and what each end needs of it."""

from __future__ import annotations

from typing import Protocol

from transceiver import opus

__all__ = ["OPUS", "Codec", "Decoder"]


class Decoder(Protocol):
    """From payloads to mono PCM16. Raises OpusError for a malformed payload."""

    def decode(self, packet: bytes) -> bytes:
        """The samples of one payload."""

    def recover(self, packet: bytes, samples: int) -> bytes:
        """The last ``samples`` samples before ``packet``, from the copy in it."""

    def conceal(self, samples: int) -> bytes:
        """What stands in for so many samples that are lost."""


class Codec(Protocol):
    """What a stream of one codec looks like."""

    name: str
    clock_hz: int

    def ticks_of(self, payload: bytes) -> int:
        """How long it is, in units of the RTP clock; 0 where that cannot be."""

    def has_copy(self, payload: bytes) -> bool:
        """Whether it carries the packet before it too."""

    def decoder(self, rate_hz: int) -> Decoder:
        """A decoder to ``rate_hz``: 8000, 16000, 24000 or 48000."""


class _Opus:
    name = "opus"
    clock_hz = opus.CLOCK_HZ
    ticks_of = staticmethod(opus.ticks_of)
    has_copy = staticmethod(opus.has_copy)

    def decoder(self, rate_hz: int) -> Decoder:
        return opus.Decoder(rate_hz)


OPUS: Codec = _Opus()
