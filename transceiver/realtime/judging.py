"""The judgement of pauses: how much silence ends a turn, by what a judge thinks of the speech before it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

__all__ = ["EAGERNESS", "JUDGED_S", "Judge", "Judging", "Patience"]


class Judge(Protocol):
    """Who is asked about the caller's speech: mono PCM16 of a rate. Answers come later, and by ``tell``."""

    def ended(self, pcm: bytes, rate_hz: int, tell: Callable[[float | None], None]) -> None:
        """Tells how likely who speaks has finished, from 0 to 1, or None where nobody can say."""

    def words(self, pcm: bytes, rate_hz: int, tell: Callable[[str | None], None]) -> None:
        """Tells the words, none where nothing was said, or None where nobody can say."""


class Patience(NamedTuple):
    """The silence, in ms, that ends a turn: ``least_ms`` where it is over with a probability of ``sure`` or more,
    ``most_ms`` where it is surely not, and ``doubtful_ms`` between."""

    sure: float
    least_ms: int
    doubtful_ms: int
    most_ms: int

    def wait_ms(self, finished: float) -> int:
        """The silence that ends a turn which is over with that probability."""
        if finished >= self.sure:
            return self.least_ms
        return self.doubtful_ms if finished >= _UNFINISHED else self.most_ms


# By the figures of bench/endings. The longest waits are those of OpenAI's semantic_vad; of whole sentences 3 % come to
# them.
EAGERNESS = {
    "high": Patience(0.35, 240, 800, 2000),
    "medium": Patience(0.5, 300, 1200, 4000),
    "auto": Patience(0.5, 300, 1200, 4000),
    "low": Patience(0.9, 400, 1500, 8000),
}
JUDGED_S = 8
"""Of the turn so far: what the judge hears."""
_ASKS_MS = 160  # of silence, after which the judge is asked: it is no surer later
_UNFINISHED = 0.05  # less is surely not over
_UNJUDGED_MS = 500  # of silence that end a turn of which the judge says nothing, as server_vad's
_PATIENCE_MS = 200  # and as much more, while it has been asked


class Judging:
    """The pauses of one caller; ``judge`` is asked once in each."""

    def __init__(self, judge: Judge, rate_hz: int) -> None:
        self._judge, self._rate_hz = judge, rate_hz
        self._pause = 0  # the number of the present one
        self._asked = -1  # the number of the one of which the judge was asked last
        self._finished: float | None = None  # what it said of that
        self._silent = False  # it says nothing

    def wait_ms(self, quiet_ms: int, patience: Patience, heard: Callable[[], bytes]) -> int:
        """The length of silence that ends the turn, of which there have been ``quiet_ms``; ``heard`` gives the last
        JUDGED_S of the turn."""
        if quiet_ms < _ASKS_MS:
            if self._asked == self._pause:
                self._pause += 1
            return patience.most_ms
        if self._asked != self._pause:
            self._asked, self._finished, self._silent = self._pause, None, False
            self._judge.ended(heard(), self._rate_hz, partial(self._told, self._pause))
        if self._finished is None:
            return _UNJUDGED_MS if self._silent else _UNJUDGED_MS + _PATIENCE_MS
        return patience.wait_ms(self._finished)

    def _told(self, pause: int, finished: float | None) -> None:
        if pause == self._pause:
            self._finished, self._silent = finished, finished is None
