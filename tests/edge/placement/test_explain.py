"""The explanation of a placement, for whoever asks why."""

from __future__ import annotations

from fleets import a_report, fleet_of, placer_of

from edge.placement.explain import explain
from edge.placement.placer import Wanted


def test_each_transceiver_has_its_verdict_and_the_first_is_asked_first() -> None:
    fleet = fleet_of(
        a_report(1, 5, 45, region="eu", version="2"),
        a_report(2, 0, 50, region="eu", version="2", latency_ms=600),
        a_report(3, 50, 0, region="eu", version="2"),
        a_report(4, draining=True, region="eu", version="2"),
        a_report(5, region="us", version="2"),
        a_report(6, region="eu", version="1"),
        a_report(7, models=("echo",)),
    )
    found = explain(placer_of(fleet), Wanted("parrot", "2", within=("eu",)), 1.5)
    assert {c.id: c.verdict for c in found.candidates} == {
        1: "good",
        2: "fits",
        3: "full",
        4: "draining",
        5: "other region",
        6: "other version",
    }
    best = found.candidates[0]
    assert (best.id, best.region, best.version, best.sessions, best.capacity, best.age_s) == (1, "eu", "2", 5, 50, 1.5)
    assert abs(best.score_ms - (best.network_ms + best.agent_ms + best.load_ms)) < 0.2
    assert found.verdicts == dict.fromkeys(("good", "fits", "full", "draining", "other version", "other region"), 1)
    assert found.finds


def test_what_finds_nobody_says_so() -> None:
    full = placer_of(fleet_of(a_report(1, 50, 0), a_report(2, draining=True)))
    assert not explain(full, Wanted("parrot"), 0.0).finds
    nobody = explain(full, Wanted("whisper"), 0.0)
    assert (nobody.finds, nobody.models, nobody.candidates) == (False, ["parrot"], [])
    assert explain(full, Wanted("whisper"), 0.0, silent=(9,)).finds


def test_no_more_are_shown_than_were_asked_for() -> None:
    found = explain(placer_of(fleet_of(*(a_report(n) for n in range(500)))), Wanted("parrot"), 0.0, most=10)
    assert len(found.candidates) == 10
    assert sum(found.verdicts.values()) == 500
