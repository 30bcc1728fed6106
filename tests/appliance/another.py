"""Another transceiver beside those of an appliance, and where the edge's calls go then."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from calling import finish, start_call
from observing import transceiver_of
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab


@contextmanager
def a_third(lab: Lab, house: Appliance, more: str = "") -> Iterator[str]:
    """Another transceiver, with id 3; its endpoint. ``more`` is what else its configuration says. It may have ended
    before."""
    with started_third(lab, house, more) as (_, endpoint):
        yield endpoint


@contextmanager
def started_third(
    lab: Lab, house: Appliance, more: str = "", *, elsewhere: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The same: its process and its endpoint. ``elsewhere`` puts it on another host than the others."""
    folder = house.config_file.parent / "third"
    folder.mkdir(exist_ok=True)
    host, address = lab.transceiver, lab.transceiver.address
    if elsewhere:
        host, address = lab.edge, lab.edge_inner_address
    endpoint = f"tcp://{address}:7403"
    (folder / "firsthop.toml").write_text(
        f'[cluster]\nkeys = "{house.config_file.parent}/cluster.toml"\n'
        f'[transceiver]\nid = 3\nendpoint = "{endpoint}"\nmetrics = "127.0.0.1:9503"\nrun = "{folder}"\n'
        f"drain_s = 0\n{more}"
    )
    with (folder / "log").open("ab") as log:
        third = host.popen(
            [sys.executable, "-m", "firsthop", "transceiver", "--config", str(folder / "firsthop.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield third, endpoint
    finally:
        third.terminate()
        third.wait(DEADLINE_S)


def ready(house: Appliance) -> set[int]:
    """The transceivers that new calls find."""

    def ask() -> set[int]:
        with suppress(OSError), urllib.request.urlopen(f"{house.url}/readyz", timeout=10) as response:
            return {int(i) for i, up in json.load(response)["transceivers"].items() if up}
        return set()

    return house.edge.inside(ask)


def new_calls(lab: Lab, house: Appliance, n: int) -> Counter[int]:
    """Places calls that all go well; how many each transceiver got."""
    said = finish(start_call(lab.client, house, "-n", str(n), "--model", "echo", "--duration", "1"))
    assert (said["calls"]["ok"], said["audio"]["frames"]["lost"]) == (n, 0)
    return Counter(transceiver_of(house, call["call_id"]) for call in said["per_call"])


def gets_calls(lab: Lab, house: Appliance, transceiver: int, among: set[int]) -> None:
    """Places calls until ``transceiver`` gets one, and sees that none but those ``among`` whom it is get any. On a busy
    machine one may seem farther away for a while, so they are not spread evenly."""

    def has_one() -> bool:
        got = set(new_calls(lab, house, 3))
        assert got <= among
        return transceiver in got

    until(has_one)
