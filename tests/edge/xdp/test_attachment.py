"""XDP that is taken off its interface comes back by itself, and until then everybody is told so."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import packets as p
import pytest
from calling import finish, flow_gone, goes_on, hang_up, start_call
from observing import moved, xdp
from privileges import InNamespace
from steer_run import loaded
from structlog.testing import capture_logs
from waiting import until

from edge.xdp import kernel
from edge.xdp.attachment import Attachment
from edge.xdp.cpufilter import detach_cpu_filter
from edge.xdp.steering import Steering
from lab.appliance import Appliance
from lab.network import Lab
from runtime import logs

pytestmark = pytest.mark.needs_root

LINK_DETACH = 34  # enum bpf_cmd: what bpftool link detach does


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def force_off(steering: Steering) -> None:
    """Takes the program off, as another person with the privileges would."""
    assert steering._link_fd is not None
    kernel._bpf(LINK_DETACH, kernel._buffer(struct.pack("=I", steering._link_fd)))


def recreate() -> None:
    ip("link", "add", "fh0", "type", "veth", "peer", "name", "fh1")
    ip("addr", "add", f"{p.EDGE}/24", "dev", "fh0")
    ip("link", "set", "fh0", "up")
    ip("link", "set", "fh1", "up")


class Held:
    """An attachment on ``fh0`` and what it logged."""

    def __init__(self, steering: Steering, media: socket.socket) -> None:
        self.steering = steering
        self.media = media
        self.attachment = Attachment(steering, "fh0", media, logs.get())

    def look(self) -> list[str]:
        """The events of one look, and of a second one, which has nothing to add."""
        with capture_logs() as said:
            self.attachment.look()
        with capture_logs() as again:
            self.attachment.look()
        assert again == []
        return [line["event"].partition(":")[0] for line in said]

    @property
    def state(self) -> tuple[str, str, bool]:
        """The mode, what is missing, and whether the CPU filter is there, which the question takes off."""
        try:
            detach_cpu_filter(self.media)
        except FileNotFoundError:
            return self.attachment.mode, self.attachment.missing, False
        return self.attachment.mode, self.attachment.missing, True


@pytest.fixture
def held(in_namespace: InNamespace) -> Callable[[Callable[[Held], None]], None]:
    """Calls a function in the namespace with an attachment that has looked once."""

    @contextlib.contextmanager
    def holding() -> Iterator[Held]:
        with loaded() as steering, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
            media.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            media.bind((p.EDGE, p.MEDIA_PORT))
            held = Held(steering, media)
            assert held.look() == ["xdp attached"]
            yield held

    def run(body: Callable[[Held], None]) -> None:
        def inside() -> None:
            with holding() as held:
                body(held)

        in_namespace(inside)

    return run


STEERS = ("native", "", True)


def test_it_looks_and_leaves_alone_what_is_well(held: Callable[[Callable[[Held], None]], None]) -> None:
    def body(held: Held) -> None:
        assert held.state == STEERS
        ip("link", "set", "fh0", "down")
        assert held.look() == []
        ip("link", "set", "fh0", "up")
        assert held.look() == []
        assert held.attachment.mode == "native"

    held(body)


def test_an_interface_that_is_made_again_is_steered_again(held: Callable[[Callable[[Held], None]], None]) -> None:
    def body(held: Held) -> None:
        for _ in range(3):
            ip("link", "del", "fh0")
            assert held.look() == ["xdp is off its interface", "no XDP"]
            assert held.state == ("off", "no_interface", False)
            assert not held.steering.steers("fh0")
            recreate()
            assert held.look() == ["xdp attached"]
            assert held.steering.steers("fh0")
            assert held.state == STEERS

    held(body)


def test_an_interface_that_another_takes_the_name_of_is_let_go(held: Callable[[Callable[[Held], None]], None]) -> None:
    def body(held: Held) -> None:
        ip("link", "set", "fh0", "down")
        ip("link", "set", "fh0", "name", "fh9")
        ip("link", "set", "fh1", "name", "fh0")
        assert held.look() == ["xdp is off its interface", "xdp attached"]
        assert held.state == STEERS
        shown = subprocess.run(["ip", "link", "show", "fh9"], check=True, capture_output=True, text=True).stdout
        assert "xdp" not in shown

    held(body)


def test_what_somebody_detached_is_attached_again_at_once(held: Callable[[Callable[[Held], None]], None]) -> None:
    def body(held: Held) -> None:
        force_off(held.steering)
        assert held.look() == ["xdp is off its interface", "xdp attached"]
        assert held.state == STEERS

    held(body)


def test_with_another_program_there_it_does_not_fight(held: Callable[[Callable[[Held], None]], None]) -> None:
    def body(held: Held) -> None:
        from bcc import BPF

        other = BPF(text=b"int other(struct xdp_md *ctx) { return XDP_PASS; }")
        other_fd = other.load_func(b"other", BPF.XDP).fd
        force_off(held.steering)
        BPF.attach_xdp(b"fh0", other.funcs[b"other"], 0)
        assert held.look() == ["xdp is off its interface", "no XDP"]
        assert held.state == ("off", "other_program", False)
        BPF.remove_xdp(b"fh0", 0)
        assert held.look() == ["xdp attached"]
        assert held.state == STEERS

        # And into our own link, as who has pinned programs to swap would do it.
        assert held.steering._link_fd is not None
        kernel.replace_xdp(held.steering._link_fd, other_fd, held.steering.prog_fd)
        assert held.look() == ["xdp is off its interface", "no XDP"]
        assert held.state == ("off", "other_program", False)
        kernel.replace_xdp(held.steering._link_fd, held.steering.prog_fd, other_fd)
        assert held.look() == ["xdp attached"]
        assert held.state == STEERS
        other.cleanup()

    held(body)


def test_where_another_program_was_first_it_is_attached_when_that_goes(in_namespace: InNamespace) -> None:
    def body() -> None:
        with loaded() as first, loaded() as second, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
            media.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            media.bind((p.EDGE, p.MEDIA_PORT))
            first.attach("fh0")
            held = Held(second, media)
            assert held.look() == ["no XDP"]
            assert held.state == ("off", "other_program", False)
            first.detach()
            assert held.look() == ["xdp attached"]
            assert held.state == STEERS

    in_namespace(body)


def attached(appliance: Appliance) -> dict[str, float]:
    return {key[1]: value for key, value in appliance.metrics("edge").items() if key[0] == "firsthop_xdp_attached"}


def status(lab: Lab, appliance: Appliance) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "firsthop", "status", "--json", "--config", str(appliance.config_file)]
    child = lab.edge.popen(argv, stdout=subprocess.PIPE)
    output, _ = child.communicate(timeout=60)
    return child.returncode, json.loads(output)


def test_a_cable_that_is_pulled_and_put_back_is_steered_again_and_status_tells(tmp_path: Path) -> None:
    with Lab() as lab, Appliance(tmp_path, lab=lab) as appliance:
        log = appliance.log_file("edge")
        assert attached(appliance) == {"native": 1}
        finish(start_call(lab.client, appliance, "--model", "echo", "--duration", "1"))
        call = start_call(lab.client, appliance, "--model", "echo", "--duration", "600")
        until(lambda: not flow_gone(appliance))
        serving = {name: child.pid for name, child in appliance.children().items() if name != "worker-spare"}

        lab.unplug()
        until(lambda: attached(appliance) == {"off": 0})
        code, said = status(lab, appliance)
        assert code == 3
        (down,) = (each for each in said["down"] if each["process"] == "XDP")
        assert down["address"] == lab.edge_interface
        assert "no such interface" in down["what_is_seen"]
        assert said["xdp"]["mode"] == "off"

        lab.plug()
        until(lambda: attached(appliance) == {"native": 1})
        assert not [each for each in status(lab, appliance)[1]["down"] if each["process"] == "XDP"]
        goes_on(appliance, "transceiver")
        said = hang_up(call)
        assert said["calls"]["ok"] == 1, "it outlived the cable"
        before = xdp(appliance)
        finish(start_call(lab.client, appliance, "--model", "echo", "--duration", "1"))
        assert any(verdict == "flow_steered" for verdict, _ in moved(before, xdp(appliance)))
        text = log.read_text()
        assert text.count('"xdp is off its interface"') == 1
        assert text.count('"xdp attached"') == 2
        assert text.count('"no XDP: forged') == 1
        now = {name: child.pid for name, child in appliance.children().items() if name != "worker-spare"}
        assert now == serving, "nobody had to be started again"
