"""An operator with several hosts of a lab: what one does with them, and what they say of themselves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Host, Lab

PORT = 8088
_CALL = re.compile(r'"call": "(rtc_[\w-]+)"')
HANGUP = "/v1/realtime/calls/{}/hangup"


def url_of(house: Appliance, edge: str) -> str:
    """The URL of that edge's signaling."""
    return house.url.replace(house.edge.address, house.place_of(edge).address)


def asked(house: Appliance, edge: str, path: str, *, post: bool = False) -> tuple[int, bytes]:
    """Status and body of a request to that edge's signaling; status 0 where nobody is there."""
    headers = {"Authorization": f"Bearer {house.token}"}
    request = urllib.request.Request(url_of(house, edge) + path, headers=headers, method="POST" if post else "GET")

    def ask() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()
        except OSError:
            return 0, b""

    return house.place_of(edge).inside(ask)


def up_at(house: Appliance, edge: str) -> set[int]:
    """The transceivers that answer that edge; none where it is not ready."""
    status, body = asked(house, edge, "/readyz")
    return {int(i) for i, up in json.loads(body)["transceivers"].items() if up} if status == 200 else set()


def until_all_is_well(house: Appliance, edges: tuple[str, ...], transceivers: set[int]) -> None:
    """Waits until each edge is ready, reaches exactly these transceivers, and names the other edges in its answers."""

    def well() -> bool:
        return all(
            up_at(house, edge) == transceivers and others_at(house, edge) == set(edges) - {edge} for edge in edges
        )

    until(well)


def others_at(house: Appliance, edge: str) -> set[str]:
    with suppress(OSError):
        found = house.metrics("signaling", edge).items()
        return {key[1] for key, value in found if key[0] == "firsthop_signaling_edge_well" and value == 1}
    return set()


def sessions_at(house: Appliance, process: str, host: str) -> int:
    """The number of calls of a transceiver process of that host; -1 where it does not tell."""
    with suppress(OSError):
        return int(house.metrics(process, host)[("firsthop_transceiver_sessions",)])
    return -1


def logged(house: Appliance, process: str, event: str) -> int:
    """How often a process has logged that."""
    return len(re.findall(f'"event": "{re.escape(event)}"', house.log_file(process).read_text()))


def calls_in(house: Appliance, host: str) -> list[str]:
    """The ids of the calls that came up at that transceiver host, in order."""
    lines = house.log_file(host).read_text().splitlines()
    return [found[1] for line in lines if '"media up"' in line and (found := _CALL.search(line))]


def held(house: Appliance) -> list[int]:
    """The number of calls at each of two transceiver hosts of one process; -1 where one does not tell."""
    return [sessions_at(house, "media-1", "transceiver"), sessions_at(house, "media-2", "transceiver-2")]


def all_of(calls: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the caller says, of calls that are hung up now, however they went."""
    calls.terminate()
    said, _ = calls.communicate(timeout=DEADLINE_S)
    figures: dict[str, Any] = json.loads(said)
    return figures


def failures(said: dict[str, Any]) -> list[str]:
    """Why calls failed."""
    return [call["error"] for call in said["per_call"] if call["error"]]


def drained(house: Appliance, host: str) -> list[str]:
    """Takes a host out of service by ``firsthop drain``. Returns the lines that it printed, when the host has ended."""
    what = host.removesuffix("-2")
    argv = [sys.executable, "-m", "firsthop", "drain", what, "--config", str(house.config_of(host))]
    command = house.place_of(host).popen(argv, stdout=subprocess.PIPE)
    said, _ = command.communicate(timeout=2 * DEADLINE_S)
    assert command.returncode == 0
    assert house.processes[host].wait(DEADLINE_S) == 0
    return said.decode().splitlines()


def changed(config: Path, before: str, after: str) -> None:
    """Changes a host's configuration."""
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))


def kill_host(house: Appliance, host: str) -> None:
    """Kills every process there, all at once, as when a host loses power."""
    place = house.place_of(host)
    assert isinstance(place, Host)
    for pid in place.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    house.processes[host].wait()


@contextmanager
def a_balancer(lab: Lab, house: Appliance, statuses: dict[str, int]) -> Iterator[str]:
    """A load balancer on the client's host, before both edges. Yields its URL; at the end ``statuses`` has how many
    calls got which."""
    argv = [sys.executable, str(Path(__file__).with_name("balancer.py")), str(PORT)]
    process = lab.client.popen([*argv, url_of(house, "edge"), url_of(house, "edge-2")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{PORT}"
        process.terminate()
        said, _ = process.communicate(timeout=DEADLINE_S)
        statuses.update(json.loads(said))
    finally:
        process.kill()
        process.communicate()
