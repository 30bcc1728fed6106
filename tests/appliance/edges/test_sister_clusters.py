"""Two clusters: a call of one whose datagrams the network brings to an edge of the other, and back by one hop."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from calling import hang_up, start_call
from prometheus_client.parser import text_string_to_metric_families
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab
from wire.keys import new_file_text

pytestmark = pytest.mark.needs_root

BACKBONE = "tcp://127.0.0.1:7460"
XDP = "firsthop_rx_xdp_packets_total"
RX = "firsthop_rx_worker_datagrams_total"
FRONT = """
[cluster]
keys = "{folder}/cluster.toml"
[edge]
name = "front"
media = "{host}:3479"
http = "{host}:8081"
metrics = "127.0.0.1:9600"
interface = "{interface}"
cores = [{core}]
api_keys = "{token_file}"
run = "{folder}"
pins = "/sys/fs/bpf/{pins}"
[[edge.transceivers]]
id = 1
endpoint = "ipc://{folder}/nobody.sock"
[[edge.clusters]]
name = "house"
keys = "{folder}/shared.toml"
edges = ["{backbone}"]
"""


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    """A cluster whose clients are told the address of another cluster's edge, as behind one anycast address."""
    core = min(os.sched_getaffinity(0))
    front = f"{lab.edge.address}:3479"
    with Appliance(tmp_path, lab=lab, interface="", cores=[core], advertise=front, backbone=BACKBONE) as appliance:
        yield appliance


@contextmanager
def front(lab: Lab, house: Appliance, folder: Path) -> Iterator[None]:
    """That other cluster: an edge with XDP, and keys of its own."""
    folder.mkdir()
    (folder / "cluster.toml").write_text(new_file_text())
    (folder / "cluster.toml").chmod(0o600)
    keys = house.config_file.with_name("cluster.toml")
    share = ["keys", "share", "--file", str(keys), "-o", str(folder / "shared.toml")]
    subprocess.run([sys.executable, "-m", "firsthop", *share], check=True)
    text = FRONT.format(
        folder=folder,
        host=lab.edge.address,
        interface=lab.edge_interface,
        core=min(os.sched_getaffinity(0)),
        token_file=house.token_file,
        pins=folder.parent.name,
        backbone=BACKBONE,
    )
    (folder / "firsthop.toml").write_text(text)
    with (folder / "log").open("wb") as log:
        argv = [sys.executable, "-m", "firsthop", "edge", "--config", str(folder / "firsthop.toml")]
        process = lab.edge.popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: metrics(lab, 9602) and metrics(lab, 9600).get(("firsthop_xdp_attached", "native")) == 1)
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def metrics(lab: Lab, port: int) -> dict[tuple[str, ...], float]:
    """The counters of the process of the edge's host with metrics there; none where it does not answer."""

    def fetch() -> str:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
            return str(response.read().decode())
        return ""

    families = text_string_to_metric_families(lab.edge.inside(fetch))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def passed(lab: Lab, port: int, outcome: str = "forwarded_flow") -> float:
    return metrics(lab, port).get((RX, outcome), 0.0)


def test_a_call_goes_by_an_edge_of_another_cluster_and_outlives_the_gateway(
    lab: Lab, house: Appliance, tmp_path: Path
) -> None:
    fronts_worker, gateway = 9602, 9403
    with front(lab, house, tmp_path / "front"):
        call = start_call(lab.client, house, "--model", "echo", "--duration", "600")
        until(lambda: passed(lab, fronts_worker) > 100 and passed(lab, gateway) > 100)
        assert passed(lab, fronts_worker, "forwarded_sister") > 0
        assert passed(lab, 9402) == 0, "nothing came to this cluster's own worker"
        steered = [n for key, n in metrics(lab, 9600).items() if key[0] == XDP and "flow_steered" in key]
        assert sum(steered) > 100, "after the first check XDP knows the address, as of any call"
        said = hang_up(call)
        assert (said["calls"]["ok"], said["audio"]["frames"]["lost"]) == (1, 0)

        call = start_call(lab.client, house, "--model", "echo", "--duration", "600")
        until(lambda: metrics(lab, gateway).get(("firsthop_worker_flows",)) == 1)
        killed = house.children()["gateway"]
        killed.kill()
        until(lambda: house.children().get("gateway") not in (None, killed))
        until(lambda: passed(lab, gateway) > 50)
        assert hang_up(call)["calls"]["ok"] == 1
