"""The supervisor may die at any moment: calls, sockets, workers and XDP go on, and the next one takes them over."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from calling import finish, flow_gone, goes_on, hang_up, kill_the_supervisor, lost_in, start_call, whole
from observing import OF_CALLS, at_work, holders, moved, pins, received, xdp
from steer_run import older_flows
from waiting import until

from edge.xdp import kernel
from edge.xdp.pins import Pins
from lab.appliance import Appliance, Loopback, Place
from lab.network import Lab

pytestmark = pytest.mark.needs_root


@pytest.fixture
def house(appliance: Appliance) -> Appliance:
    until(lambda: flow_gone(whole(appliance)))
    return appliance


def long_call(lab: Lab, appliance: Appliance) -> subprocess.Popen[bytes]:
    """A call that is up, and that only ``ended_well`` ends."""
    until(lambda: flow_gone(appliance))
    call = start_call(lab.client, appliance, "--model", "echo", "--duration", "600")
    until(lambda: not flow_gone(appliance))
    goes_on(appliance, "transceiver")
    return call


def ended_well(appliance: Appliance, call: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Hangs up when the call has gone on for a second. Returns the caller's words."""
    goes_on(appliance, "transceiver")
    said = hang_up(call)
    assert said["calls"]["ok"] == 1
    return said


def program(appliance: Appliance) -> str:
    """The id of the program that is pinned, and attached if its link says so."""
    found = {}
    for name in ("program", "link-native"):
        fd = kernel.pinned(pins(appliance) / name)
        found[name] = kernel.facts(fd)["prog_id"]
        os.close(fd)
    assert found["program"] == found["link-native"]
    return found["program"]


def kill_it_in_mid_call(lab: Lab, appliance: Appliance) -> dict[str, Any]:
    """The words of the caller of a call during which the supervisor was killed and started again."""
    until(lambda: flow_gone(appliance) and "worker-spare" in appliance.children())
    before, serving, steering = xdp(appliance), at_work(appliance), program(appliance)
    call = long_call(lab, appliance)
    kill_the_supervisor(appliance)
    assert at_work(appliance) == serving
    appliance.start("edge")
    appliance.wait_ready()
    said = ended_well(appliance, call)
    assert at_work(appliance) == serving
    assert program(appliance) == steering
    # Counters live in the kernel, so they never went back.
    after = xdp(appliance)
    assert all(after[key] >= n for key, n in before.items())
    assert sum(n for (v, _), n in moved(before, after).items() if v in OF_CALLS) >= said["audio"]["frames"]["sent"]
    return said


def test_a_killed_supervisor_costs_no_frame(lab: Lab, house: Appliance) -> None:
    audio = kill_it_in_mid_call(lab, house)["audio"]
    assert lost_in(audio) == 0
    # Taken over means watched: who dies is started again.
    until(lambda: "worker-spare" in house.children())
    house.children()["worker-0"].send_signal(signal.SIGKILL)
    until(lambda: received(house, "edge", "firsthop_edge_restarts_total")["worker-0"] == 1)
    house.wait_ready()


@pytest.mark.trials
def test_twenty_kills_of_the_supervisor_cost_no_frame(lab: Lab, house: Appliance) -> None:
    heard = [kill_it_in_mid_call(lab, house)["audio"] for _ in range(20)]
    gaps = sorted(audio["longest_gap_ms"]["max"] for audio in heard)
    lost = [lost_in(audio) for audio in heard]
    print(f"longest gaps {gaps} ms, frames lost {lost}")
    assert lost == [0] * 20


class AsUnit:
    """The edge's host, for a user with no more than systemd/firsthop-edge.service grants."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.address = place.address
        self.inside = place.inside

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        caps = "-all,+bpf,+net_admin,+perfmon,+sys_nice"
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
        grants = [f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}"]
        return self._place.popen([*user, *grants, *argv], **options)


@pytest.fixture
def other_lab() -> Iterator[Lab]:
    """A lab for an appliance of the test's own."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def unit(other_lab: Lab) -> Iterator[Appliance]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bpf").mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", folder / "bpf"], check=True)
        try:
            # Its folder is the edge's user's alone: a transceiver that shares it has that user too.
            appliance = Appliance(folder, lab=other_lab, one_host=False, pins=str(folder / "bpf"))
            appliance.edge = AsUnit(appliance.edge)
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, 65534, 65534)
            # The transceiver is root's here, without root's rights: both can read this.
            os.chown(folder / "cluster.toml", 0, 65534)
            (folder / "cluster.toml").chmod(0o640)
            folder.chmod(0o755)
            with appliance:
                yield appliance
        finally:
            subprocess.run(["umount", folder / "bpf"], check=True)


def test_the_unit_s_user_takes_over_what_is_pinned(other_lab: Lab, unit: Appliance) -> None:
    audio = kill_it_in_mid_call(other_lab, unit)["audio"]
    assert lost_in(audio) == 0
    assert not re.search("no XDP|CAP_SYS_NICE", unit.log_file("edge").read_text())


def test_calls_can_be_placed_while_there_is_no_supervisor(lab: Lab, house: Appliance) -> None:
    kill_the_supervisor(house)
    said = finish(start_call(lab.client, house, "-n", "3", "--model", "echo", "--duration", "2"))
    assert said["calls"]["ok"] == 3
    assert said["audio"]["packets"]["lost"] == 0


def test_hangup_lets_another_program_take_over_in_mid_call(lab: Lab, house: Appliance) -> None:
    serving, supervisor = at_work(house), house.processes["edge"]
    call = long_call(lab, house)
    ready = house.log_file("edge").read_text().count('"event": "xdp attached"')
    supervisor.send_signal(signal.SIGHUP)
    until(lambda: house.log_file("edge").read_text().count('"event": "xdp attached"') > ready)
    house.wait_ready()
    assert lost_in(ended_well(house, call)["audio"]) == 0
    assert at_work(house) == serving
    assert supervisor.poll() is None


def replaced_in_mid_call(house: Appliance, serving: dict[str, int], call: subprocess.Popen[bytes]) -> None:
    """Returns when the ``call`` has ended well, though another worker took the place of each that was ``serving``."""

    def workers(at: dict[str, int]) -> set[int]:
        return {pid for name, pid in at.items() if name != "signaling"}

    until(lambda: len(at_work(house)) == len(serving) and workers(at_work(house)).isdisjoint(workers(serving)))
    house.wait_ready()
    # Each worker was replaced once, as gently as one that dies.
    assert lost_in(ended_well(house, call)["audio"]) <= 25


def test_an_edge_takes_over_from_one_that_knew_of_no_shedding(lab: Lab, house: Appliance) -> None:
    """A table that was not pinned is made, with a program that uses it and workers that hold it."""
    serving, steering = at_work(house), program(house)
    call = long_call(lab, house)
    kill_the_supervisor(house)
    table = pins(house) / "shedding"
    table.unlink()
    house.start("edge")
    replaced_in_mid_call(house, serving, call)
    assert table.exists()
    assert program(house) != steering


def test_an_edge_takes_over_flows_of_an_older_layout(lab: Lab, house: Appliance) -> None:
    """Flows had no buckets once: they are copied, and calls go on without waiting for a check."""
    serving = at_work(house)
    call = long_call(lab, house)
    kill_the_supervisor(house)
    held = Pins(pins(house))
    descriptors = [kernel.pinned(pins(house) / name) for name in ("flows", "ssrcs")]
    flows = list(kernel.FlowStore(*descriptors))
    assert len(flows) == 1
    descriptors.append(older := older_flows(flows))
    held.put("flows", older)
    held.close()
    for fd in descriptors:
        os.close(fd)
    house.start("edge")
    replaced_in_mid_call(house, serving, call)


def test_hangup_takes_up_a_changed_configuration(other_lab: Lab, tmp_path: Path) -> None:
    """Children that serve other orders than these are replaced, another program takes the old one's place, and a
    table of another size gets the flows of the old."""
    with Appliance(tmp_path, lab=other_lab) as house:
        serving, steering = at_work(house), program(house)
        call = long_call(other_lab, house)
        text = house.config_file.read_text()
        house.config_file.write_text(text.replace("[edge]", "[edge]\nunknown_rate = 4000\nflow_entries = 1024"))
        house.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: set(at_work(house).values()).isdisjoint(serving.values()) and len(at_work(house)) == len(serving))
        replaced_in_mid_call(house, serving, call)
        assert program(house) != steering


def test_a_broken_configuration_is_not_taken_up(house: Appliance) -> None:
    serving = at_work(house)
    text = house.config_file.read_text()
    house.config_file.write_text(text.replace("[edge]", "[edge]\nmedai = 1"))
    house.processes["edge"].send_signal(signal.SIGHUP)
    until(lambda: "not started anew" in house.log_file("edge").read_text())
    house.config_file.write_text(text)
    assert "medai: no such key" in house.log_file("edge").read_text()
    assert at_work(house) == serving
    assert house.processes["edge"].poll() is None


def test_a_killed_holder_is_replaced_and_knows_everything(lab: Lab, house: Appliance) -> None:
    (holder,) = holders(house)
    holder.kill()
    until(lambda: len(holders(house)) == 1 and holders(house) != [holder])
    audio = kill_it_in_mid_call(lab, house)["audio"]
    assert lost_in(audio) == 0


def test_without_supervisor_and_holder_nothing_runs_but_xdp_knows_its_flows(lab: Lab, house: Appliance) -> None:
    call = long_call(lab, house)
    before, steering = xdp(house), program(house)
    (holder,) = holders(house)
    house.processes["edge"].send_signal(signal.SIGKILL)
    holder.kill()
    house.processes["edge"].wait()
    until(lambda: not house.children())
    house.start("edge")
    house.wait_ready()
    ended_well(house, call)
    assert program(house) == steering
    assert sum(n for (v, _), n in moved(before, xdp(house)).items() if v.startswith("flow_")) > 50


def test_nothing_is_left_of_an_edge_that_was_stopped(house: Appliance) -> None:
    folder = pins(house)
    assert folder.is_dir()
    (holder,) = holders(house)
    edge = house.processes.pop("edge")
    edge.terminate()
    assert edge.wait(30) == 0
    psutil.wait_procs([holder], 30)
    assert not holders(house)
    assert not house.children()
    assert not folder.exists()
    assert not (house.config_file.parent / "edge.holder").exists()


def test_a_second_edge_of_the_same_name_is_refused_and_the_first_goes_on(lab: Lab, house: Appliance) -> None:
    serving, steering = at_work(house), program(house)
    first = house.processes["edge"]
    house.start("edge")
    second = house.processes["edge"]
    house.processes["edge"] = first
    assert second.wait(30) == 2
    assert "runs already" in house.log_file("edge").read_text()
    assert (at_work(house), program(house)) == (serving, steering)
    finish(start_call(lab.client, house, "--model", "echo", "--duration", "1"))


def test_xdp_that_cannot_be_had_any_more_costs_no_call(
    lab: Lab, house: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of the kernel's headers: the next supervisor goes on without XDP, and says so."""
    assert program(house)
    attached = house.log_file("edge").read_text().count('"xdp attached"')
    kill_the_supervisor(house)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/nowhere")
    house.start("edge")
    house.wait_ready()
    until(lambda: "no kernel headers at /nowhere" in house.log_file("edge").read_text())
    assert not pins(house).exists()
    until(lambda: len(at_work(house)) > 1)
    said = finish(start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "2"))
    assert said["calls"]["ok"] == 4
    # And back.
    monkeypatch.undo()
    kill_the_supervisor(house)
    house.start("edge")
    until(lambda: house.log_file("edge").read_text().count('"xdp attached"') == attached + 1)
    house.wait_ready()
    finish(start_call(lab.client, house, "--model", "echo", "--duration", "1"))


def test_where_nobody_keeps_anything_the_edge_runs_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Appliance(tmp_path, http_port=18080, media_port=13478, run=str(tmp_path / "file/run")) as appliance:
        assert "calls will not survive" in appliance.log_file("edge").read_text()
        finish(start_call(Loopback(), appliance, "--model", "echo", "--duration", "1"))
        kill_the_supervisor(appliance)
        until(lambda: not appliance.children())


def test_a_holder_refuses_strangers(house: Appliance) -> None:
    """Whoever holds the sockets could listen to every call."""
    path = house.config_file.parent / "edge.holder"
    path.chmod(0o777)
    for folder in (path.parent, *path.parent.parents):
        if folder.stat().st_mode & 0o1 == 0:
            folder.chmod(folder.stat().st_mode | 0o1)
    kill_the_supervisor(house)
    code = "import socket, sys; s = socket.socket(1, 5); s.connect(sys.argv[1]); print(s.recv(1024))"
    said = subprocess.run(
        ["/usr/bin/python3", "-c", code, str(path)], user=65534, group=65534, cwd="/", capture_output=True, check=False
    )
    assert said.stdout in (b"b''\n", b""), said
    house.start("edge")
    house.wait_ready()
