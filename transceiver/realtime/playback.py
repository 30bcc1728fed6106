"""The playback of a response over a path that the server paces: it knows how much of the response the caller really
got.

Agents speak faster than real time. Their speech waits here and leaves in frames of 20 ms, so that at any moment it is
known which item is heard and where in it: an interruption drops the rest, and truncates the item there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from transceiver.parts import Parts, Sound, SoundState

__all__ = ["Cut", "Frame", "Playback", "PlaybackState"]

_LONGEST_S = 300  # that waits: as much as an answer may be ahead of its listener


@dataclass(slots=True)
class Frame:
    """20 ms of speech, or no ``pcm`` where there is nothing to say now; and the responses whose speech began with it or
    ended before it."""

    pcm: bytes = b""
    started: str = ""
    stopped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cut:
    """An item that was cut off: ``played_ms`` of it were sent, ``dropped_ms`` were not."""

    response: str
    item: str
    played_ms: int
    dropped_ms: int


@dataclass(slots=True)
class _Segment:
    response: str
    item: str
    waiting: Sound = field(default_factory=Sound)
    played_bytes: int = 0
    whole: bool = False


class PlaybackState(Struct, frozen=True, array_like=True):
    """A playback as a value. Segments have response, item, what waits, bytes that were played, and whether nothing more
    comes of them."""

    segments: list[tuple[str, str, SoundState, int, bool]]
    speaking: str
    played_ms: int


class Playback:
    """A queue of speech, mono PCM16 of ``rate_hz``, by item."""

    def __init__(self, rate_hz: int) -> None:
        self.played_ms = 0  # speech sent since the beginning
        self._bytes_ms = 2 * rate_hz // 1000
        self._frame_bytes = 20 * self._bytes_ms
        self._segments: deque[_Segment] = deque()
        self._speaking = ""  # the response whose speech has begun and has not stopped
        self.waiting_bytes = 0
        self._most_bytes = _LONGEST_S * 2 * rate_hz

    @property
    def response(self) -> str:
        """The response whose speech is being heard, or nothing."""
        return self._speaking

    @property
    def busy(self) -> bool:
        """Whether anything is being said or waits for it."""
        return bool(self._segments or self._speaking)

    def holds(self, response: str) -> bool:
        """Whether that response is heard, or waits for it."""
        return self._speaking == response or any(segment.response == response for segment in self._segments)

    def push(self, response: str, item: str, pcm: bytes) -> bool:
        """Adds to an item's speech. Returns False, and does nothing else, where too much waits."""
        if self.waiting_bytes + len(pcm) > self._most_bytes:
            return False
        last = self._segments[-1] if self._segments else None
        if last is None or last.item != item:
            if last is not None:
                last.whole = True
            last = _Segment(response, item)
            self._segments.append(last)
        last.waiting.put(pcm)
        self.waiting_bytes += len(pcm)
        return True

    def finish(self, response: str) -> None:
        """Tells that nothing more comes of that response."""
        for segment in self._segments:
            if segment.response == response:
                segment.whole = True

    def frame(self) -> Frame:
        """The next 20 ms."""
        frame = Frame()
        size = self._frame_bytes
        while self._segments:
            segment = self._segments[0]
            if segment.waiting and (segment.whole or len(segment.waiting) >= size):
                if self._speaking != segment.response:
                    self._stop(frame)
                    self._speaking = frame.started = segment.response
                pcm = segment.waiting.take(size)
                segment.played_bytes += len(pcm)
                self.waiting_bytes -= len(pcm)
                self.played_ms += 20
                frame.pcm = pcm.ljust(size, b"\0")
                return frame
            if not segment.whole:
                return frame  # the agent is still thinking of the rest
            self._segments.popleft()
        self._stop(frame)
        return frame

    def pass_over(self, frames: int) -> None:
        """Passes over what waits of the first item's speech, as far as so many frames go, because another process has
        sent them. Some of it stays, so that its end is found here."""
        if not self._segments:
            return
        segment, size = self._segments[0], self._frame_bytes
        frames = min(frames, max(0, len(segment.waiting) - 1) // size)
        segment.waiting.take(frames * size)
        segment.played_bytes += frames * size
        self.waiting_bytes -= frames * size
        self.played_ms += 20 * frames

    def hush(self) -> list[Cut]:
        """Drops all that was not sent. Returns every item that loses by it, or would have gone on, in order."""
        per_ms = self._bytes_ms
        cuts = [
            Cut(s.response, s.item, s.played_bytes // per_ms, len(s.waiting) // per_ms)
            for s in self._segments
            if s.waiting or not s.whole
        ]
        self._segments.clear()
        self.waiting_bytes = 0
        self._speaking = ""
        return cuts

    def _stop(self, frame: Frame) -> None:
        if self._speaking:
            frame.stopped.append(self._speaking)
            self._speaking = ""

    # --- as a value

    def export(self, parts: Parts) -> PlaybackState:
        """All of it."""
        segments = [(s.response, s.item, s.waiting.export(parts), s.played_bytes, s.whole) for s in self._segments]
        return PlaybackState(segments, self._speaking, self.played_ms)

    def take_up(self, state: PlaybackState, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off."""
        self._speaking, self.played_ms = state.speaking, state.played_ms
        for response, item, exported, played_bytes, whole in state.segments:
            waiting = Sound.taken_up(exported, parts, self._most_bytes)
            if self.waiting_bytes + len(waiting) > self._most_bytes:
                break
            self._segments.append(_Segment(response, item, waiting, played_bytes, whole))
            self.waiting_bytes += len(waiting)
