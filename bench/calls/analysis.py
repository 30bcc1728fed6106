"""The analysis of returned packets: how long the voice was on its way, what is missing, and how far from the 20 ms
schedule it came.

The round trip is heard, for every server alike. A stretch of what came back is looked for in what was said, by
cross-correlation of the two as they sound when decoded; that tells which moment of the voice each packet begins with.
Its round trip is from the moment when that was said to the packet's arrival. So it includes the time in the server's
buffers and in its codecs, while a packet that is passed on unchanged has just its way. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.calls.voice import FRAME_TICKS, Voice
from rtc.codecs.opus import Decoder, OpusError
from rtc.frame import FRAME_S, FRAMES_PER_S
from rtc.rtp.packet import Packet

__all__ = ["Heard", "figures", "quantiles"]

RATE_HZ = 8000
TICKS_A_SAMPLE = 48000 // RATE_HZ
FRAME = FRAME_TICKS // TICKS_A_SAMPLE
STRETCH = 15  # frames
LONGEST_S = 2.0
ALIKE = 0.6
AUDIBLE = 100.0  # of 32768, root mean square
SILENT_BYTES = 3  # what stands for silence is no frame of sound
NEAR_S = 0.005
PATIENCE = 25
MOST_FRAMES = 120 * FRAMES_PER_S

Floats = npt.NDArray[np.float64]


@dataclass
class Heard:
    """The record of one call: the ``packets`` that came back and when each ``arrived``, when each frame was ``said``,
    and the voice that said it from packet ``first`` on. Times are in seconds of one clock."""

    packets: list[Packet]
    arrived: Floats
    said: Floats
    voice: Voice
    first: int

    def __post_init__(self) -> None:
        stamps = np.array([p.timestamp for p in self.packets], np.int64)
        if len(stamps):
            # Timestamps wrap; steps between neighbours are small.
            steps = (np.diff(stamps) + (1 << 31)) % (1 << 32) - (1 << 31)
            stamps = np.concatenate([[0], np.cumsum(steps)])
            order = np.argsort(stamps, kind="stable")
            order = order[np.concatenate([[True], np.diff(stamps[order]) > 0])]
            self.packets = [self.packets[i] for i in order]
            self.arrived = self.arrived[order]
            stamps = stamps[order] - stamps[order[0]]
        self.stamps = stamps

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """Whether each packet carries more than a sign for silence."""
        return np.array([len(p.payload) > SILENT_BYTES for p in self.packets], bool)

    def pcm(self, rate_hz: int) -> bytes:
        """The sound that a listener hears who waits for every packet: in order, PCM16, with missing frames concealed. A
        frame is missing where timestamps leave a gap, and where packets come later for good, because a server that left
        out a frame gave the next its timestamp."""
        decoder, ticks = Decoder(rate_hz), 48000 // rate_hz
        out: list[bytes] = []
        missing = decoder.conceal
        expected = 0
        behind = self._behind()
        filled = 0
        for packet, stamp, frames in zip(self.packets, self.stamps, behind, strict=True):
            while (expected + FRAME_TICKS <= stamp or filled < frames) and len(out) < MOST_FRAMES:
                out.append(missing(FRAME_TICKS // ticks))
                if expected + FRAME_TICKS <= stamp:
                    expected += FRAME_TICKS
                else:
                    filled += 1
            try:
                out.append(decoder.decode(packet.payload))
            except OpusError:
                out.append(missing(FRAME_TICKS // ticks))
            expected = int(stamp) + len(out[-1]) // 2 * ticks
        return b"".join(out)

    def _behind(self) -> list[int]:
        """For each packet, by how many frames it and all of the next half second came later than any before."""
        transit = self.arrived - self.stamps / 48000
        soonest = [float(np.min(transit[i : i + PATIENCE])) for i in range(len(transit))]
        latest = np.maximum.accumulate(np.array(soonest)) if soonest else np.zeros(0)
        return [int((late - latest[0]) / FRAME_S + 0.25) for late in latest]

    def round_trips(self) -> Floats:
        """The round trip of each packet in seconds, nan where nothing like it was said in the two seconds before it
        came."""
        trips = np.full(len(self.packets), np.nan)
        if not len(self.packets):
            return trips
        returned = self._sound()
        spoken = _spoken(self.voice)
        for at in range(0, len(self.packets) - STRETCH, STRETCH):
            begin = int(self.stamps[at]) // TICKS_A_SAMPLE
            stretch = returned[begin : begin + STRETCH * FRAME]
            if len(stretch) < STRETCH * FRAME or np.sqrt(np.mean(stretch**2)) < AUDIBLE:
                continue
            # What came at some moment was said before it, at most so long.
            low = int(np.searchsorted(self.said, self.arrived[at] - LONGEST_S))
            high = int(np.searchsorted(self.said, self.arrived[at + STRETCH - 1]))
            if high - low <= STRETCH:
                continue
            where = (self.first * FRAME + np.arange(low * FRAME, high * FRAME)) % len(spoken)
            lag = _found(spoken[where], stretch)
            if lag is None:
                continue
            for i in range(at, at + STRETCH):
                # The place among what was said of this packet's first sample, in frames.
                place = low + (lag + int(self.stamps[i] - self.stamps[at]) / TICKS_A_SAMPLE) / FRAME
                if place < len(self.said):
                    k = int(place)
                    trips[i] = self.arrived[i] - (self.said[k] + (place - k) * FRAME_S)
        return trips

    def off_schedule(self, during: npt.NDArray[np.bool_]) -> Floats:
        """The seconds by which packets came before or after where the median of them says they should."""
        transit = self.arrived[during] - self.stamps[during] / 48000
        return np.abs(transit - np.median(transit)) if len(transit) else transit

    def _sound(self) -> Floats:
        decoder = Decoder(RATE_HZ)
        end = int(self.stamps[-1]) // TICKS_A_SAMPLE + RATE_HZ
        out = np.zeros(end)
        for packet, stamp in zip(self.packets, self.stamps, strict=True):
            try:
                pcm = np.frombuffer(decoder.decode(packet.payload), np.int16)
            except OpusError:
                continue
            begin = int(stamp) // TICKS_A_SAMPLE
            out[begin : begin + len(pcm)] = pcm[: max(0, end - begin)]
        return out


def figures(calls: Sequence[Heard], span: tuple[float, float]) -> dict[str, Any]:
    """The figures of all calls together, in milliseconds, for what was said and what came in ``span``."""
    trips: list[float] = []
    off: list[float] = []
    trips_of = [call.round_trips() for call in calls]
    everything = np.concatenate(trips_of) if trips_of else np.zeros(0)
    usual = float(np.nanmedian(everything)) if np.any(~np.isnan(everything)) else 0.0
    sent = returned = 0
    for call, mine in zip(calls, trips_of, strict=True):
        sent += int(np.sum((call.said >= span[0]) & (call.said < span[1])))
        if not len(call.packets):
            continue
        # What was said in the span counts, whenever it comes; where nobody can hear when that was, as its neighbours.
        heard = np.flatnonzero(~np.isnan(mine))
        trip = np.interp(np.arange(len(mine)), heard, mine[heard]) if len(heard) else usual
        began = call.arrived - trip
        during = (began >= span[0]) & (began < span[1])
        returned += int(np.sum(during & call.sound))
        trips += mine[during & ~np.isnan(mine)].tolist()
        off += call.off_schedule(during).tolist()
    return {
        "sent": sent,
        "returned": returned,
        "lost": max(0, sent - returned),
        "round_trip_ms": quantiles([1000 * trip for trip in trips]),
        "placed": len(trips),
        "off_schedule_ms": quantiles([1000 * x for x in off]),
        "near_schedule": sum(x <= NEAR_S for x in off) / len(off) if off else 0.0,
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p99, p99.9 and the maximum; None where there is nothing."""
    if not len(values):
        return dict.fromkeys(("p50", "p99", "p99.9", "max"))
    p50, p99, p999, most = (float(q) for q in np.quantile(values, (0.5, 0.99, 0.999, 1.0)))
    return {"p50": round(p50, 3), "p99": round(p99, 3), "p99.9": round(p999, 3), "max": round(most, 3)}


_SPOKEN: dict[int, Floats] = {}


def _spoken(voice: Voice) -> Floats:
    """One loop of the voice, as it sounds when nothing happens to it."""
    if id(voice) not in _SPOKEN:
        decoder = Decoder(RATE_HZ)
        pcm = b"".join(decoder.decode(packet) for packet in voice.packets)
        _SPOKEN[id(voice)] = np.frombuffer(pcm, np.int16).astype(np.float64)
    return _SPOKEN[id(voice)]


def _found(inside: Floats, stretch: Floats) -> int | None:
    """The place where ``stretch`` is most like ``inside``, by normalised cross-correlation; None where it is like
    nothing."""
    size = 1 << (len(inside) + len(stretch) - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(inside, size) * np.conj(np.fft.rfft(stretch, size)), size)
    places = len(inside) - len(stretch) + 1
    sums = np.concatenate([[0.0], np.cumsum(inside**2)])
    energy = sums[len(stretch) :] - sums[: -len(stretch)]
    alike = product[:places] / np.sqrt(np.maximum(energy * np.sum(stretch**2), 1.0))
    best = int(np.argmax(alike))
    return best if alike[best] >= ALIKE else None
