"""The media of one call as values. Times are ages in seconds."""

from __future__ import annotations

from msgspec import Struct

from rtc.codecs.encoder_policy import PolicyState
from rtc.jitter.buffer import JitterState
from rtc.rtp.state import ArrivalsState, HistoryState, KeypadState, MissingState, ReceptionState, SsrcState
from transceiver.parts import SoundState

__all__ = [
    "MediaState",
    "PlayoutState",
    "ReceiverState",
    "ReportsState",
    "VoiceState",
]


class VoiceState(Struct, frozen=True, array_like=True):
    """A voice as a value. ``sequence`` and ``timestamp`` are those of the next packet, ``waiting`` is speech that has
    not been sent, ``said`` the last 20 ms where they were speech, ``passed_offset`` how far a stream of packets that
    are passed on is ahead of its sender's clock."""

    ssrc: int
    sequence: int
    timestamp: int
    packets: int
    octets: int
    waiting: SoundState
    spoke: bool
    said: bytes
    passed_offset: int | None
    history: HistoryState


class PlayoutState(Struct, frozen=True, array_like=True):
    """A playout as a value. ``rest`` is what was decoded and not heard yet, ``left_out`` a frame that the next is to be
    joined with, ``comforted`` the frames of comfort noise in a row."""

    jitter: JitterState
    stats: dict[str, int]
    voiced: bool
    rest: bytes
    left_out: bytes
    comforted: int


class ReceiverState(Struct, frozen=True, array_like=True):
    """A receive side as a value, less its playout."""

    reception: ReceptionState
    source: SsrcState
    keypad: KeypadState
    arrivals: ArrivalsState
    missing: MissingState | None


class ReportsState(Struct, frozen=True, array_like=True):
    """The reports as a value. ``sent`` has the middle 32 bits of the NTP times of ours and how long ago they left,
    ``last`` is that of the peer's last one, which came ``last_s`` ago."""

    fraction_lost: float
    round_trip_s: float | None
    reports: int
    malformed: int
    sent: list[tuple[int, float]]
    last: int
    last_s: float


class MediaState(Struct, frozen=True, array_like=True):
    """The media of one call as a value: its clocks, what waits to be heard or said, and what the reports say."""

    voice: VoiceState
    playout: PlayoutState
    receiver: ReceiverState
    quality: PolicyState
    reports: ReportsState
    heard_ms: int
    ticks: int
