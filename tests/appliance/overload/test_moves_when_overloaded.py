"""A transceiver whose calls cost more than its core can do: the newest go on at another, the others stay. Media comes
by the workers where the other is on another host, and past them where both are on the edge's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import observing
import pytest
from calling import RX_AUDIO, hang_up, start_call
from observing import cores, xdp
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

# It says back what it hears, and while there is a file in BURNS with the name of its process it works for 12 ms of each
# 20, as its thread counts. How many calls the busy machine of a test would let in is not the question: each process
# lets all in, and the first does measure what they do.
BURNER = """
import os, time
from pathlib import Path
from transceiver.agents import Base
from transceiver.capacity import Capacity

def name():
    return Path("/proc/self/comm").read_text().strip()

def leave(self, window, measured=Capacity.measured):
    leaving = measured(self, window)
    return leaving if name() == "media-1" else 0

Capacity.measured = leave
Capacity.admits = lambda self, kind, live, begun=0: True
Capacity.room = lambda self, kind, live, begun=0: 100

class Agent(Base):
    def heard(self, pcm, speaking):
        self.line.say(pcm)
        if os.path.exists(os.path.join(os.environ["BURNS"], name())):
            until = time.thread_time() + 0.012
            while time.thread_time() < until:
                pass
"""
TRIES, CALLS, LEAST = 4, 6, 2
FIRST, SECOND = 1, 2


class Pair(NamedTuple):
    """An appliance with two transceivers, and the host of each."""

    lab: Lab
    house: Appliance
    hosts: dict[int, str]

    def logged(self, transceiver: int, event: str) -> list[dict[str, Any]]:
        """What one of them has logged of that kind, in order."""
        found = observing.logged(self.house, event, self.hosts[transceiver])
        return [line for line in found if line["id"] == transceiver]

    def calls_in(self, transceiver: int, event: str) -> list[str]:
        return [str(line["call"]) for line in self.logged(transceiver, event)]

    def heard(self) -> list[float]:
        """The frames of audio that have come to each."""
        return [self.house.metrics(f"media-{n}", host)[RX_AUDIO] for n, host in self.hosts.items()]

    def left(self) -> list[str]:
        """The calls that had to leave the first, in order."""
        leaving = self.logged(FIRST, "too many calls to be served in time: one leaves")
        assert all(line["moves"] for line in leaving)
        return [str(line["call"]) for line in leaving]


@pytest.fixture(params=[False, True], ids=["two hosts", "one host"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    packages = tmp_path / "packages"
    metadata = packages / "burner-1.0.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "burns").mkdir()
    (packages / "burner.py").write_text(BURNER)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: burner\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[firsthop.agents]\nburner = burner:Agent\n")
    hosts = {FIRST: "transceiver", SECOND: "transceiver" if request.param else "transceiver-2"}
    options: dict[str, Any] = {"agent": "burner", "models": ["burner"], "placement": "spread", "capacity": "measured"}
    with Lab(transceivers=1 if request.param else 2) as lab:
        its_cores = cores()[: 2 if request.param else 1]
        house = Appliance(tmp_path, lab=lab, one_host=request.param, transceiver_cores=its_cores, **options)
        path = os.pathsep.join([str(packages), os.environ.get("PYTHONPATH", "")])
        for host in hosts.values():
            house.environment[host] = {"PYTHONPATH": path, "BURNS": str(tmp_path / "burns")}
        with house:
            yield Pair(lab, house, hosts)


def test_the_newest_calls_of_a_transceiver_that_has_too_many_go_on_elsewhere(pair: Pair, tmp_path: Path) -> None:
    with ExitStack() as ending:
        callers, placed = [], 0
        for _ in range(TRIES):  # until the first has enough of them
            options = ("--model", "burner", "--duration", "600", "--rate", "4")
            caller = start_call(pair.lab.client, pair.house, "-n", str(CALLS), *options)
            ending.callback(caller.kill)
            callers.append(caller)
            placed += CALLS
            until(lambda: sum(len(pair.calls_in(n, "media up")) for n in pair.hosts) == placed)  # noqa: B023
            if len(pair.calls_in(FIRST, "media up")) >= LEAST:
                break
        here = pair.calls_in(FIRST, "session")
        assert len(here) >= LEAST
        burns = tmp_path / "burns" / f"media-{FIRST}"
        burns.touch()
        until(lambda: pair.calls_in(SECOND, "took a call over"))
        burns.unlink()
        before, expressed = pair.heard(), xdp(pair.house)["flow_expressed", "0"]
        until(lambda: all(now - was >= 100 for now, was in zip(pair.heard(), before, strict=True)))
        past_workers = xdp(pair.house)["flow_expressed", "0"] - expressed
        said = [hang_up(caller) for caller in callers]
    assert (past_workers > 0) == (pair.hosts[FIRST] == pair.hosts[SECOND])
    leaving, moved = pair.left(), pair.calls_in(SECOND, "took a call over")
    assert leaving == here[: -len(leaving) - 1 : -1], "the newest, one after the other"
    assert len(leaving) < len(here)
    assert moved == leaving[: len(moved)]
    per_call = [call for each in said for call in each["per_call"]]
    assert [call["error"] for call in per_call if call["error"]] == []
    assert {call["call_id"] for call in per_call} >= set(here)
    assert [call["packets"]["lost"] for call in per_call] == [0] * placed
    # Each ended where it was: those that moved there, and those that stayed here.
    until(lambda: set(pair.calls_in(FIRST, "ended")) == set(here) - set(moved))
    until(lambda: set(pair.calls_in(SECOND, "ended")) >= set(moved))
    assert "overloaded" not in {line["reason"] for n in pair.hosts for line in pair.logged(n, "ended")}
