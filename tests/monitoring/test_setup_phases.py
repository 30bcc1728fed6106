"""The phases of a call's setup, entered once each and in their order."""

from __future__ import annotations

import pytest

from runtime.distribution import Distribution
from runtime.families import transceiver
from transceiver import setup as under_test
from transceiver.setup import Setup


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """The process's histogram, empty."""
    times = Distribution(transceiver.SETUP)
    monkeypatch.setattr(under_test, "SETUP", times)
    return times


def entered(times: Distribution) -> dict[str, tuple[int, float]]:
    """How many there are of each phase that there is any of, and their sum."""
    (family,) = times.collect()
    counts = {s.labels["phase"]: int(s.value) for s in family.samples if s.name.endswith("_count")}
    sums = {s.labels["phase"]: s.value for s in family.samples if s.name.endswith("_sum")}
    return {phase: (count, round(sums[phase], 6)) for phase, count in counts.items() if count}


def test_each_phase_lasts_from_the_end_of_the_one_before(times: Distribution) -> None:
    setup = Setup(100.0)
    setup.proven(100.1)
    setup.secured(100.3)
    setup.heard(100.7)
    assert entered(times) == {"ice": (1, 0.1), "dtls": (1, 0.2), "total": (1, 0.3), "audio": (1, 0.4)}


def test_what_happens_again_is_not_entered_again(times: Distribution) -> None:
    setup = Setup(0.0)
    for now in (1.0, 2.0):
        setup.proven(now)
    for now in (3.0, 4.0):
        setup.secured(now)
    for now in (5.0, 6.0):
        setup.heard(now)
    assert entered(times) == {"ice": (1, 1.0), "dtls": (1, 2.0), "total": (1, 3.0), "audio": (1, 2.0)}


def test_a_call_that_began_elsewhere_enters_nothing(times: Distribution) -> None:
    Setup(0.0).heard(5.0)
    assert entered(times) == {}


def test_a_call_that_never_gets_its_keys_has_no_total(times: Distribution) -> None:
    Setup(0.0).proven(1.0)
    assert entered(times) == {"ice": (1, 1.0)}
