"""A transceiver host with a process on each core: calls spread over them, and each dies alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import observing
import psutil
import pytest
from calling import finish, goes_on, hang_up, spread_calls, start_call, whole
from observing import kept, revived, sessions, sessions_of
from paths import TESTS
from sidebands import a_sideband, answered, told_by
from waiting import DEADLINE_S, until

from lab.appliance import Appliance, Loopback
from lab.network import Lab
from runtime import config
from runtime.address import Endpoint
from runtime.errors import ConfigError

_TALKS_ON_S = 3.0  # after a kill: what SCTP lost is sent again after a second


@pytest.fixture
def house(two_cores: Appliance) -> Appliance:
    return whole(two_cores, 1, 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One whose transceiver is a single process."""
    with Appliance(tmp_path_factory.mktemp("alone"), http_port=18080, media_port=13478) as appliance:
        yield appliance


def restarts_of(house: Appliance, name: str) -> int:
    return int(house.metrics("transceiver").get(("firsthop_transceiver_restarts_total", name), 0))


def processes(house: Appliance) -> dict[str, int]:
    return {name: child.pid for name, child in house.children().items() if name in ("media-1", "media-2")}


@pytest.mark.needs_root
def test_calls_spread_over_the_processes_and_go_on_when_one_of_these_is_killed(lab: Lab, house: Appliance) -> None:
    for i, core in enumerate(sorted(os.sched_getaffinity(0))[:2], 1):
        assert house.children()[f"media-{i}"].cpu_affinity() == [core]
    restarts = restarts_of(house, "media-1")
    calls, (its_own, _) = spread_calls(lab.client, house, 6)
    until(lambda: kept(house, "media-1") == its_own)
    with a_sideband(lab.client, house, a_call_of(house, 1)) as sideband:
        answered(sideband, 20)
        house.children()["media-1"].send_signal(signal.SIGKILL)
        # The spare takes its place, its id and its calls.
        until(lambda: revived(house, "media-1") == its_own)
        goes_on(house, "media-1", "media-2")
        answered(sideband, 50)
        assert hang_up(calls)["calls"]["ok"] == 6
        told = told_by(sideband)
    # Whoever watches a call goes on too: nothing that was asked is lost, or done twice.
    assert (told["code"], told["errors"]) == (1001, [])
    assert told["answers"] == [str(i) for i in range(len(told["answers"]))]
    until(lambda: restarts_of(house, "media-1") == restarts + 1)
    again = finish(start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "1"))
    assert again["calls"]["ok"] == 4


@pytest.mark.needs_root
def test_a_call_that_is_answered_connects_when_its_process_was_killed_meanwhile(lab: Lab, house: Appliance) -> None:
    script = str(TESTS / "appliance/hosts/answered_caller.py")
    argv = [sys.executable, script, house.url, str(house.token_file)]
    with lab.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout.readline() == "answered\n"
        until(lambda: 1 in sessions(house))
        name = f"media-{1 + sessions(house).index(1)}"
        house.children()[name].send_signal(signal.SIGKILL)
        until(lambda: half_open(house, name) == 1)
        said, _ = caller.communicate("go on\n", timeout=DEADLINE_S)
        assert (caller.returncode, said) == (0, "channel\n")
    until(lambda: sessions(house) == [0, 0])


def half_open(house: Appliance, name: str) -> int:
    """How many answers of the process before it this one stands by."""
    with suppress(OSError):
        return int(house.metrics(name)[("firsthop_transceiver_revived_total", "half_open")])
    return 0


@pytest.mark.needs_root
def test_calls_do_not_notice_that_the_supervisor_is_killed(lab: Lab, house: Appliance) -> None:
    call, _ = spread_calls(lab.client, house, 2)
    before = processes(house)
    house.processes["transceiver"].kill()
    house.processes["transceiver"].wait()
    house.start("transceiver")
    house.wait_ready()
    goes_on(house, "media-1", "media-2")
    said = hang_up(call)
    assert said["calls"]["ok"] == 2
    assert said["audio"]["frames"]["lost"] == 0
    assert processes(house) == before
    # What it took over it watches, and ends.
    house.children()["media-2"].send_signal(signal.SIGKILL)
    until(lambda: processes(house).get("media-2", before["media-2"]) != before["media-2"])
    everybody = list(house.children().values())
    house.close()
    psutil.wait_procs(everybody, timeout=30)
    assert not house.children()
    assert not (house.config_file.parent / "transceiver-1.holder").exists()


def a_call_of(house: Appliance, transceiver: int) -> str:
    """The newest of its calls."""
    return str([line["call"] for line in observing.logged(house, "media up") if line["id"] == transceiver][-1])


def set_agent(house: Appliance, agent: str) -> str:
    """Has the configuration name another agent. Returns the one that it named."""
    text = house.config_file.read_text()
    (before,) = re.findall(r'^agent = "(\w+)"$', text, re.MULTILINE)
    house.config_file.write_text(text.replace(f'agent = "{before}"', f'agent = "{agent}"'))
    return str(before)


def logged(house: Appliance, text: str) -> int:
    return house.log_file("transceiver").read_text().count(text)


@pytest.mark.needs_root
def test_hangup_lets_another_program_take_over_in_mid_call(lab: Lab, house: Appliance) -> None:
    call, _ = spread_calls(lab.client, house, 2)
    before, supervisor = processes(house), house.processes["transceiver"]
    refused, taken = (logged(house, text) for text in ("not started anew", "took a child over"))
    # One that cannot run is not taken up.
    agent = set_agent(house, "nobody")
    supervisor.send_signal(signal.SIGHUP)
    until(lambda: logged(house, "not started anew") == refused + 1)
    set_agent(house, agent)
    supervisor.send_signal(signal.SIGHUP)
    until(lambda: logged(house, "took a child over") == taken + 2)
    goes_on(house, "media-1", "media-2")
    said = hang_up(call)
    assert said["calls"]["ok"] == 2
    assert said["audio"]["frames"]["lost"] == 0
    assert processes(house) == before
    assert supervisor.poll() is None


@pytest.mark.needs_root
def test_a_process_whose_configuration_has_changed_is_replaced_when_its_calls_are_over(
    lab: Lab, house: Appliance
) -> None:
    call = start_call(lab.client, house, "--model", "echo", "--duration", "600")
    until(lambda: sorted(sessions(house)) == [0, 1])
    busy = "media-1" if sessions(house)[0] else "media-2"
    before = processes(house)
    if set_agent(house, "echo") == "echo":
        set_agent(house, "parrot")
    house.processes["transceiver"].send_signal(signal.SIGHUP)
    (idle,) = set(before) - {busy}
    until(lambda: processes(house).get(idle) != before[idle])
    assert processes(house)[busy] == before[busy]
    goes_on(house, busy)
    said = hang_up(call)
    assert (said["calls"]["ok"], said["audio"]["frames"]["lost"]) == (1, 0)
    until(lambda: processes(house).get(idle, before[idle]) != before[idle])
    until(lambda: processes(house).get(busy, before[busy]) != before[busy])
    house.wait_ready()
    assert finish(start_call(lab.client, house, "-n", "2", "--duration", "1"))["calls"]["ok"] == 2


def test_hangup_ends_no_call_of_a_transceiver_alone(alone: Appliance) -> None:
    call = start_call(Loopback(), alone, "--model", "echo", "--duration", "600")
    until(lambda: sessions_of(alone, "transceiver") == 1)
    alone.processes["transceiver"].send_signal(signal.SIGHUP)
    until(lambda: logged(alone, "SIGHUP changes nothing"))
    goes_on(alone, "transceiver")
    said = hang_up(call)
    assert (said["calls"]["ok"], said["audio"]["frames"]["lost"]) == (1, 0)


async def test_a_session_without_media_ends_with_a_reason_when_its_process_dies(alone: Appliance) -> None:
    headers = {"Authorization": f"Bearer {alone.token}"}
    async with (
        asyncio.timeout(60),
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{alone.url}/v1/realtime?model=parrot") as socket,
    ):
        assert (await socket.receive_json())["type"] == "session.created"
        alone.processes["transceiver"].kill()
        error = await socket.receive_json()
        assert (error["type"], error["error"]["code"]) == ("error", "session_lost")
        assert (await socket.receive()).data == 1011
    alone.processes["transceiver"].wait()
    alone.start("transceiver")
    alone.wait_ready()


@pytest.mark.needs_root
def test_who_faces_the_network_has_no_capabilities(house: Appliance, alone: Appliance) -> None:
    """Started by root, without systemd that would take them away."""
    facing = {**house.children(), "transceiver": psutil.Process(alone.processes["transceiver"].pid)}
    assert {"worker-0", "worker-spare", "signaling", "transceiver", "media-1", "media-spare"} <= set(facing)
    for name, process in facing.items():
        status = Path(f"/proc/{process.pid}/status").read_text()
        effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
        assert int(effective, 16) == 0, name


def test_endpoints_count_up() -> None:
    assert Endpoint("tcp://10.0.0.5:7401").up(3) == "tcp://10.0.0.5:7404"
    assert Endpoint("tcp://[2001:db8::1]:7499").up(1) == "tcp://[2001:db8::1]:7500"
    assert Endpoint("ipc:///run/8/transceiver-9.sock").up(2) == "ipc:///run/8/transceiver-11.sock"
    assert Endpoint("ipc:///run/8/transceiver.sock").up(0) == "ipc:///run/8/transceiver.sock"
    with pytest.raises(ValueError, match="no number in it"):
        Endpoint("ipc:///run/8/transceiver.sock").up(1)


def test_an_edge_knows_every_process_of_a_host(tmp_path: Path) -> None:
    file = tmp_path / "firsthop.toml"
    file.write_text('[[edge.transceivers]]\nid = 4\nendpoint = "tcp://10.0.0.5:7400"\nprocesses = 3\n')
    peers = config.load(file).edge.transceivers
    assert [(peer.id, peer.endpoint) for peer in peers] == [
        (4, "tcp://10.0.0.5:7400"),
        (5, "tcp://10.0.0.5:7401"),
        (6, "tcp://10.0.0.5:7402"),
    ]
    file.write_text(file.read_text() + '[[edge.transceivers]]\nid = 6\nendpoint = "tcp://10.0.0.6:7400"\n')
    with pytest.raises(ConfigError, match="same id"):
        config.load(file)


@pytest.mark.trials
@pytest.mark.needs_root
def test_twenty_kills_of_a_process_with_twenty_calls(lab: Lab, tmp_path: Path) -> None:
    """Each call is heard again, and its data channel answers: the caller asks how the call was at its end."""
    core = min(os.sched_getaffinity(0))
    gaps: list[float] = []
    with Appliance(tmp_path, lab=lab, transceiver_cores=[core]) as house:
        for n in range(20):
            until(lambda: "media-spare" in house.children())
            calls = start_call(lab.client, house, "-n", "20", "--model", "parrot", "--duration", "600")
            until(lambda: kept(house, "media-1") == 20)
            until(lambda: sessions_of(house, "media-1") == 20)
            house.children()["media-1"].send_signal(signal.SIGKILL)
            until(lambda: revived(house, "media-1") == 20)
            time.sleep(_TALKS_ON_S)
            said = hang_up(calls)
            assert said["calls"]["ok"] == 20, n
            silent = [call["call_id"] for call in said["per_call"] if not call["server"]]
            assert not silent, n
            gaps += [call["longest_gap_ms"] for call in said["per_call"]]
            until(lambda: sessions_of(house, "media-1") == 0)
    gaps.sort()
    print(f"silent for {gaps[len(gaps) // 2]} ms (p50), {gaps[-1 - len(gaps) // 100]} ms (p99), {gaps[-1]} ms (most)")
