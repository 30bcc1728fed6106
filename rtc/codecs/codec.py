"""The codec of a call's audio, and what each end needs of it. Rates are 8000, 16000, 24000 or 48000 Hz."""

from __future__ import annotations

from typing import Protocol

from rtc.codecs import g711, opus
from rtc.codecs.encoder_policy import Settings

__all__ = ["CODECS", "OPUS", "Codec", "Decoder", "Encoder"]


class Decoder(Protocol):
    """A decoder from payloads to mono PCM16. It raises OpusError for a malformed payload."""

    def decode(self, packet: bytes) -> bytes:
        """The samples of one payload."""

    def recover(self, packet: bytes, samples: int) -> bytes:
        """The last ``samples`` samples before ``packet``, decoded from the copy in it."""

    def conceal(self, samples: int) -> bytes:
        """Samples that stand in for ``samples`` lost ones."""


class Encoder(Protocol):
    """An encoder from mono PCM16 to payloads."""

    def encode(self, pcm: bytes) -> bytes:
        """The payload for 20 ms."""

    def tuned(self, settings: Settings) -> Encoder:
        """The encoder to use under these settings: this one, or a new one."""


class Codec(Protocol):
    """The properties of a stream of one codec. ``silence`` is the payload for 20 ms of silence."""

    name: str
    clock_hz: int
    silence: bytes

    def ticks_of(self, payload: bytes) -> int:
        """The length of a payload in units of the RTP clock; 0 where it cannot be one."""

    def has_copy(self, payload: bytes) -> bool:
        """Whether a payload carries the packet before it too."""

    def decoder(self, rate_hz: int) -> Decoder:
        """A decoder to ``rate_hz``."""

    def encoder(self, rate_hz: int, settings: Settings) -> Encoder:
        """An encoder from ``rate_hz``."""


class _Opus:
    name = "opus"
    clock_hz = opus.CLOCK_HZ
    silence = opus.SILENCE
    ticks_of = staticmethod(opus.ticks_of)
    has_copy = staticmethod(opus.has_copy)

    def decoder(self, rate_hz: int) -> Decoder:
        return opus.Decoder(rate_hz)

    def encoder(self, rate_hz: int, settings: Settings) -> Encoder:
        return opus.Encoder(rate_hz, settings)


class _G711:
    clock_hz = 8000
    ticks_of = staticmethod(len)

    def __init__(self, law: g711.Law) -> None:
        self._law = law
        self.name = law.name
        self.silence = law.silence

    def has_copy(self, payload: bytes) -> bool:
        return False

    def decoder(self, rate_hz: int) -> Decoder:
        return g711.Decoder(self._law, rate_hz)

    def encoder(self, rate_hz: int, settings: Settings) -> Encoder:
        return g711.Encoder(self._law, rate_hz)


OPUS: Codec = _Opus()
# By their names in SDP.
CODECS: dict[str, Codec] = {
    "opus/48000/2": OPUS,
    "PCMU/8000": _G711(g711.MU_LAW),
    "PCMA/8000": _G711(g711.A_LAW),
}
