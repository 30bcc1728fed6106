"""Says back what you said when you stop, and stops when you speak over it."""

from __future__ import annotations

from collections import deque

from transceiver.agents import Base, Line

_LEAD_IN_FRAMES = 15  # 300 ms from before speech was noticed
_LONGEST_FRAMES = 30 * 50


class Agent(Base):
    """Keeps one turn of speech, 30 s at most, and says it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._lead_in: deque[bytes] = deque(maxlen=_LEAD_IN_FRAMES)
        self._turn: deque[bytes] = deque(maxlen=_LONGEST_FRAMES)

    def heard(self, pcm: bytes, speaking: bool) -> None:
        (self._turn if speaking else self._lead_in).append(pcm)

    def speech_started(self) -> None:
        self.line.stop()
        self._turn.clear()
        self._turn.extend(self._lead_in)

    def speech_stopped(self) -> None:
        self.line.say(b"".join(self._turn))
        self._turn.clear()
        self._lead_in.clear()
