"""Two edges of one lab: which of them has a call, and an edge whose host dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from paths import TESTS
from waiting import DEADLINE_S, until

from lab.appliance import Appliance, Place
from lab.network import Host, Lab

EDGES = ("edge", "edge-2")


def edge_url(appliance: Appliance, edge: str) -> str:
    """The URL of that edge's signaling."""
    return appliance.url.replace(appliance.edge.address, _place(appliance, edge).address)


def _place(appliance: Appliance, edge: str) -> Place:
    place = appliance.edge if edge == "edge" else appliance.edge_2
    assert place is not None
    return place


def named_by(appliance: Appliance, edge: str) -> set[str]:
    """The other edges that this one's answers name now."""
    found = appliance.metrics("signaling", edge).items()
    return {key[1] for key, value in found if key[0] == "firsthop_signaling_edge_well" and value == 1}


def until_both_are_well(appliance: Appliance) -> None:
    """Waits until each edge's answers name the other."""
    until(lambda: named_by(appliance, "edge") == {"edge-2"} and named_by(appliance, "edge-2") == {"edge"})


def forwarded(appliance: Appliance, edge: str) -> float:
    """The number of datagrams that this edge's workers have passed on as of known flows."""
    workers = [name for name in appliance.children(edge) if re.fullmatch(r"worker-\d+", name)]
    key = ("firsthop_rx_worker_datagrams_total", "forwarded_flow")
    return sum(appliance.metrics(worker, edge)[key] for worker in workers)


def carries(appliance: Appliance, edge: str, datagrams: int = 50) -> None:
    """Returns when this edge has passed on so many more datagrams of calls."""
    before = forwarded(appliance, edge)
    until(lambda: forwarded(appliance, edge) >= before + datagrams)


def carrier(appliance: Appliance, datagrams: int = 50) -> tuple[str, str]:
    """The edge that carries the one call that there is, when it has passed on so many more datagrams, and the other: a
    client takes whichever answers it first."""
    before = {edge: forwarded(appliance, edge) for edge in EDGES}

    def ahead() -> list[str]:
        return [edge for edge in EDGES if forwarded(appliance, edge) >= before[edge] + datagrams]

    until(ahead)
    first = ahead()[0]
    return first, next(edge for edge in EDGES if edge != first)


@contextmanager
def numbered(lab: Lab, appliance: Appliance, *options: str) -> Iterator[Callable[[], list[int]]]:
    """A call whose data channel carries numbers both ways. What it gives ends the call, and returns the numbers that
    came back: they are 0, 1, 2 and so on where none was lost, came twice or came out of order, and none is missing at
    the end."""
    argv = [sys.executable, str(TESTS / "appliance/edges/numbered_caller.py"), appliance.url, str(appliance.token_file)]
    call = lab.client.popen([*argv, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end() -> list[int]:
        said = json.loads(call.communicate(timeout=2 * DEADLINE_S)[0].splitlines()[-1])
        answers: list[int] = said["answers"]
        assert len(answers) == said["asked"]
        return answers

    try:
        assert call.stdout is not None
        assert call.stdout.readline() == b"talking\n"
        yield end
    finally:
        call.kill()
        call.communicate()


def kill_host(appliance: Appliance, edge: str) -> None:
    """Kills every process of that edge, all at once, as when its host loses power."""
    place = _place(appliance, edge)
    assert isinstance(place, Host)
    for pid in place.pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    appliance.processes[edge].wait()


def ready(appliance: Appliance, edge: str) -> int:
    """The HTTP status of that edge's readiness."""

    def asked() -> int:
        try:
            with urllib.request.urlopen(f"{edge_url(appliance, edge)}/readyz", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as e:
            with e:
                return e.code

    return _place(appliance, edge).inside(asked)


def last_call(appliance: Appliance) -> str:
    """The id of the call that the transceiver took last."""
    lines = (line for line in appliance.log_file("transceiver").read_text().splitlines() if line.startswith("{"))
    # A call before it may have been ended since.
    return [str(said["call"]) for said in map(json.loads, lines) if said["event"] == "session"][-1]


def hang_up_at(appliance: Appliance, edge: str, call: str) -> int:
    """Ends a call through that edge's signaling. Returns the HTTP status."""
    url = f"{edge_url(appliance, edge)}/v1/realtime/calls/{call}/hangup"
    request = urllib.request.Request(url, method="POST", headers={"Authorization": f"Bearer {appliance.token}"})

    def asked() -> int:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)

    return _place(appliance, edge).inside(asked)
