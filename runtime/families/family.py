"""The definition of a family of metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Family", "Kind", "counter", "gauge", "histogram"]

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, tuple[str, ...] | str]


@dataclass(frozen=True, slots=True)
class Family:
    """A family. ``name`` is that of its samples, without ``_total``, ``_bucket`` and so on; ``means`` is one phrase
    with what is counted or measured; ``labels`` has for each label its values, or in words which there are; ``when``
    says when the family is there, if not always; ``bounds`` are those of a histogram's buckets, where it has its
    own."""

    name: str
    kind: Kind
    means: str
    labels: Labels = field(default_factory=dict)
    when: str = ""
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name that a query has; a histogram's has ``_bucket``, ``_sum`` and ``_count`` besides."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def unit(self) -> str:
        """The unit as the name says it, or nothing where the values are numbers of things."""
        last = self.name.rpartition("_")[2]
        return last if last in ("seconds", "bytes", "ratio", "info") else ""

    @property
    def values(self) -> tuple[str, ...]:
        """The values of its only label. Raises ValueError where it has more, or they are not known beforehand."""
        found = tuple(self.labels.values())
        if len(found) != 1 or not isinstance(found[0], tuple):
            raise ValueError(f"{self.name} has no label whose values are all known")
        return found[0]


def counter(name: str, means: str, labels: Labels | None = None, when: str = "") -> Family:
    """A number that only grows, until its process ends."""
    return Family(name, "counter", means, labels or {}, when)


def gauge(name: str, means: str, labels: Labels | None = None, when: str = "") -> Family:
    """A value of now."""
    return Family(name, "gauge", means, labels or {}, when)


def histogram(
    name: str, means: str, labels: Labels | None = None, when: str = "", bounds: tuple[float, ...] = ()
) -> Family:
    """Counts in buckets."""
    return Family(name, "histogram", means, labels or {}, when, bounds)
