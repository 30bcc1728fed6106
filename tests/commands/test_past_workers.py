"""What an operator is told of media that goes by the workers although it might go past them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bpf.layout import FALLBACKS
from firsthop import past_workers
from firsthop.past_workers import advice
from firsthop.status import Scrape, Status, compare, read
from firsthop.status_view import view
from runtime.families import edge as families

PAGE = 'firsthop_xdp_attached{mode="native"} 1\nfirsthop_edge_express{transceiver="2",why="%s"} %d\n'
FALLBACK = 'firsthop_xdp_fallback_packets_total{why="%s"} %d\n'


def seen(why: str, fallbacks: dict[str, tuple[int, int]]) -> tuple[Status, str]:
    """The status, and what a person sees of it, of an edge that says ``why`` a transceiver has no way, between two
    looks at these counts of packets ten seconds apart."""
    looks = []
    for at in (0, 1):
        page = PAGE % (why, not why) + "".join(FALLBACK % (each, counts[at]) for each, counts in fallbacks.items())
        looks.append({"supervisor": Scrape(10.0 * at, read(page))})
    status = compare(*looks, {})
    with io.StringIO() as text:
        Console(file=text, width=80, force_terminal=False).print(view(status))
        return status, " ".join(text.getvalue().split())


@pytest.mark.parametrize("why", past_workers.WHY)
def test_what_to_do_is_told_where_a_transceiver_has_no_way(why: str) -> None:
    _, text = seen(why, {})
    assert f"express to transceivers: none; not 2 ({why})" in text
    assert f"{why}: {past_workers.WHY[why]}" in text


def test_what_somebody_chose_needs_no_advice() -> None:
    _, text = seen("off", {})
    assert "not 2 (off)" in text
    assert "off:" not in text


def test_packets_that_fall_back_are_told_while_they_do() -> None:
    status, text = seen("", {"headers": (5, 5), "too_long": (0, 120), "checksum": (0, 0)})
    assert status.xdp is not None
    assert (status.xdp.fallbacks["headers"].total, status.xdp.fallbacks["too_long"].per_s) == (5, 12)
    assert f"too_long 12/s: {past_workers.FALLBACKS['too_long']}" in text
    assert "headers" not in text
    assert "checksum" not in text


def test_each_reason_is_told_once() -> None:
    told = list(advice(["silent", "", "silent", "off", "no_route"], ["headers"]))
    assert [why for why, _ in told] == ["silent", "no_route", "headers"]


def test_every_reason_is_one_that_the_edge_counts() -> None:
    assert past_workers.FALLBACKS.keys() == set(FALLBACKS)
    assert past_workers.WHY.keys() < set(families.EXPRESS.labels["why"])
