"""The express path on one host: media goes past the workers, and calls notice nothing of whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from calling import goes_on, hang_up, lost_in, start_call, whole
from observing import moved, xdp
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("express"), lab=lab, one_host=True, express="auto") as appliance:
        yield appliance


def is_on(appliance: Appliance) -> bool:
    return appliance.metrics("edge").get(("firsthop_edge_express", "1", "")) == 1


def test_media_of_a_call_goes_past_the_workers(lab: Lab, appliance: Appliance) -> None:
    house = whole(appliance)
    until(lambda: is_on(house))
    before = xdp(house)
    call = start_call(lab.client, house, "--model", "echo", "--duration", "600")
    goes_on(house, "transceiver", frames=150)
    said = hang_up(call)
    after = moved(before, xdp(house))
    assert lost_in(said["audio"]) == 0
    assert after["flow_expressed", "0"] >= 140
