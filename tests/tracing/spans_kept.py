"""A place that spans go to, for a test to look at."""

from __future__ import annotations

from runtime.tracing.spans import Span


class Kept:
    """Has every span that ended, in order."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def admits(self) -> bool:
        return True

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]
