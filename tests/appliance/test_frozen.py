"""A process that stands still for seconds (a paused machine, a debugger) is behind, and not dead."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
from calling import goes_on, hang_up, start_call
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab
from wire import link
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(16)}, 1, bytes(32))
FROZEN_S = 7.0  # longer than either end waits for a host that is gone


class Still:
    """A link whose end ``role`` is in a process that reads nothing, and whose other end is here."""

    def __init__(self, role: str, endpoint: str) -> None:
        self._role, self._endpoint = role, endpoint
        argv = [sys.executable, str(Path(__file__).with_name("standing_still.py")), role, endpoint]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdout is not None
        self._out = self.process.stdout
        assert self._out.readline() == b"ready\n"
        self._connect()

    def _connect(self) -> None:
        self._context = zmq.Context[zmq.Socket[bytes]]()
        if self._role == "router":
            self._socket, _ = link.media_dealer(self._context, self._endpoint, b"edge/worker-0", KEYS)
        else:
            self._socket = link.router(self._context, self._endpoint, KEYS)

    def _sent(self, message: bytes) -> bool:
        address = [] if self._role == "router" else [b"edge/worker-0"]
        try:
            self._socket.send_multipart([*address, message], zmq.NOBLOCK)
        except zmq.ZMQError as e:
            if e.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        return True

    def fill(self) -> None:
        """Sends until nothing more fits on the way to it."""
        until(lambda: self._sent(bytes(1 << 16)))
        since = time.monotonic()
        while time.monotonic() - since < 0.5:
            if self._sent(bytes(1 << 16)):
                since = time.monotonic()
            time.sleep(0.01)

    def hang_up(self) -> None:
        self._context.destroy(linger=0)

    def hears(self) -> None:
        """Lets it read again. Returns what it hears on a new connection."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self._connect()
        until(lambda: self._sent(b"hello"))
        assert self._out.readline() == b"hello\n"

    def close(self) -> None:
        self.hang_up()
        self.process.kill()
        self.process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_who_reads_nothing_while_the_other_hangs_up_lives_on(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ends: list[Still] = []
        for role in ("router", "dealer"):
            for endpoint in (f"ipc://{tmp_path}/{role}", f"tcp://127.0.0.1:{free_port()}"):
                ends.append(end := Still(role, endpoint))
                stack.callback(end.close)
                end.fill()
                end.hang_up()
        # Whatever a timer would do to it is done within some seconds.
        with pytest.raises(subprocess.TimeoutExpired):
            ends[-1].process.wait(5)
        assert [end.process.poll() for end in ends] == [None] * 4
        for end in ends:
            end.hears()


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path, lab=lab) as appliance:
        yield appliance


def freeze_in_mid_call(lab: Lab, house: Appliance, frozen: list[Any], calls: int) -> dict[str, Any]:
    """The words of callers whose calls went on while these processes stood still."""
    restarts = house.metrics("edge")
    running = start_call(lab.client, house, "-n", str(calls), "--model", "echo", "--duration", "60")
    until(lambda: house.metrics("transceiver")[("firsthop_transceiver_sessions",)] == calls)
    until(lambda: house.metrics("transceiver")[("firsthop_rx_transceiver_datagrams_total", "audio")] > 50 * calls)
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    time.sleep(FROZEN_S)
    for process in frozen:
        process.send_signal(signal.SIGCONT)
    goes_on(house, "transceiver", frames=50 * calls)
    said = hang_up(running)
    assert house.processes["transceiver"].poll() is None
    assert "_io_error" not in house.log_file("transceiver").read_text() + house.log_file("edge").read_text()
    after = house.metrics("edge")
    restarted = [key for key in after if key[0] == "firsthop_edge_restarts_total" and after[key] != restarts[key]]
    assert not restarted
    return said


@pytest.mark.needs_root
def test_calls_go_on_after_their_transceiver_stood_still(lab: Lab, house: Appliance) -> None:
    assert freeze_in_mid_call(lab, house, [house.processes["transceiver"]], 4)["calls"]["ok"] == 4


@pytest.mark.trials
@pytest.mark.needs_root
def test_calls_go_on_after_ten_times_that_it_stood_still(lab: Lab, house: Appliance) -> None:
    answered = [freeze_in_mid_call(lab, house, [house.processes["transceiver"]], 8) for _ in range(10)]
    assert [said["calls"]["ok"] for said in answered] == [8] * 10
