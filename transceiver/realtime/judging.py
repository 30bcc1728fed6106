"""The judgement of pauses: how much silence ends a turn, by what a judge thinks of the speech before it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

__all__ = ["ASKS_MS", "EAGERNESS", "JUDGED_S", "Judge", "Judging", "Patience", "Words"]

Words = Callable[[bytes, int, Callable[[str | None], None]], None]
"""Says later which words are in PCM of a rate, or None where it cannot."""


class Judge(Protocol):
    """Who is asked about the caller's speech: mono PCM16 of a rate. Answers come later, and by ``tell``."""

    def ended(self, pcm: bytes, rate_hz: int, tell: Callable[[float | None], None]) -> None:
        """Tells how likely who speaks has finished, from 0 to 1, or None where nobody can say."""

    def words(self, pcm: bytes, rate_hz: int, tell: Callable[[str | None], None]) -> None:
        """Tells the words, none where nothing was said, or None where nobody can say."""


class Patience(NamedTuple):
    """The silence, in ms, that ends a turn: ``least_ms`` where it is over with a probability of ``sure`` or more, and
    ``most_ms`` where it is not."""

    sure: float
    least_ms: int
    most_ms: int

    def wait_ms(self, finished: float) -> int:
        """The silence that ends a turn which is over with that probability."""
        return self.least_ms if finished >= self.sure else self.most_ms


# Chosen by bench/endings; the longest waits are those of OpenAI's semantic_vad.
EAGERNESS = {
    "high": Patience(0.35, 300, 2000),
    "medium": Patience(0.5, 400, 4000),
    "auto": Patience(0.5, 400, 4000),
    "low": Patience(0.7, 600, 8000),
}
ASKS_MS: tuple[int, ...] = (200,)
"""The lengths of silence at which the judge is asked."""
JUDGED_S = 8
"""Of the turn so far: what the judge hears."""
_UNJUDGED_MS = 500  # of silence that end a turn of which the judge says nothing, as server_vad's
_PATIENCE_MS = 200  # and as much more, while it has been asked


class Judging:
    """The pauses of one caller, about which ``judge`` is asked."""

    def __init__(self, judge: Judge, rate_hz: int) -> None:
        self._judge, self._rate_hz = judge, rate_hz
        self._pause = 0  # the number of the present one
        self._asked = 0  # how often in that
        self._waits = False  # for an answer
        self._finished: float | None = None  # the last answer
        self._silent = False  # it says nothing

    def wait_ms(self, quiet_ms: int, patience: Patience, heard: Callable[[], bytes]) -> int:
        """The length of silence that ends the turn, of which there have been ``quiet_ms``; ``heard`` gives the last
        JUDGED_S of the turn."""
        if quiet_ms < ASKS_MS[0]:
            if self._asked:
                self._pause += 1
                self._asked, self._waits, self._finished, self._silent = 0, False, None, False
            return patience.most_ms
        if not self._waits and self._asked < len(ASKS_MS) and quiet_ms >= ASKS_MS[self._asked]:
            self._asked += 1
            self._waits = True
            self._judge.ended(heard(), self._rate_hz, partial(self._told, self._pause))
        if self._finished is None:
            return _UNJUDGED_MS if self._silent else _UNJUDGED_MS + _PATIENCE_MS
        return patience.wait_ms(self._finished)

    def _told(self, pause: int, finished: float | None) -> None:
        if pause != self._pause:
            return
        self._waits = False
        if finished is not None:
            self._finished = finished
        self._silent = finished is None
