"""The stages of an answer: when its words were heard, thought of and spoken, each up to the first result. Pure but for
the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from runtime.tracing.spans import now

__all__ = ["ASKED", "Part", "Stage", "Stages"]

ASKED = "firsthop.stages.retrieve"
"""The type of a client's event that asks for the stages of the last answer. It is not OpenAI's."""

Part = Literal["ears", "mind", "voice"]
_MOST_TEXT = 200  # characters


@dataclass(slots=True)
class Stage:
    """One stage: seconds of a monotonic clock, and the first words that came of it."""

    began: float
    gave: float | None = None
    text: str = ""


class Stages:
    """The stages of one answer, to what was said until ``silent_at``."""

    def __init__(self, silent_at: float, clock: Callable[[], float] = now) -> None:
        self._silent_at, self._clock = silent_at, clock
        self.of: dict[Part, Stage] = {}

    def began(self, part: Part, at: float | None = None) -> None:
        """Takes note that ``part`` is asked, now or ``at`` a time before; later calls change nothing."""
        self.of.setdefault(part, Stage(self._clock() if at is None else at))

    def gave(self, part: Part, text: str) -> None:
        """Takes note of the first that ``part`` gives; later calls change nothing."""
        stage = self.of.get(part)
        if stage is not None and stage.gave is None:
            stage.gave, stage.text = self._clock(), text.strip()[:_MOST_TEXT]

    def event(self, response: str) -> dict[str, Any]:
        """The stages as an event for the client; its times are ms since the caller fell silent."""
        stages = [
            {"name": part, "begin_ms": self._ms(stage.began), "end_ms": self._ms(stage.gave), "text": stage.text}
            for part, stage in self.of.items()
            if stage.gave is not None
        ]
        return {"type": "firsthop.stages", "response_id": response, "stages": stages}

    def _ms(self, at: float) -> float:
        return round(1000 * (at - self._silent_at), 1)
