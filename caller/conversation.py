"""The measurements of one call's voice: which frames come home, and how soon somebody answers.

Pure: the time of every packet is an argument, in seconds of one monotonic clock.
"""

from __future__ import annotations

from array import array

from caller.voice import Voice

__all__ = ["Conversation"]


class Conversation:
    """The record of which sent frames came home, and how soon somebody answers.

    A received payload that is one of ours, sent less than ``RECENT_S`` ago, is an echo: a round-trip sample. An
    agent that speaks for itself is measured by its response time, from the end of our speech to its first sound
    after silence; and, where we begin to speak while it does, by its barge-in time: from then to its last sound.
    """

    RECENT_S = 2.0
    # Opus codes digital silence in 3 bytes; comfort noise takes a little more.
    _SILENT_BYTES = 10
    _SILENT_AFTER_S = 0.1
    _HUSHED_AFTER_S = 0.3  # more than the gaps between words

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._sent_at = [-1.0] * len(voice.frames)
        self._ordinal = [0] * len(voice.frames)
        self._first_echoed: int | None = None
        self._turn_ended_at: float | None = None
        self._spoke_over_at: float | None = None
        self._sound_at = float("-inf")
        self.sent = 0
        self.returned = 0
        self.round_trip_ms = array("d")
        self.response_ms = array("d")
        self.barge_in_ms = array("d")

    @property
    def expected(self) -> int:
        """Frames sent since the first that came home: what a perfect echo would have returned by now."""
        return 0 if self._first_echoed is None else self.sent - self._first_echoed

    def sent_frame(self, index: int, now: float) -> None:
        """Notes that frame ``index`` of the voice leaves."""
        self._sent_at[index] = now
        self._ordinal[index] = self.sent
        self.sent += 1
        if index in self._voice.turn_starts and self._speaks(now):
            self._spoke_over_at = now
        if index in self._voice.turn_ends:
            # Whoever is still speaking now does not answer this turn.
            self._turn_ended_at = None if self._speaks(now) else now

    def received_payload(self, payload: bytes, now: float) -> None:
        """Takes a payload that came for the first time."""
        index = self._voice.frame_of.get(payload)
        if index is not None and self._sent_at[index] >= 0 and now - self._sent_at[index] < self.RECENT_S:
            self.round_trip_ms.append((now - self._sent_at[index]) * 1000)
            self._sent_at[index] = -1.0
            self.returned += 1
            if self._first_echoed is None:
                self._first_echoed = self._ordinal[index]
            return
        hushed = now - self._sound_at >= self._HUSHED_AFTER_S
        if self._spoke_over_at is not None and hushed and not self.returned:
            self.barge_in_ms.append(max(0.0, self._sound_at - self._spoke_over_at) * 1000)
            self._spoke_over_at = None
        if len(payload) > self._SILENT_BYTES:
            # Who has echoed is an echo: a frame of ours that comes later than RECENT_S is just very late.
            if self._turn_ended_at is not None and not self.returned:
                self.response_ms.append((now - self._turn_ended_at) * 1000)
                self._turn_ended_at = None
            self._sound_at = now

    def _speaks(self, now: float) -> bool:
        """Whether the agent was heard a moment ago."""
        return now - self._sound_at < self._SILENT_AFTER_S
