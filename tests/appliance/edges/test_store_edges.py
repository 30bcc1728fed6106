"""Edges behind one address that know each other by the directory's store alone tell each other their flows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import hang_up, start_call
from two_edges import carries, until_both_are_well
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab
from lab.redis_server import RedisServer

pytestmark = pytest.mark.needs_root
LAB_EDGES = 2

HINTED = ("firsthop_rx_worker_datagrams_total", "forwarded_ssrc")
TAKEN = ("firsthop_worker_roaming_flows_total", "taken")


@pytest.fixture
def shared(lab: Lab) -> str:
    return lab.share_address()


@pytest.fixture
def house(lab: Lab, tmp_path: Path, shared: str) -> Iterator[Appliance]:
    with RedisServer(tmp_path) as redis:
        appliance = Appliance(tmp_path, lab=lab, media=f"{shared}:3478", cores=[0])
        for name, inner in (("firsthop", lab.edge_inner_address), ("firsthop-2", lab.edge_2_inner_address)):
            file = tmp_path / f"{name}.toml"
            text = re.sub(r"\[\[edge\.edges\]\]\n(?:\w+ = .*\n)*", "", file.read_text())
            text = text.replace("[edge]\n", f'[edge]\nannounce = "tcp://{inner}:7450"\n')
            file.write_text(f'{text}[directory]\nredis = "{redis.url}"\nprefix = "lab"\nttl_s = 2.0\n')
        with appliance:
            until_both_are_well(appliance)
            yield appliance


def test_media_that_comes_by_another_edge_is_known_there(lab: Lab, house: Appliance, shared: str) -> None:
    call = start_call(lab.client, house, "--model", "echo", "--duration", "600", "--bind", lab.client.address)
    carries(house, "edge")
    until(lambda: house.metrics("worker-0", "edge-2")[TAKEN] > 0)
    assert lab.edge_2 is not None
    lab.route_to(lab.edge_2, shared)
    carries(house, "edge-2")
    assert house.metrics("worker-0", "edge-2")[HINTED] > 0
    assert hang_up(call)["calls"]["ok"] == 1
