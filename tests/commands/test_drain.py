"""``firsthop drain`` on a host that runs: calls are over or handed over, and everything has ended when it returns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from calling import finish, lost_in, start_call
from hosting import ports
from observing import cores, sessions_of
from waiting import DEADLINE_S, until

from firsthop.drain import is_service, of_unit, services
from firsthop.status_cli import scrape
from lab.appliance import Appliance
from lab.network import Lab
from runtime import config
from runtime.address import Address
from wire.keys import new_file_text

# A session over a WebSocket: says when it has begun, and with which code it was closed.
_SOCKET = """
import asyncio, sys, aiohttp
async def main(url, key):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        socket = await http.ws_connect(url + "/v1/realtime?model=offline")
        print(await socket.receive_json() and "begun", flush=True)
        async for message in socket:
            pass
        print(socket.close_code)
asyncio.run(main(*sys.argv[1:]))
"""


def drain(house: Appliance, what: str) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "firsthop", "drain", what, "--config", str(house.config_file)]
    place = house.edge if what == "edge" else house.transceiver
    command = place.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = command.communicate(timeout=DEADLINE_S)
    return subprocess.CompletedProcess(argv, command.returncode, out, err)


@pytest.mark.needs_root
def test_a_host_is_drained_once_its_calls_are_over(lab: Lab, tmp_path: Path) -> None:
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores()[:2], drain_s=60, placement="spread") as house:
        calls = start_call(lab.client, house, "-n", "2", "--model", "echo", "--duration", "10")
        until(lambda: sum(sessions_of(house, f"media-{i}") or 0 for i in (1, 2)) == 2)
        socket = lab.client.popen([sys.executable, "-c", _SOCKET, house.url, house.token], stdout=subprocess.PIPE)
        assert socket.stdout is not None
        assert socket.stdout.readline() == b"begun\n"
        done = drain(house, "transceiver")
        assert socket.communicate(timeout=DEADLINE_S)[0] == b"1012\n"
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().splitlines()[-1] == "ended"
        assert "calls handed over" in done.stdout.decode()
        assert house.processes["transceiver"].wait(DEADLINE_S) == 0
        said = finish(calls)
        assert (said["calls"]["ok"], lost_in(said["audio"])) == (2, 0), "there was nowhere to go: they were waited for"
        again = drain(house, "transceiver")
        assert (again.returncode, again.stderr.count(b"\n")) == (1, 1)


@pytest.mark.needs_root
@pytest.mark.parametrize("supervised", [False, True])
def test_a_service_that_is_the_first_process_of_a_container_is_drained(tmp_path: Path, supervised: bool) -> None:
    (port,) = ports(1)
    (tmp_path / "cluster.toml").write_text(new_file_text())
    (tmp_path / "cluster.toml").chmod(0o600)
    environment = {
        **os.environ,
        "FIRSTHOP_CLUSTER__KEYS": f"{tmp_path}/cluster.toml",
        "FIRSTHOP_TRANSCEIVER__ENDPOINT": f"ipc://{tmp_path}/transceiver.sock",
        "FIRSTHOP_TRANSCEIVER__METRICS": f"127.0.0.1:{port}",
        "FIRSTHOP_TRANSCEIVER__RUN": str(tmp_path / "run"),
        "FIRSTHOP_TRANSCEIVER__SUPERVISED": str(supervised),
    }
    firsthop = [sys.executable, "-m", "firsthop"]
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    with subprocess.Popen([*unshare, *firsthop, "transceiver"], env=environment, stderr=subprocess.PIPE) as container:
        until(lambda: container.poll() is not None or scrape([Address.of("127.0.0.1", port)]) is not None)
        assert container.poll() is None, container.stderr and container.stderr.read().decode()
        inside = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()[0]
        enter = ["nsenter", f"--target={inside}", "--pid", "--mount", "--"]
        if supervised:  # it reaps those whose parent has died
            orphan = subprocess.run([*enter, "sh", "-c", "sleep 0 & echo $!"], capture_output=True, timeout=DEADLINE_S)
            until(lambda: not Path(f"/proc/{inside}/root/proc/{int(orphan.stdout)}").exists())
        subprocess.run([*enter, *firsthop, "drain"], env=environment, timeout=DEADLINE_S, capture_output=True)
        assert container.wait(DEADLINE_S) == 0


def test_what_is_told_to_end_is_a_service_and_no_child_of_one() -> None:
    assert is_service(["python", "-m", "firsthop", "transceiver", "--config", "x"], "transceiver")
    assert is_service(["/opt/firsthop/.venv/bin/python", "/opt/firsthop/.venv/bin/firsthop", "edge"], "edge")
    assert not is_service(["python", "-m", "firsthop", "edge"], "transceiver")
    assert not is_service(["python", "-m", "transceiver.child"], "transceiver")
    assert not is_service(["transceiver", "firsthop"], "transceiver")
    assert not is_service([], "transceiver")


def test_a_process_that_systemd_did_not_start_is_of_no_unit() -> None:
    assert of_unit(os.getpid()) == ""
    assert of_unit(1 << 22) == ""


def test_services_are_looked_for_where_units_have_them_too() -> None:
    places = [str(place) for place in services(config.Config(), "transceiver")]
    assert places[0] == "127.0.0.1:9500"
    assert "127.0.0.1:9509" in places
    assert [str(place) for place in services(config.Config(), "edge")] == ["127.0.0.1:9400"]
