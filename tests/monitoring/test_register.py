"""The register of metrics keeps to Prometheus's conventions, and nothing that a caller chooses is a label."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from runtime.distribution import Distribution
from runtime.families import edge, media, page, shared, transceiver
from runtime.families.family import Family, counter
from runtime.metrics import Requests, Tally

FAMILIES = {family.name: family for _, families in page.PROCESSES.values() for family in families}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_name_keeps_to_the_conventions(family: Family) -> None:
    assert re.fullmatch(r"firsthop(_[a-z]+)+", family.name)
    assert not re.search(r"_(total|count|sum|bucket|ms|millis|us|minutes|kb|mib|percent)\b", family.name)
    assert family.means == family.means.strip().rstrip(".")
    if family.kind == "histogram":
        assert family.unit in ("seconds", "ratio")
        assert list(family.bounds) == sorted(set(family.bounds))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_labels_are_bounded(family: Family) -> None:
    """A call's id, an address or a name that a client chose would make a series for each."""
    callers = {"call", "call_id", "session", "ufrag", "address", "ip", "client", "user", "key", "token", "path", "url"}
    assert callers.isdisjoint(family.labels)
    for values in family.labels.values():
        assert len(values) == len(set(values)) if isinstance(values, tuple) else values


def test_a_family_is_of_one_definition() -> None:
    for _, families in page.PROCESSES.values():
        for family in families:
            assert FAMILIES[family.name] == family


@pytest.mark.parametrize("module", [shared, edge, media, transceiver], ids=lambda module: module.__name__)
def test_each_definition_is_of_some_process(module: ModuleType) -> None:
    defined = [each for name in module.__all__ if isinstance(each := getattr(module, name), Family)]
    assert defined
    assert not [family.name for family in defined if family.name not in FAMILIES]


def test_each_family_is_on_the_page() -> None:
    text = page.markdown()
    for family in FAMILIES.values():
        assert f"| `{family.exposed}` |" in text


def test_a_tally_stands_at_0_under_all_values_before_anything_happens() -> None:
    (found,) = Tally(counter("firsthop_t", "t", {"outcome": ("one", "other")})).collect()
    assert {sample.labels["outcome"]: sample.value for sample in found.samples} == {"one": 0, "other": 0}
    with pytest.raises(ValueError, match="no label"):
        Tally(counter("firsthop_t", "t", {"of": "any"}))


def test_requests_count_by_all_of_their_labels() -> None:
    requests = Requests(media.UPSTREAM_REQUESTS)
    requests.add("chat", "timeout")
    requests.add("chat", "timeout")
    (found,) = requests.collect()
    counted = {(s.labels["service"], s.labels["outcome"]): s.value for s in found.samples}
    assert counted.pop(("chat", "timeout")) == 2
    assert len(counted) == 4 * 5 - 1
    assert not any(counted.values())


def test_a_distribution_has_each_amount_in_the_buckets_that_it_fits() -> None:
    times = Distribution(transceiver.SETUP)
    for seconds in (0.02, 0.021, 1.0, 99.0):
        times.add(seconds, "ice")
    (found,) = times.collect()
    buckets = {
        sample.labels["le"]: sample.value
        for sample in found.samples
        if sample.name.endswith("_bucket") and sample.labels["phase"] == "ice"
    }
    assert buckets["0.02"] == 1
    assert buckets["0.75"] == 2
    assert buckets["1.0"] == 3
    assert buckets["10.0"] == 3
    assert buckets["+Inf"] == 4
    sums = {s.labels["phase"]: s.value for s in found.samples if s.name.endswith("_sum")}
    assert sums == {"ice": pytest.approx(100.041), "dtls": 0, "audio": 0, "total": 0}


def test_a_distribution_without_a_label_is_there_from_the_beginning() -> None:
    (found,) = Distribution(media.JITTER).collect()
    assert [s.value for s in found.samples if s.name.endswith("_count")] == [0]
