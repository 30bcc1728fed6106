"""A child that hangs is replaced within some seconds, and calls of others go on; a machine that stood still as a whole
costs nobody anything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from calling import finish, goes_on, hang_up, spread_calls, start_call, whole
from observing import at_work, kept, received, revived, transceiver_of
from waiting import eventually, until

from lab.appliance import Appliance
from lab.network import Lab
from runtime.errors import ConfigError
from runtime.families.shared import supervised
from runtime.metrics import Gauges
from runtime.supervision import children as under_test
from runtime.supervision import pidfd
from runtime.supervision.beats import EVERY_S, Beat, Beats
from runtime.supervision.children import Child, Children
from runtime.supervision.store import Store


@pytest.fixture
def house(two_cores: Appliance) -> Appliance:
    return whole(two_cores, 1, 2)


def hang(house: Appliance, name: str) -> None:
    """Makes a child hang. Returns when another has its place."""
    before = house.children()[name]
    before.send_signal(signal.SIGSTOP)
    until(lambda: house.children().get(name, before).pid != before.pid)
    assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE


@pytest.mark.needs_root
@pytest.mark.parametrize("name", ["worker-0", "signaling"])
def test_a_child_of_the_edge_that_hangs_is_replaced(lab: Lab, house: Appliance, name: str) -> None:
    hung = received(house, "edge", "firsthop_edge_hung_total").get(name, 0)
    call, _ = spread_calls(lab.client, house, 2)
    others = {child: pid for child, pid in at_work(house).items() if child != name}
    hang(house, name)
    house.wait_ready()
    goes_on(house, "media-1", "media-2")
    assert hang_up(call)["calls"]["ok"] == 2
    assert {child: pid for child, pid in at_work(house).items() if child != name} == others
    assert received(house, "edge", "firsthop_edge_hung_total")[name] == hung + 1


def hung_transceivers(house: Appliance) -> int:
    return int(house.metrics("transceiver").get(("firsthop_transceiver_hung_total", "media-1"), 0))


@pytest.mark.needs_root
def test_a_transceiver_that_hangs_is_replaced_and_its_calls_go_on(lab: Lab, house: Appliance) -> None:
    hung = hung_transceivers(house)
    calls, (its_own, others) = spread_calls(lab.client, house, 4)
    until(lambda: kept(house, "media-1") == its_own)
    hang(house, "media-1")
    until(lambda: revived(house, "media-1") == its_own)
    goes_on(house, "media-1", "media-2")
    said = hang_up(calls)
    assert said["calls"]["ok"] == 4
    elsewhere = [call for call in said["per_call"] if transceiver_of(house, call["call_id"]) == 2]
    assert [call["frames"]["lost"] for call in elsewhere] == [0] * others
    assert hung_transceivers(house) == hung + 1
    house.wait_ready()
    again = finish(start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "1"))
    assert again["calls"]["ok"] == 4


@pytest.mark.needs_root
def test_children_of_the_edge_that_hold_too_much_memory_are_replaced_and_calls_go_on(
    lab: Lab, house: Appliance
) -> None:
    call, _ = spread_calls(lab.client, house, 2)
    text = house.config_file.read_text()

    def configured(text: str) -> None:
        attached = xdp_attached()
        house.config_file.write_text(text)
        house.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: xdp_attached() > attached)
        house.wait_ready()

    def xdp_attached() -> int:
        return house.log_file("edge").read_text().count('"xdp attached"')

    # Whatever a worker is, it is more than that.
    configured(text.replace("[edge]", "[edge]\nmemory_mib = 1"))
    oversized = {"worker-0", "signaling"}
    until(lambda: all(received(house, "edge", "firsthop_edge_oversized_total")[name] > 0 for name in oversized))
    # No hang-up meets a signaling that is just being replaced.
    configured(text)
    until(lambda: "worker-spare" in house.children())
    goes_on(house, "media-1", "media-2")
    assert hang_up(call)["calls"]["ok"] == 2


@pytest.mark.needs_root
def test_a_host_that_stood_still_as_a_whole_replaces_nobody(lab: Lab, house: Appliance) -> None:
    """As when its virtual machine is paused."""
    everybody = [psutil.Process(house.processes[name].pid) for name in ("edge", "transceiver")]
    everybody += house.children().values()
    before = {name: child.pid for name, child in house.children().items()}
    for process in everybody:
        process.suspend()
    time.sleep(8)  # longer than any of them may be silent
    for process in everybody:
        process.resume()
    house.wait_ready()
    assert finish(start_call(lab.client, house, "--model", "echo", "--duration", "6"))["calls"]["ok"] == 1
    assert {name: child.pid for name, child in house.children().items()} == before


# --- children by themselves


COUNTING = """
import json, os, sys, time
from pathlib import Path
from runtime.supervision.beats import Beat
text = sys.stdin.buffer.read()
if not text:
    sys.exit()
spec = json.loads(text)
Path(spec["pid"]).write_text(str(os.getpid()))
beat = Beat(*spec["beat"])
while True:
    beat()
    time.sleep(0.05)
"""
GROWING = COUNTING.replace("beat = ", "more = bytearray(spec['mib'] << 20); beat = ")
BROKEN = """
import sys
if sys.stdin.buffer.read():
    sys.exit(2)
"""


class Home:
    """A supervisor's part that keeps one child, which is what ``program`` says."""

    def __init__(
        self, directory: Path, program: str, monkeypatch: pytest.MonkeyPatch, mib: int = 0, most_mib: int = 0
    ) -> None:
        (directory / "a_child_of_ours.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(directory), str(Path.cwd())]))
        self.beats = Beats(store := Store())
        self._pid_file = directory / "pid"
        spec = json.dumps({"beat": [self.beats.fd, 3], "pid": str(self._pid_file), "mib": mib}).encode()
        self.child = Child("one", "a_child_of_ours", spec, (self.beats.fd,), "same", 3)
        self.children = Children(
            [self.child], "a_child_of_ours", "spare", store, self.beats, supervised("t"), most_bytes=most_mib << 20
        )
        self.running = asyncio.create_task(self.children.run())

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    async def close(self) -> None:
        self.running.cancel()
        with suppress(asyncio.CancelledError, ConfigError):
            await self.running
        await self.children.end()
        for process in self.children._running.values():
            process.close()
        os.close(self.beats.fd)


@pytest.fixture
async def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    home = Home(tmp_path, COUNTING, monkeypatch)
    yield home
    await home.close()


async def test_who_stops_counting_is_killed_and_started_again(home: Home) -> None:
    await eventually(lambda: home.beats.count(3) > 0)
    first = home.pid
    os.kill(first, signal.SIGSTOP)
    await eventually(lambda: home.children.hung["one"] == 1)
    await eventually(lambda: home.pid != first)
    count = home.beats.count(3)
    await eventually(lambda: home.beats.count(3) > count)
    assert home.children.restarts["one"] == 1


async def test_one_that_has_yet_to_begin_is_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_HANGS_AFTER", 1)
    home = Home(tmp_path, COUNTING.replace("beat = ", f"time.sleep({3 * EVERY_S}); beat = "), monkeypatch)
    try:
        await eventually(lambda: home.beats.count(3) > 0)
        assert home.children.hung["one"] == home.children.restarts["one"] == 0
    finally:
        await home.close()


@pytest.mark.parametrize("deaf", [False, True], ids=["in order", "by force"])
async def test_who_holds_too_much_memory_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(under_test, "_MEMORY_EVERY", 1)
    monkeypatch.setattr(under_test, "_WARM_WITHIN_S", 0.1)
    program = GROWING
    if deaf:
        monkeypatch.setattr(pidfd, "_GOODBYE_S", 0.1)
        program = program.replace("beat = ", "signal.signal(signal.SIGTERM, signal.SIG_IGN); beat = ")
        program = "import signal" + program
    home = Home(tmp_path, program, monkeypatch, mib=200, most_mib=150)
    try:
        await eventually(lambda: home.children.oversized["one"] >= 1)
        first = home.pid
        await eventually(lambda: home.pid != first)
        assert home.children.restarts["one"] >= 1
        assert home.children.hung["one"] == 0
    finally:
        await home.close()


async def test_who_holds_less_than_it_may_stays_and_its_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_MEMORY_EVERY", 1)
    home = Home(tmp_path, GROWING, monkeypatch, mib=200, most_mib=1000)
    try:
        await eventually(lambda: home.beats.count(3) > 0)
        count = home.beats.count(3)
        await eventually(lambda: home.beats.count(3) > count + 3 * EVERY_S / 0.05)
        assert home.children.oversized["one"] == home.children.restarts["one"] == 0
        (memory,) = [each for each in home.children.metrics if isinstance(each, Gauges)]
        (family,) = memory.collect()
        ((labels, held),) = [(sample.labels, sample.value) for sample in family.samples]
        assert labels == {"child": "one"}
        assert 200 << 20 <= held < 1000 << 20
    finally:
        await home.close()


async def test_a_first_child_that_cannot_run_as_configured_ends_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, BROKEN, monkeypatch)
    with pytest.raises(ConfigError, match="one cannot run"):
        await asyncio.wait_for(home.running, 60)
    await home.close()


def test_a_count_goes_on_where_its_predecessor_s_was() -> None:
    beats = Beats(store := Store())
    assert not beats.lasting
    Beat(beats.fd, 2)()
    Beat(beats.fd, 2)()
    Beat(beats.fd, 1)()
    Beat(-1, 0)()
    assert [beats.count(place) for place in (0, 1, 2)] == [0, 1, 2]
    store.end()
    os.close(beats.fd)
