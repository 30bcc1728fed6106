"""Two edges behind one address, and a network that brings a caller's packets to the other in mid-call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from calling import hang_up, start_call
from two_edges import carries, until_both_are_well
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

TIMES = 20


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(edges=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared(lab: Lab) -> str:
    return lab.share_address()


@pytest.fixture(scope="module")
def house(lab: Lab, shared: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("edges")
    with Appliance(folder, lab=lab, media=f"{shared}:3478", cores=[0]) as appliance:
        until_both_are_well(appliance)
        yield appliance


def heard_of(house: Appliance, edge: str) -> float:
    """How often this edge's worker has been told of a flow elsewhere."""
    return house.metrics("worker-0", edge)[("firsthop_worker_roaming_flows_total", "taken")]


def hinted(house: Appliance, edge: str) -> float:
    """The number of datagrams of strangers that this edge has passed on by their SSRC."""
    return house.metrics("worker-0", edge)[("firsthop_rx_worker_datagrams_total", "forwarded_ssrc")]


def test_media_that_comes_by_another_edge_is_known_there(lab: Lab, house: Appliance, shared: str) -> None:
    call = start_call(lab.client, house, "--model", "echo", "--duration", "60", "--bind", lab.client.address)
    carries(house, "edge")
    for edge, other in (("edge-2", "edge"), ("edge", "edge-2")):
        told = heard_of(house, edge)
        until(lambda edge=edge, told=told: heard_of(house, edge) > told)
        before = hinted(house, edge)
        host = lab.edge_2 if edge == "edge-2" else lab.edge
        assert host is not None
        lab.route_to(host, shared)
        carries(house, edge)
        # Before any check came that way its media was steered by SSRC, and made the flow its own.
        assert hinted(house, edge) > before
        assert received_flows(house, other) == 0
    said = hang_up(call)
    assert said["calls"]["ok"] == 1
    print(said["audio"])


def received_flows(house: Appliance, edge: str) -> float:
    return house.metrics("worker-0", edge)[("firsthop_worker_flows",)]
