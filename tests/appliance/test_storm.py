"""Storms of kills: whatever dies, and whenever, the next edge is whole, nothing competes with it, and it leaves nothing
behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from calling import finish, start_call
from observing import holders, pins
from waiting import until

from lab.appliance import Appliance, Loopback, Place
from lab.network import Lab
from runtime.config import load

pytestmark = pytest.mark.trials


def processes(appliance: Appliance) -> list[psutil.Process]:
    """Everything of this edge but its holders, whoever started it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mine = process.environ().get("FIRSTHOP_CONFIG_FILE") == str(appliance.config_file)
            others = {"transceiver", "runtime.supervision.holder"} & set(process.cmdline())
            if mine and not others and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class House:
    """An edge that is killed and started again."""

    def __init__(self, appliance: Appliance, caller: Place) -> None:
        self.appliance = appliance
        self._caller = caller

    def kill(self, process: psutil.Process | None = None, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            (process or self.supervisor).send_signal(number)

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.appliance.processes["edge"].pid)

    def again(self, ends_by: tuple[int, ...] = (-signal.SIGKILL,)) -> None:
        code = self.appliance.processes["edge"].wait(30)
        assert code in ends_by, (code, self.appliance.log_file("edge").read_text()[-3000:])
        self.appliance.start("edge")

    def check(self) -> None:
        """Checks that the edge that was started last is whole, and alone."""
        self.appliance.wait_ready()
        until(lambda: "worker-spare" in self.appliance.children())
        cores = len(os.sched_getaffinity(0))
        names = Counter(process.name() for process in processes(self.appliance))
        del names[self.supervisor.name()]
        expected = {"signaling": 1, "worker-spare": 1, **{f"worker-{i}": 1 for i in range(cores)}}
        assert names == expected
        assert len(holders(self.appliance)) == 1
        said = finish(start_call(self._caller, self.appliance, "-n", "4", "--model", "echo", "--duration", "2"))
        assert said["calls"]["ok"] == 4
        assert said["audio"]["packets"]["lost"] == 0

    def stop(self) -> None:
        """Stops it in order; nothing may be left."""
        edge = self.appliance.processes.pop("edge")
        edge.terminate()
        assert edge.wait(30) == 0
        until(lambda: not holders(self.appliance))
        assert processes(self.appliance) == []
        assert not os.path.exists(pins(self.appliance))  # where one may not look there is none of ours
        assert not (load(self.appliance.config_file).edge.run / "edge.holder").exists()


@pytest.fixture(params=["loopback", "lab"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    if request.param == "loopback":
        with Appliance(tmp_path, http_port=18080, media_port=13478) as appliance:
            yield House(appliance, Loopback())
    else:
        lab: Lab = request.getfixturevalue("lab")
        with Appliance(tmp_path, lab=lab) as appliance:
            yield House(appliance, lab.client)


def test_the_supervisor_in_its_first_seconds(house: House) -> None:
    for i in range(30):
        house.kill()
        house.again()
        time.sleep(random.Random(i).uniform(0, 2.5))
    house.kill()
    house.again()
    house.check()
    house.stop()


def test_fifty_quick_kills(house: House) -> None:
    for _ in range(50):
        house.kill()
        house.again()
        time.sleep(0.02)
    house.check()
    house.stop()


def test_the_supervisor_while_it_starts_anew(house: House) -> None:
    for i in range(15):
        house.kill(number=signal.SIGHUP)
        time.sleep(random.Random(i).uniform(0, 3))
        house.kill()
        house.again()
        house.appliance.wait_ready()
    house.check()
    house.stop()


def test_hangups_as_fast_as_they_can_be_sent(house: House) -> None:
    supervisor = house.supervisor
    for i in range(60):
        house.kill(number=signal.SIGHUP)
        time.sleep(random.Random(i).uniform(0, 0.3))
    house.check()
    assert house.supervisor == supervisor
    house.stop()


def test_the_supervisor_while_it_replaces_children(house: House) -> None:
    file = house.appliance.config_file
    text = file.read_text()
    for i in range(15):
        file.write_text(
            text.replace("[edge]", f"[edge]\nunknown_burst = {4000 + i}\nadvertise = '192.0.2.{i + 1}:3478'")
        )
        house.kill()
        house.again()
        time.sleep(random.Random(i).uniform(0.3, 4))
    file.write_text(text)
    house.kill()
    house.again()
    house.appliance.wait_ready()
    time.sleep(8)  # orders are given one after the other
    house.check()
    house.stop()


def test_the_holder_and_then_the_supervisor(house: House) -> None:
    for i in range(15):
        for holder in holders(house.appliance):
            house.kill(holder)
        time.sleep(random.Random(i).uniform(0, 2))
        house.kill()
        house.appliance.processes["edge"].wait(30)
        if not holders(house.appliance):
            until(lambda: not house.appliance.children())
        house.again()
        house.appliance.wait_ready()
    house.check()
    house.stop()


def test_workers_and_the_supervisor_together(house: House) -> None:
    for i in range(15):
        children = list(house.appliance.children().values())
        for process in random.Random(i).sample(children, min(len(children), 1 + i % 3)):
            house.kill(process)
        house.kill()
        house.again()
        if i % 2:
            house.appliance.wait_ready()
    house.check()
    house.stop()


def test_a_worker_that_hangs_and_the_supervisor(house: House) -> None:
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for name, child in house.appliance.children().items():
            if name == "worker-0":
                house.kill(child, number)
        house.kill()
        house.again()
        time.sleep(3)
    house.check()
    for child in house.appliance.children().values():
        house.kill(child, signal.SIGSTOP)
    house.stop()
