"""Audio inside events: base64 of PCM16 at 24 kHz or of G.711, to and from PCM at the rate of the agent."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from rtc.codecs import g711
from rtc.codecs.rate import Resampler
from transceiver.realtime import shapes
from transceiver.realtime.config import Config, InvalidRequest

__all__ = ["RATE_HZ", "Reader", "Writer", "bytes_ms", "samples"]

RATE_HZ = 24000
_LONGEST_ITEM_S = 120  # of speech
_LAWS = {"audio/pcmu": g711.MU_LAW, "audio/pcma": g711.A_LAW}


def bytes_ms(format_: str) -> int:
    """The number of bytes in a millisecond."""
    return 8 if format_ in _LAWS else 2 * RATE_HZ // 1000


class Reader:
    """A reader from a client's format to mono PCM16 of ``rate_hz``; it takes pieces of any length."""

    def __init__(self, format_: str, rate_hz: int) -> None:
        law = _LAWS.get(format_)
        self._decoder = g711.Decoder(law, rate_hz) if law is not None else None
        self._resampler = Resampler(RATE_HZ, rate_hz)
        self._odd = b""

    def cost_us(self, data: bytes) -> float:
        """About how long ``push`` takes for a piece, in microseconds of CPU: G.711 has a filter in numpy."""
        return 10 + len(data) / (400 if self._decoder is None else 6)

    def push(self, data: bytes) -> bytes:
        """The samples in ``data``; half a sample waits for its other half."""
        if self._decoder is not None:
            return self._decoder.decode(data)
        data = self._odd + data
        whole = len(data) & ~1
        self._odd = data[whole:]
        return self._resampler.push(data[:whole])

    def forget_half(self) -> None:
        """Drops half a sample whose other half will not come, because what comes next is another piece of audio."""
        self._odd = b""


class Writer:
    """A writer from mono PCM16 of ``rate_hz`` to base64 of a client's format."""

    def __init__(self, format_: str, rate_hz: int) -> None:
        law = _LAWS.get(format_)
        self._encoder = g711.Encoder(law, rate_hz) if law is not None else None
        self._resampler = Resampler(rate_hz, RATE_HZ)
        self._step = 2 * (rate_hz // 8000) if law is not None else 2
        self._rest = b""

    def push(self, pcm: bytes) -> str:
        """The part that is ready; G.711 is made of whole samples at 8 kHz."""
        pcm = self._rest + pcm
        whole = len(pcm) // self._step * self._step
        pcm, self._rest = pcm[:whole], pcm[whole:]
        if not pcm:
            return ""
        data = self._encoder.encode(pcm) if self._encoder is not None else self._resampler.push(pcm)
        return base64.b64encode(data).decode()


def samples(audio: str, config: Config, rate_hz: int) -> Iterator[tuple[bytes, float]]:
    """The samples at ``rate_hz`` in base64 of an item, in pieces, each with its cost in microseconds. Raises
    InvalidRequest where there are too many."""
    reader = Reader(config.input_format, rate_hz)
    left = 2 * rate_hz * _LONGEST_ITEM_S
    for data in shapes.samples(audio, "item.content.audio"):
        pcm = reader.push(data)
        left -= len(pcm)
        if left < 0:
            why = f"An item has at most {_LONGEST_ITEM_S} s of audio."
            raise InvalidRequest(why, "invalid_value", "item.content.audio")
        yield pcm, reader.cost_us(data)
