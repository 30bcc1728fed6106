"""Two edges and one transceiver host: an answer names both, and a call outlives the edge that carries it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import OFFERS_TONE, RESTARTS, a_page
from calling import finish, hang_up, start_call
from two_edges import (
    carrier,
    carries,
    edge_url,
    hang_up_at,
    kill_host,
    last_call,
    named_by,
    numbered,
    ready,
    until_both_are_well,
)
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


def test_what_is_said_on_a_data_channel_outlives_the_edge(lab: Lab, house: Appliance) -> None:
    until_both_are_well(house)
    with numbered(lab, house) as end:
        killed, other = carrier(house)
        kill_host(house, killed)
        carries(house, other)
        answers = end()
    assert answers == list(range(len(answers)))
    house.start(killed)
    house.wait_ready()


async def test_ice_is_restarted_at_the_other_edge_and_goes_on_over_it(
    lab: Lab, house: Appliance, tmp_path: Path
) -> None:
    until_both_are_well(house)
    async with a_page(lab, tmp_path, house.url, OFFERS_TONE + RESTARTS) as page:
        await page.evaluate("token => call(token)", house.token)
        await page.wait_for_function("now().then((it) => it.packets > 50)")
        _, other = carrier(house)
        status, ufrag = await page.evaluate("at => restart(at)", edge_url(house, other))
        assert status == 200
        renamed = "name => now().then((it) => it.ufrag === name && it.answered > 0)"
        await page.wait_for_function(renamed, arg=ufrag)
        # Any edge passes the new ufrag on, whichever of them was asked for it.
        killed, other = carrier(house)
        kill_host(house, killed)
        carries(house, other)
        heard = (await page.evaluate("now()"))["packets"]
        await page.wait_for_function("more => now().then((it) => it.packets > more)", arg=heard + 100)
        assert (await page.evaluate("now()"))["ufrag"] == ufrag
    house.start(killed)
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
