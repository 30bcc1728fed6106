"""The benchmark of scale: which cores each layout has, and what it costs beside one of each."""

from __future__ import annotations

from typing import Any

from bench.scale import report
from bench.scale.__main__ import layouts, options_of


def sample(repeat: int, express: str, layout: str, cpu_ms: float) -> dict[str, Any]:
    figures = {
        "cpu_ms": cpu_ms,
        "trip_p50": 1.0,
        "trip_p99": 2.0,
        "loss": 0.0,
        "others": 0.0,
        "by": {"worker": cpu_ms},
        "calls": 10,
    }
    return {"repeat": repeat, "express": express, "layout": layout, **figures}


def test_a_layout_is_judged_beside_one_of_each_of_the_same_repeat() -> None:
    samples = [sample(i, "off", "1 + 1", 10.0 * (1 + i)) for i in range(3)]
    samples += [sample(i, "off", "3 + 8", 16.0 * (1 + i)) for i in range(3)]
    samples += [sample(0, "auto", "1 + 1", 8.0), sample(0, "auto", "3 + 8", 8.4)]
    points = report.medians(samples)
    assert [(row["express"], row["layout"], row["of_one"]) for row in points] == [
        ("off", "1 + 1", 1.0),
        ("off", "3 + 8", 1.6),
        ("auto", "1 + 1", 1.0),
        ("auto", "3 + 8", 1.05),
    ]
    targets = report.targets(points)
    assert [row["pass"] for row in targets] == [False, True]
    assert "| by the workers | 3 + 8 | 10 | 32.00 | 1.60 | worker 32.00 |" in report.markdown(
        {"points": points, "targets": targets}
    )


def test_a_layout_without_another_beside_it_is_not_judged() -> None:
    assert report.targets(report.medians([sample(0, "off", "3 + 8", 8.0)])) == []


def test_load_is_as_dense_in_both_layouts() -> None:
    given = options_of(["--workers", "0,1,2", "--transceivers", "3,4", "--load", "5,6,7,8"])
    one, all_ = layouts(given)[:2]
    assert (one.workers, one.transceivers, one.load, one.name) == ((0,), (3,), (5, 6), "1 + 1")
    assert (all_.workers, all_.transceivers, all_.load, all_.name) == ((0, 1, 2), (3, 4), (5, 6, 7, 8), "3 + 2")


def test_over_loopback_nothing_goes_past_the_workers() -> None:
    assert {layout.express for layout in layouts(options_of(["--where", "loopback"]))} == {"off"}
