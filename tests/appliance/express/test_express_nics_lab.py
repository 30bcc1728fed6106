"""An interface to clients whose driver has no XDP, so that the kernel's stack runs it: media goes by the workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import spread_calls
from expressing import ended_well, options, states
from observing import received, xdp
from pyroute2 import IPRoute
from waiting import until

from lab.appliance import Appliance
from lab.links import await_links
from lab.network import Lab

pytestmark = pytest.mark.needs_root


def put_behind_a_bridge(lab: Lab, name: str) -> None:
    """Gives the edge's address to a bridge with its interface in it: no bridge has native XDP."""

    def change() -> None:
        with IPRoute() as ip:
            ip.link("add", ifname=name, kind="bridge", br_forward_delay=0)
            bridge, port = (ip.link_lookup(ifname=each)[0] for each in (name, lab.edge_interface))
            ip.addr("del", index=port, address=lab.edge.address, prefixlen=24)
            ip.link("set", index=port, master=bridge)
            ip.link("set", index=bridge, state="up")
            ip.addr("add", index=bridge, address=lab.edge.address, prefixlen=24)
            await_links(ip)

    lab.edge.inside(change)


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    put_behind_a_bridge(lab, "bridge")
    with Appliance(tmp_path, lab=lab, one_host=True, express="auto", interface="bridge", **options()) as house:
        yield house


def test_media_goes_by_the_workers_where_the_driver_has_no_xdp(lab: Lab, house: Appliance) -> None:
    assert received(house, "edge", "firsthop_xdp_attached") == {"generic": 1}
    until(lambda: states(house) == {("1", "generic"): 0, ("2", "generic"): 0})
    calls, _ = spread_calls(lab.client, house, 2)
    ended_well(house, calls, 2)
    counts = xdp(house)
    assert counts["flow_expressed", "0"] == counts["express_port_refused", "0"] == 0
    assert sum(n for (verdict, _), n in counts.items() if verdict == "flow_steered") > 200
    assert "a transceiver of this host was not heard" not in house.log_file("edge").read_text()
