"""Descriptors that outlive an edge's supervisor: in systemd's store, and through starts and stops of every kind."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from calling import goes_on, hang_up, kill_the_supervisor, lost_in, start_call
from observing import at_work, holders
from service_manager import ServiceManager
from waiting import DEADLINE_S, until

from lab.appliance import Appliance, Loopback


def loopback(directory: Path, **edge: object) -> Appliance:
    return Appliance(directory, http_port=18080, media_port=13478, **edge)


def logged(appliance: Appliance, text: str) -> int:
    return appliance.log_file("edge").read_text().count(text)


def exit_code(appliance: Appliance) -> int:
    return int(appliance.processes["edge"].wait(DEADLINE_S))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(tmp_path)
    yield manager
    manager.close()
    assert manager.refused == []


@pytest.fixture
def service(tmp_path: Path, manager: ServiceManager) -> Iterator[Appliance]:
    appliance = loopback(tmp_path)
    appliance.edge = manager
    with appliance:
        yield appliance


# --- under systemd ---


def test_what_systemd_stores_costs_a_killed_supervisor_no_frame(manager: ServiceManager, service: Appliance) -> None:
    until(lambda: "worker-spare" in service.children())
    serving, stored = at_work(service), manager.stored
    workers = [name for name in serving if name != "signaling"]
    kept = {"lifeline-read", "lifeline-write", "beats", "http", *(f"media-{i}" for i in range(len(workers)))}
    assert {name.partition("@")[0] for name in stored} == kept | {f"child-{name}" for name in serving}
    assert len(stored) == len(kept) + len(serving)
    assert not holders(service)

    call = start_call(Loopback(), service, "--model", "echo", "--duration", "600")
    goes_on(service, "transceiver")
    kill_the_supervisor(service)
    assert at_work(service) == serving
    service.start("edge")
    service.wait_ready()
    service.processes["edge"].send_signal(signal.SIGHUP)
    until(lambda: manager.said == ["READY=1"] * 3)
    service.wait_ready()
    # As systemctl restart does.
    service.processes["edge"].send_signal(signal.SIGUSR2)
    assert exit_code(service) == 0
    assert at_work(service) == serving
    service.start("edge")
    until(lambda: manager.said == ["READY=1"] * 4)
    service.wait_ready()
    goes_on(service, "transceiver")
    said = hang_up(call)
    assert said["calls"]["ok"] == 1
    assert lost_in(said["audio"]) == 0
    assert (at_work(service), manager.stored) == (serving, stored)

    # Taken over means watched: who dies is started again, and stored again.
    service.children()["worker-0"].send_signal(signal.SIGKILL)
    until(lambda: at_work(service).get("worker-0") not in (None, serving["worker-0"]))
    until(lambda: manager.stored == stored)
    edge = service.processes.pop("edge")
    edge.terminate()
    assert edge.wait(DEADLINE_S) == 0
    assert manager.said[4:] == ["STOPPING=1"]
    assert not service.children()
    assert manager.stored == []


def test_what_systemd_throws_away_ends(manager: ServiceManager, service: Appliance) -> None:
    children = service.children()
    children["worker-0"].suspend()  # as one that hangs, which heeds nothing
    kill_the_supervisor(service)
    manager.dead()
    psutil.wait_procs(children.values(), DEADLINE_S)
    assert not service.children()


def test_what_cannot_be_taken_over_goes_on_until_it_can(manager: ServiceManager, service: Appliance) -> None:
    """systemd keeps what it stores for as long as it starts the edge again, so no exit code may stop it from that."""
    serving, stored, good = at_work(service), manager.stored, service.config_file.read_text()
    kill_the_supervisor(service)
    for broken in (
        good.replace("[edge]", "[edge]\nmedai = 1"),
        good.replace(":18080", ":9500"),
        good.replace(":13478", ":9500").replace(":18080", ":9500"),
    ):
        service.config_file.write_text(broken)
        service.start("edge")
        assert exit_code(service) == 1
    assert at_work(service) == serving
    service.config_file.write_text(good)
    service.start("edge")
    service.wait_ready()
    assert (at_work(service), manager.stored) == (serving, stored)


def test_where_nothing_runs_systemd_need_not_try_again(tmp_path: Path, manager: ServiceManager) -> None:
    appliance = loopback(tmp_path)
    appliance.edge = manager
    appliance.config_file.write_text(appliance.config_file.read_text().replace("[edge]", "[edge]\nmedai = 1"))
    appliance.start("edge")
    assert exit_code(appliance) == 2
    assert manager.stored == []


# --- starting, stopping and starting anew ---


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_an_edge_that_is_told_to_end_before_it_is_up_leaves_nothing(tmp_path: Path, asked: signal.Signals) -> None:
    appliance = loopback(tmp_path)
    appliance.start("edge")
    until(lambda: (tmp_path / "edge.holder").exists())
    appliance.processes["edge"].send_signal(asked)
    assert exit_code(appliance) == 0
    until(lambda: not holders(appliance) and not appliance.children())
    assert not (tmp_path / "edge.holder").exists()


def test_hangup_before_it_is_up_is_heard_afterwards(tmp_path: Path) -> None:
    appliance = loopback(tmp_path)
    appliance.start("transceiver")
    appliance.start("edge")
    until(lambda: (tmp_path / "edge.holder").exists())
    appliance.processes["edge"].send_signal(signal.SIGHUP)
    with contextlib.closing(appliance):
        until(lambda: logged(appliance, '"xdp": "off"') == 2)
        appliance.wait_ready()
        assert appliance.processes["edge"].poll() is None


def test_a_metrics_port_that_is_taken_leaves_nothing(tmp_path: Path) -> None:
    appliance = loopback(tmp_path)
    with socket.create_server(("127.0.0.1", 9400)):
        appliance.start("edge")
        assert exit_code(appliance) == 2
    until(lambda: not holders(appliance))
    assert not (tmp_path / "edge.holder").exists()


def test_without_a_holder_hangup_still_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with loopback(tmp_path, run=str(tmp_path / "file/run")) as appliance:
        until(lambda: "worker-spare" in appliance.children())
        serving, edge = at_work(appliance), psutil.Process(appliance.processes["edge"].pid)
        appliance.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: logged(appliance, "took a child over") == len(serving))
        until(lambda: "worker-spare" in appliance.children())
        assert at_work(appliance) == serving
        assert psutil.STATUS_ZOMBIE not in [child.status() for child in edge.children()]


def test_an_address_that_this_host_does_not_have_is_not_taken_up(tmp_path: Path) -> None:
    with loopback(tmp_path) as appliance:
        text = appliance.config_file.read_text()
        appliance.config_file.write_text(text.replace('media = "127.0.0.1', 'media = "192.0.2.1'))
        appliance.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: logged(appliance, "not started anew"))
        assert logged(appliance, "edge.media: 192.0.2.1 port 0: this host does not have that address")
        appliance.config_file.write_text(text)
        assert appliance.processes["edge"].poll() is None
