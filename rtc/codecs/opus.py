"""Opus by libopus (RFC 6716), called through ctypes so that the interpreter's lock is free while it works.

PyAV ships a newer libopus than Debian and is here for aiortc already, so its copy is used first; its file name
carries a hash. Restricted low-delay mode unless packets are lost: a third of the VOIP mode's time and 2.5 ms of
look-ahead instead of 6.5, but no copies of what came before.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from rtc.codecs.encoder_policy import Settings

__all__ = ["CLOCK_HZ", "SILENCE", "Decoder", "Encoder", "OpusError", "has_copy", "ticks_of"]

CLOCK_HZ = 48000

_VOIP = 2048
_RESTRICTED_LOWDELAY = 2051
_SET_BITRATE = 4002
_SET_COMPLEXITY = 4010
_SET_INBAND_FEC = 4012
_SET_PACKET_LOSS_PERC = 4014
_MAX_PACKET_BYTES = 1275
_MAX_FRAME_MS = 120

# One 20 ms CELT frame, fullband, mono, that decodes to digital silence.
SILENCE = b"\xf8\xff\xfe"


# Length of one frame by the upper five bits of a packet's first byte (RFC 6716 section 3.1), in units of 1/48000 s.
_SILK, _HYBRID, _CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)
_FRAME_TICKS = 3 * _SILK + 2 * _HYBRID + 4 * _CELT
_FIRST_CELT = 0x80
_LONGEST_TICKS = _MAX_FRAME_MS * CLOCK_HZ // 1000


class OpusError(ValueError):
    """A refusal by libopus, in its own words."""


def _names() -> Iterator[str]:
    spec = importlib.util.find_spec("av")
    if spec and spec.origin:
        yield from sorted(glob.glob(str(Path(spec.origin).parent.parent / "av.libs" / "libopus*.so*")))
    # The loader finds it by itself; find_library starts ldconfig, and where that finds nothing a compiler.
    yield "libopus.so.0"
    yield ctypes.util.find_library("opus") or "libopus.so"


def _load() -> ctypes.CDLL:
    for name in _names():
        try:
            lib = ctypes.CDLL(name)
        except OSError:
            continue
        for function in ("opus_encoder_create", "opus_decoder_create"):
            getattr(lib, function).restype = ctypes.c_void_p
        lib.opus_strerror.restype = ctypes.c_char_p
        return lib
    raise OpusError("libopus is not here: install PyAV (pip) or libopus0 (apt)")


_lib = _load()


def _check(result: int) -> int:
    if result < 0:
        raise OpusError(_lib.opus_strerror(result).decode())
    return result


def ticks_of(packet: bytes) -> int:
    """The length of ``packet`` in units of 1/48000 s (RFC 6716 sections 3.1 and 3.2); 0 where it cannot be a packet."""
    if not packet:
        return 0
    frames = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[packet[0] & 3]
    ticks = frames * _FRAME_TICKS[packet[0] >> 3]
    return ticks if ticks <= _LONGEST_TICKS else 0


def has_copy(packet: bytes) -> bool:
    """Whether ``packet`` also carries the one before it, at a lower rate (RFC 6716 section 4.2.4).

    Only packets of one frame are looked at, as everybody sends them.
    """
    if len(packet) < 2 or packet[0] >= _FIRST_CELT or packet[0] & 3:
        return False
    # A voice activity bit for each 20 ms and channel, and after those of each channel the bit that is asked for.
    spoken = max(_FRAME_TICKS[packet[0] >> 3] // 960, 1)
    copied = packet[1] >> (7 - spoken)
    if packet[0] & 4:
        copied |= packet[1] >> (6 - 2 * spoken)
    return bool(copied & 1)


class Encoder:
    """PCM to Opus, mono."""

    def __init__(self, rate_hz: int, settings: Settings | None = None) -> None:
        error = ctypes.c_int()
        self._rate_hz = rate_hz
        settings = settings or Settings()
        mode = _VOIP if settings.loss_percent else _RESTRICTED_LOWDELAY
        self._state = ctypes.c_void_p(_lib.opus_encoder_create(rate_hz, 1, mode, ctypes.byref(error)))
        _check(error.value)
        self._control(settings)
        self._out = ctypes.create_string_buffer(_MAX_PACKET_BYTES)

    def tuned(self, settings: Settings) -> Encoder:
        """An encoder with these settings: this one, or a new one where the mode changes, because libopus cannot change
        it under way."""
        if settings != self._settings:
            if bool(settings.loss_percent) != bool(self._settings.loss_percent):
                return Encoder(self._rate_hz, settings)
            self._control(settings)
        return self

    def _control(self, settings: Settings) -> None:
        self._settings = settings
        for request, value in (
            (_SET_BITRATE, settings.bitrate_bps),
            (_SET_COMPLEXITY, settings.complexity),
            (_SET_INBAND_FEC, int(settings.loss_percent > 0)),
            (_SET_PACKET_LOSS_PERC, settings.loss_percent),
        ):
            _check(_lib.opus_encoder_ctl(self._state, request, ctypes.c_int(value)))

    def encode(self, pcm: bytes) -> bytes:
        """One packet from one frame of 16 bit samples: 2.5, 5, 10, 20, 40 or 60 ms."""
        size = _check(_lib.opus_encode(self._state, pcm, len(pcm) // 2, self._out, _MAX_PACKET_BYTES))
        return ctypes.string_at(self._out, size)

    def __del__(self) -> None:
        if _lib and getattr(self, "_state", None):
            _lib.opus_encoder_destroy(self._state)


class Decoder:
    """Opus to PCM, mono: stereo is mixed down by the decoder."""

    def __init__(self, rate_hz: int) -> None:
        error = ctypes.c_int()
        self._state = ctypes.c_void_p(_lib.opus_decoder_create(rate_hz, 1, ctypes.byref(error)))
        _check(error.value)
        self._room = rate_hz * _MAX_FRAME_MS // 1000
        self._out = ctypes.create_string_buffer(2 * self._room)

    def decode(self, packet: bytes) -> bytes:
        """16 bit samples of ``packet``. Raises OpusError for a malformed one."""
        if not packet:
            raise OpusError("an empty packet")  # libopus would take it for a lost one
        return self._decode(packet, self._room, 0)

    def recover(self, packet: bytes, samples: int) -> bytes:
        """The last ``samples`` samples before ``packet``, decoded from the copy that it carries. Raises OpusError."""
        return self._decode(packet, samples, 1)

    def conceal(self, samples: int) -> bytes:
        """Samples that stand in for a lost packet of ``samples`` samples."""
        return self._decode(None, samples, 0)

    def _decode(self, packet: bytes | None, room: int, copy: int) -> bytes:
        size = len(packet) if packet else 0
        samples = _check(_lib.opus_decode(self._state, packet, size, self._out, room, copy))
        return ctypes.string_at(self._out, 2 * samples)

    def __del__(self) -> None:
        if _lib and getattr(self, "_state", None):
            _lib.opus_decoder_destroy(self._state)
