"""An upgrade of every host, one after the other, while calls go on and new ones come: none is dropped, none refused."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from calling import lost_in, start_call
from observing import cores
from operating import a_balancer, all_of, changed, drained, failures, sessions_at, until_all_is_well
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_EDGES, LAB_TRANSCEIVERS = 2, 2

_NEW_EDGE, _NEW_TRANSCEIVER = ('"spread"', '"latency"'), ('agent = "echo"', 'agent = "parrot"')
# Python imports it before anything else.
_TEN_MINUTES_FAST = """
import pathlib, time
time.time = lambda now=time.time: now() + 600
time.time_ns = lambda now=time.time_ns: now() + 600 * 10**9
pathlib.Path(__file__).with_name("used").touch()
"""
EDGES, TRANSCEIVERS = ("edge", "edge-2"), ("transceiver", "transceiver-2")


def upgrade(
    lab: Lab, house: Appliance, hosts: Sequence[str], *, standing: int, rate: float, talk_s: float
) -> tuple[dict[str, Any], dict[str, Any], dict[str, int], dict[str, list[str]]]:
    """Upgrades the hosts. Returns what the callers say of the calls that stood and of those that came, the statuses
    that new calls got, and what each drain printed."""
    statuses: dict[str, int] = {}
    drains = {}
    with a_balancer(lab, house, statuses) as url, ExitStack() as ending:
        options = ("--model", "echo", "--duration", "3600", "--rate", "5")
        stood = start_call(lab.client, house, "-n", str(standing), *options, url=url)
        ending.callback(stood.kill)
        until(lambda: calls_of(house, TRANSCEIVERS) == standing)
        options = ("--model", "echo", "--duration", str(talk_s), "--rate", str(rate))
        came = start_call(lab.client, house, "-n", "2000", *options, url=url)
        ending.callback(came.kill)
        for host in hosts:
            changed(house.config_of(host), *(_NEW_EDGE if host in EDGES else _NEW_TRANSCEIVER))
            drains[host] = drained(house, host)
            house.start(host)
            until_all_is_well(house, EDGES, {1, 2})
        of_those_that_came = all_of(came)
        # The last edge is gone that had calls since before: they are at the first one.
        until(lambda: flows(house, EDGES[0]) >= standing)
        of_those_that_stood = all_of(stood)
    return of_those_that_stood, of_those_that_came, statuses, drains


def flows(house: Appliance, edge: str) -> int:
    return int(house.metrics("edge", edge)[("firsthop_xdp_flows",)])


def calls_of(house: Appliance, hosts: Iterable[str]) -> int:
    return sum(sessions_at(house, "transceiver", host) for host in hosts)


def a_house(tmp_path: Path, lab: Lab, edge_drain_s: float, **edge: Any) -> Appliance:
    """One whose second transceiver host has a clock that is ten minutes fast. ``edge`` are more keys of both edges."""
    house = Appliance(tmp_path, lab=lab, agent="echo", drain_s=60, placement="spread", **edge)
    for edge in EDGES:
        house.environment[edge] = {"FIRSTHOP_EDGE__DRAIN_S": str(edge_drain_s)}
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast/sitecustomize.py").write_text(_TEN_MINUTES_FAST)
    path = os.pathsep.join([str(tmp_path / "fast"), os.environ.get("PYTHONPATH", "")])
    house.environment["transceiver-2"] = {"PYTHONPATH": path}
    return house


def test_calls_outlive_an_upgrade_of_their_transceiver_host_and_of_both_edges(lab: Lab, tmp_path: Path) -> None:
    with a_house(tmp_path, lab, edge_drain_s=2, cores=cores()[:1]) as house:
        until_all_is_well(house, EDGES, {1, 2})
        hosts = ("transceiver", *EDGES)
        stood, came, statuses, drains = upgrade(lab, house, hosts, standing=4, rate=1, talk_s=2)
    assert (tmp_path / "fast/used").exists()
    assert set(statuses) == {"201"}
    assert (stood["calls"]["ok"], stood["calls"]["failed"]) == (4, 0), failures(stood)
    # Each still answers on its data channel, over an edge that began when the call had left the transceiver it names.
    assert all(call["server"] for call in stood["per_call"])
    assert came["calls"]["failed"] == 0, failures(came)
    assert came["calls"]["ok"] > 3
    assert drains["transceiver"][-1] == "ended"
    assert any("calls handed over" in line for line in drains["transceiver"])


@pytest.mark.trials
@pytest.mark.timeout(1200)
def test_a_rolling_upgrade_of_everything_under_forty_calls(lab: Lab, tmp_path: Path) -> None:
    with a_house(tmp_path, lab, edge_drain_s=20) as house:
        until_all_is_well(house, EDGES, {1, 2})
        began = time.monotonic()
        stood, came, statuses, drains = upgrade(lab, house, (*TRANSCEIVERS, *EDGES), standing=40, rate=2, talk_s=10)
        lasted_s = time.monotonic() - began
    print(f"four hosts in {lasted_s:.0f} s; new calls got {statuses}")
    for name, said in (("stood", stood), ("came", came)):
        gaps = sorted(call["longest_gap_ms"] for call in said["per_call"] if call["longest_gap_ms"] is not None)
        lost = sorted(lost_in(call) for call in said["per_call"])
        print(
            f"calls that {name}: {said['calls']}; longest gaps {gaps[len(gaps) // 2]:.0f} ms (p50), {gaps[-1]:.0f} ms"
        )
        print(f"  frames and packets lost in all {sum(lost)}, most of one call {lost[-1]}; {failures(said)}")
        print(f"  the caller itself was late by {said['caller_late_ms']} ms")
    for host, lines in drains.items():
        print(f"{host}: {'; '.join(lines)}")
    assert set(statuses) == {"201"}
    assert (stood["calls"]["ok"], stood["calls"]["failed"], came["calls"]["failed"]) == (40, 0, 0)
