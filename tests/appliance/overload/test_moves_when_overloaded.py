"""A transceiver whose calls cost more than its core can do: the newest go on at another host, the others stay."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from calling import RX_AUDIO, hang_up, start_call
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_EDGES, LAB_TRANSCEIVERS = 1, 2

# It says back what it hears, and where the file in BURNS is there it works for 12 ms of each 20, as its thread counts.
# How many calls the busy machine of a test would let in is not the question: it lets all in, and measures what they do.
BURNER = """
import os, time
from transceiver.agents import Base
from transceiver.capacity import Capacity

FILE = os.environ.get("BURNS", "")
if FILE:
    Capacity.admits = lambda self, kind, live, begun=0: True
    Capacity.room = lambda self, kind, live, begun=0: 100

class Agent(Base):
    def heard(self, pcm, speaking):
        self.line.say(pcm)
        if FILE and os.path.exists(FILE):
            until = time.thread_time() + 0.012
            while time.thread_time() < until:
                pass
"""
TRIES, CALLS, LEAST = 4, 6, 2
HOSTS = ("transceiver", "transceiver-2")


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    """An appliance of which the first transceiver host measures what it can do, and the second takes what comes."""
    packages = tmp_path / "packages"
    metadata = packages / "burner-1.0.dist-info"
    metadata.mkdir(parents=True)
    (packages / "burner.py").write_text(BURNER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: burner\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[firsthop.agents]\nburner = burner:Agent\n")
    house = Appliance(tmp_path, lab=lab, agent="burner", models=["burner"], placement="spread")
    path = {"PYTHONPATH": os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])}
    measured = {"FIRSTHOP_TRANSCEIVER__CAPACITY": "measured", "BURNS": str(tmp_path / "burns")}
    house.environment = {"transceiver": {**path, **measured}, "transceiver-2": path}
    with house:
        yield house


def lines(house: Appliance, host: str, event: str) -> list[dict[str, Any]]:
    """What a transceiver host has logged of that kind, in order."""
    text = house.log_file(host).read_text()
    found = [json.loads(line) for line in text.splitlines() if f'"{event}"' in line]
    return [line for line in found if line["event"] == event]


def calls_in(house: Appliance, host: str, event: str) -> list[str]:
    return [str(line["call"]) for line in lines(house, host, event)]


def test_the_newest_calls_of_a_transceiver_that_has_too_many_go_on_elsewhere(
    lab: Lab, house: Appliance, tmp_path: Path
) -> None:
    with ExitStack() as ending:
        callers, placed = [], 0
        for _ in range(TRIES):  # until the first host has enough of them
            options = ("--model", "burner", "--duration", "600", "--rate", "4")
            caller = start_call(lab.client, house, "-n", str(CALLS), *options)
            ending.callback(caller.kill)
            callers.append(caller)
            placed += CALLS
            until(lambda: sum(len(calls_in(house, host, "media up")) for host in HOSTS) == placed)  # noqa: B023
            if len(calls_in(house, "transceiver", "media up")) >= LEAST:
                break
        here = calls_in(house, "transceiver", "session")
        assert len(here) >= LEAST
        burns = tmp_path / "burns"
        burns.touch()
        until(lambda: calls_in(house, "transceiver-2", "took a call over"))
        burns.unlink()
        before = heard(house)
        until(lambda: all(now - was >= 100 for now, was in zip(heard(house), before, strict=True)))
        said = [hang_up(caller) for caller in callers]
    leaving, moved = left(house), calls_in(house, "transceiver-2", "took a call over")
    assert leaving == here[: -len(leaving) - 1 : -1], "the newest, one after the other"
    assert len(leaving) < len(here)
    assert moved == leaving[: len(moved)]
    per_call = [call for each in said for call in each["per_call"]]
    assert [call["error"] for call in per_call if call["error"]] == []
    assert {call["call_id"] for call in per_call} >= set(here)
    assert [call["packets"]["lost"] for call in per_call] == [0] * placed
    # Each ended where it was: those that moved there, and those that stayed here.
    until(lambda: set(calls_in(house, "transceiver", "ended")) == set(here) - set(moved))
    until(lambda: set(calls_in(house, "transceiver-2", "ended")) >= set(moved))
    assert "overloaded" not in {line["reason"] for host in HOSTS for line in lines(house, host, "ended")}


def heard(house: Appliance) -> list[float]:
    """The frames of audio that have come to each host."""
    return [house.metrics("transceiver", host)[RX_AUDIO] for host in HOSTS]


def left(house: Appliance) -> list[str]:
    """The calls that had to leave the first host, in order."""
    leaving = lines(house, "transceiver", "too many calls to be served in time: one leaves")
    assert all(line["moves"] for line in leaving)
    return [str(line["call"]) for line in leaving]
