"""Requests of agents' to other servers are counted by how they end, and timed until the answer begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from runtime.distribution import Distribution
from runtime.families import media
from runtime.metrics import Requests
from transceiver.speech import upstream as under_test
from transceiver.speech.tasks import Failure
from transceiver.speech.upstream import Asked, asked

Counts = Callable[[], dict[tuple[str, str], int]]


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Distribution:
    times = Distribution(media.UPSTREAM)
    monkeypatch.setattr(under_test, "UPSTREAM", times)
    return times


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """The requests so far, by service and outcome."""
    requests = Requests(media.UPSTREAM_REQUESTS)
    monkeypatch.setattr(under_test, "UPSTREAM_REQUESTS", requests)

    def counted() -> dict[tuple[str, str], int]:
        (family,) = requests.collect()
        return {(s.labels["service"], s.labels["outcome"]): int(s.value) for s in family.samples if s.value}

    return counted


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Failure("chat: 429"), "refused"),
        (TimeoutError(), "timeout"),
        (OSError("no route"), "broken"),
        (ValueError("nonsense"), "broken"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_request_that_fails_is_counted_by_why(
    times: Distribution, counts: Counts, error: BaseException, outcome: str
) -> None:
    with suppress(type(error)), asked("chat"):
        raise error
    assert counts() == {("chat", outcome): 1}


def test_a_request_that_is_answered_is_counted_as_that(times: Distribution, counts: Counts) -> None:
    def ask() -> str:
        with asked("speech") as request:
            request.began()
            return "at once"

    assert ask() == "at once"
    assert counts() == {("speech", "answered"): 1}


def test_the_beginning_of_an_answer_is_timed_once(times: Distribution, counts: Counts) -> None:
    request = Asked("realtime")
    request.began()
    request.began()
    (family,) = times.collect()
    began = {s.labels["service"]: s.value for s in family.samples if s.name.endswith("_count")}
    assert began == {"transcription": 0, "chat": 0, "speech": 0, "realtime": 1}
