"""Two edges and one transceiver host: an answer names both, and a call outlives the edge that carries it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from calling import finish, start_call
from two_edges import carries, hang_up_at, kill_host, last_call, until_both_are_well

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(edges=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def house(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("edges"), lab=lab) as appliance:
        yield appliance


def test_a_call_outlives_its_edge_and_is_hung_up_at_the_other(lab: Lab, house: Appliance) -> None:
    until_both_are_well(house)
    call = start_call(lab.client, house, "--model", "echo", "--duration", "60")
    carries(house, "edge")
    kill_host(house, "edge")
    carries(house, "edge-2")
    assert hang_up_at(house, "edge-2", last_call(house)) == 200
    said = finish(call, expect=1)
    print(said["audio"])
    house.start("edge")
    house.wait_ready()
