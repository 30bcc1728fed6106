"""Two edges and one transceiver host: an answer names both, and a call outlives the edge that carries it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from calling import finish, hang_up, start_call
from two_edges import carrier, carries, edge_url, hang_up_at, kill_host, last_call, named_by, ready, until_both_are_well
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_EDGES = 2


@pytest.fixture(scope="module")
def house(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("edges"), lab=lab, drain_s=600) as appliance:
        yield appliance


def test_an_edge_that_drains_keeps_its_call_and_gives_new_ones_to_the_other(lab: Lab, house: Appliance) -> None:
    until_both_are_well(house)
    first = start_call(lab.client, house, "--model", "echo", "--duration", "120")
    drains, other = carrier(house)
    house.processes[drains].terminate()
    until(lambda: named_by(house, other) == set())
    assert ready(house, drains) == 503
    second = start_call(lab.client, house, "--model", "echo", "--duration", "120", url=edge_url(house, drains))
    carries(house, other)
    carries(house, drains)
    for call in (second, first):
        assert hang_up(call)["calls"]["ok"] == 1
    assert house.processes.pop(drains).wait(30) == 0
    assert '"drained"' in house.log_file(drains).read_text()
    house.start(drains)
    house.wait_ready()


def test_a_second_sigterm_ends_an_edge_at_once(lab: Lab, house: Appliance) -> None:
    until_both_are_well(house)
    call = start_call(lab.client, house, "--model", "echo", "--duration", "120")
    drains, other = carrier(house)
    edge = house.processes[drains]
    edge.terminate()
    until(lambda: ready(house, drains) == 503)
    edge.terminate()
    assert edge.wait(30) == 0
    carries(house, other)  # the client finds its way, as from an edge that dies
    call.kill()
    call.communicate()
    house.start(drains)
    house.wait_ready()


def test_a_call_outlives_its_edge_and_is_hung_up_at_the_other(lab: Lab, house: Appliance) -> None:
    until_both_are_well(house)
    call = start_call(lab.client, house, "--model", "echo", "--duration", "120")
    killed, other = carrier(house)
    kill_host(house, killed)
    carries(house, other)
    assert hang_up_at(house, other, last_call(house)) == 200
    said = finish(call, expect=1)  # it was hung up by another
    assert said["audio"]["frames"]["returned"] > 50
