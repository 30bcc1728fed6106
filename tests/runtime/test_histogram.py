"""Durations in buckets, and what Prometheus and a person make of them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runtime.families.family import histogram as histogram_family
from runtime.histogram import Durations, Histogram
from runtime.percentiles import between

SECOND = 1_000_000_000


def samples(histogram: Histogram) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(histogram)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for family in families for s in family.samples
    }


def buckets(durations: Durations) -> dict[str, float]:
    histogram = Histogram(histogram_family("t_seconds", "t", {"way": "any"}))
    histogram._durations["1"] = durations
    return {key[1]: value for key, value in samples(histogram).items() if key[0] == "t_seconds_bucket"}


@pytest.mark.parametrize("ns", [0, 1, 8191, 8192, 12287, 12288, 16383, 16384, 1_000_000, SECOND, 2**30, 59 * SECOND])
def test_a_duration_is_in_the_first_bucket_that_it_fits(ns: int) -> None:
    durations = Durations()
    durations.add(ns)
    for bound, count in buckets(durations).items():
        assert count == (ns < float(bound) * SECOND), bound


def test_prometheus_sees_a_histogram() -> None:
    histogram = Histogram(histogram_family("firsthop_t_seconds", "How long", {"transceiver": "any"}))
    histogram.of("1").add(1_000_000)
    histogram.of("1").add(3_000_000)
    assert histogram.of("2").counts == Durations().counts
    seen = samples(histogram)
    assert seen["firsthop_t_seconds_count", "1"] == 2
    assert seen["firsthop_t_seconds_sum", "1"] == pytest.approx(0.004)
    assert seen["firsthop_t_seconds_count", "2"] == 0
    assert seen["firsthop_t_left_out_total", "1"] == 0


@pytest.mark.parametrize("ns", [-1, -3600 * SECOND, 3600 * SECOND, 60 * SECOND, -(2**63), 2**64])
def test_what_a_clock_that_was_set_makes_of_a_duration_is_left_out(ns: int) -> None:
    durations = Durations()
    durations.add(ns)
    assert durations.left_out == 1
    assert sum(durations.counts) == durations.sum_ns == 0


@pytest.mark.parametrize("ms", [0.02, 0.3, 1.1, 7.0, 50.0, 900.0])
def test_percentiles_are_right_to_half_an_octave(ms: float) -> None:
    durations = Durations()
    for i in range(1000):
        durations.add(round(ms * 1e6) if i < 900 else 1000)
    found = between({}, buckets(durations))
    assert found is not None
    assert found.count == 1000
    assert ms / 1.5 <= found.p50_ms <= ms * 1.5
    assert ms / 1.5 <= found.p99_ms <= ms * 1.5


def test_what_is_beyond_all_bounds_counts_as_the_last() -> None:
    durations = Durations()
    durations.add(30 * SECOND)
    found = between({}, buckets(durations))
    assert found is not None
    assert found.p50_ms == found.p99_ms == pytest.approx(1073.7, abs=0.1)


def test_nothing_is_no_latency() -> None:
    assert between({}, {}) is None
    assert between({}, buckets(Durations())) is None
