"""Two edges behind one address, and a network that brings a caller's packets to the other in mid-call."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from calling import hang_up, start_call
from two_edges import carries, numbered, until_both_are_well
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_EDGES = 2

TIMES, HEARD_FOR_MS = 20, 100.0


@pytest.fixture(scope="module")
def shared(lab: Lab) -> str:
    return lab.share_address()


@pytest.fixture(scope="module")
def house(lab: Lab, shared: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("edges")
    with Appliance(folder, lab=lab, media=f"{shared}:3478", cores=[0]) as appliance:
        until_both_are_well(appliance)
        yield appliance


def flows(house: Appliance, edge: str) -> float:
    """The number of flows that this edge's worker has."""
    return house.metrics("worker-0", edge)[("firsthop_worker_flows",)]


def told(house: Appliance, edge: str) -> float:
    """How often this edge's worker has been told of a flow elsewhere."""
    return house.metrics("worker-0", edge)[("firsthop_worker_roaming_flows_total", "taken")]


def hinted(house: Appliance, edge: str) -> float:
    """The number of datagrams of strangers that this edge has passed on by their SSRC."""
    return house.metrics("worker-0", edge)[("firsthop_rx_worker_datagrams_total", "forwarded_ssrc")]


def move(lab: Lab, house: Appliance, shared: str, edge: str, other: str) -> None:
    """Has the network bring the call to ``edge``, once that has been told of it, and waits until it carries it."""
    before = told(house, edge)
    until(lambda: flows(house, other) == 1 and told(house, edge) > before)
    host = lab.edge_2 if edge == "edge-2" else lab.edge
    assert host is not None
    lab.route_to(host, shared)
    carries(house, edge)


def call(lab: Lab, house: Appliance) -> subprocess.Popen[bytes]:
    """A call whose packets have the same source address, whichever way they take."""
    return start_call(lab.client, house, "--model", "echo", "--duration", "600", "--bind", lab.client.address)


def test_media_that_comes_by_another_edge_is_known_there(lab: Lab, house: Appliance, shared: str) -> None:
    placed = call(lab, house)
    carries(house, "edge")
    for edge, other in (("edge-2", "edge"), ("edge", "edge-2")):
        before = hinted(house, edge)
        move(lab, house, shared, edge, other)
        # Steered by its SSRC, before any check came that way, and then as a flow of its own.
        assert hinted(house, edge) > before
        until(lambda other=other: flows(house, other) == 0)  # type: ignore[misc]
    assert hang_up(placed)["calls"]["ok"] == 1


def test_what_is_said_on_a_data_channel_keeps_its_order_while_the_way_changes(
    lab: Lab, house: Appliance, shared: str
) -> None:
    until(lambda: flows(house, "edge") + flows(house, "edge-2") == 0)
    lab.route_to(lab.edge, shared)
    with numbered(lab, house, lab.client.address) as end:
        carries(house, "edge")
        for edge, other in (("edge-2", "edge"), ("edge", "edge-2")):
            move(lab, house, shared, edge, other)
            until(lambda other=other: flows(house, other) == 0)  # type: ignore[misc]
        answers = end()
    assert answers == list(range(len(answers)))


@pytest.mark.trials
@pytest.mark.timeout(1200)
def test_twenty_changes_of_the_way_are_each_heard_for_a_tenth_of_a_second_at_most(
    lab: Lab, house: Appliance, shared: str
) -> None:
    gaps, lost = [], []
    for i in range(TIMES):
        ways = ("edge", "edge-2") if i % 2 else ("edge-2", "edge")
        placed = call(lab, house)
        carries(house, ways[1])
        move(lab, house, shared, *ways)
        audio = hang_up(placed)["audio"]
        gaps.append(audio["longest_gap_ms"]["max"])
        lost.append(audio["frames"]["lost"])
        until(lambda: flows(house, "edge") + flows(house, "edge-2") == 0)
    print(f"longest gaps {', '.join(f'{gap:.0f}' for gap in sorted(gaps))} ms, frames lost {sum(lost)}")
    assert all(gap <= HEARD_FOR_MS for gap in gaps)
