"""A judge for simulations: the models of this machine, whose answers come a fixed time after the question."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from rtc.frame import FRAME_MS
from transceiver.engine.sound import Samples, samples

__all__ = ["ANSWER_MS", "Later"]

ANSWER_MS = 100
"""Smart Turn takes 65 to 70 ms and Whisper 90 to 140 on a quiet core."""

Answer = TypeVar("Answer")


class Later:
    """``ended`` and ``words`` are the models, None where nobody is asked. ``tick`` moves its clock by 20 ms; of one
    sound a model is asked once. ``asked`` counts questions, and ``heard`` keeps the words that were answered."""

    def __init__(
        self, ended: Callable[[Samples], float] | None = None, words: Callable[[Samples], str] | None = None
    ) -> None:
        self._ended, self._words = ended, words
        self._known_ended: dict[bytes, float] = {}
        self._known_words: dict[bytes, str] = {}
        self._due: list[tuple[int, Callable[[], None]]] = []
        self._now = 0
        self.asked = 0
        self.heard: list[str] = []

    def ended(self, pcm: bytes, rate_hz: int, tell: Callable[[float | None], None]) -> None:
        """As ``transceiver.realtime.judging.Judge``'s."""
        self._ask(self._ended, self._known_ended, pcm, rate_hz, tell)

    def words(self, pcm: bytes, rate_hz: int, tell: Callable[[str | None], None]) -> None:
        """As ``transceiver.realtime.judging.Judge``'s."""
        words = self._ask(self._words, self._known_words, pcm, rate_hz, tell)
        if words is not None:
            self.heard.append(words)

    def _ask(
        self,
        model: Callable[[Samples], Answer] | None,
        known: dict[bytes, Answer],
        pcm: bytes,
        rate_hz: int,
        tell: Callable[[Answer | None], None],
    ) -> Answer | None:
        self.asked += 1
        if model is None:
            tell(None)
            return None
        name = hashlib.sha256(pcm).digest()
        if name not in known:
            known[name] = model(samples(pcm, rate_hz))
        self._due.append((self._now + ANSWER_MS, partial(tell, known[name])))
        return known[name]

    def tick(self) -> None:
        """Tells what is due."""
        self._now += FRAME_MS
        due, self._due = self._due, [each for each in self._due if each[0] > self._now]
        for at, tell in due:
            if at <= self._now:
                tell()
