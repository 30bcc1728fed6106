"""The relays that are compared, each as its operator would run it on one core, with the backend that it relays to."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from pyroute2 import IPRoute

from bench.harness.conditions import LOAD_CPU, pin
from bench.harness.conditions import SERVER_CPU as RELAY_CPU
from bench.harness.document import ROOT
from bench.harness.processes import Started, await_quiet, started_processes, write_secrets
from lab.links import sysctl, take_frames
from lab.network import Host, Lab
from wire import address, keys, stun, ufrag
from wire.encapsulation import HEAD_BYTES

__all__ = ["CLIENTS_MAC", "PORT", "RELAYS", "RelayError", "Running", "Site"]

PORT, BACKEND_PORT, FAR_PORT = 3478, 7000, 7400
# No host has it.
CLIENTS_MAC = "02:00:00:00:00:03"
OPEN = b'firsthop_edge_express{transceiver="1",why=""} 1.0'
ROUND_US = 1000
PROGRAMS = ("load", "echo", "floor")
READY_S = 90.0
QUIET_S = 0.2

TURN_ALLOCATE, TURN_CHANNEL_BIND, SUCCESS = 0x0003, 0x0009, 0x0100
CHANNEL_NUMBER, XOR_PEER_ADDRESS, REQUESTED_TRANSPORT = 0x000C, 0x0012, 0x0019
CHANNEL = 0x4000


class RelayError(RuntimeError):
    """The error that a relay did not come up, or that a program cannot be built; the text says why."""


@dataclass
class Site:
    """The hosts, the C programs built, and a directory for a relay's files."""

    lab: Lab
    directory: Path
    # The clients' address; no host has it, so nobody but the load answers to it.
    clients: str = field(init=False)
    edge_mac: str = field(init=False)

    def __post_init__(self) -> None:
        self.clients = self.lab.client.address.rpartition(".")[0] + ".3"
        self.edge_mac = self.lab.edge.inside(self._introduce)
        for program in PROGRAMS:
            source = Path(__file__).with_name(f"{program}.c")
            command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(self.program(program)), str(source)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            except FileNotFoundError:
                raise RelayError("gcc is missing: run scripts/setup bench as root") from None
            except subprocess.CalledProcessError as e:
                raise RelayError(f"{source.name} cannot be built:\n{e.stderr}") from None

    def program(self, name: str) -> Path:
        return self.directory / name

    def start(self, name: str, cpu: int, *argv: str | Path, host: Host | None = None) -> subprocess.Popen[Any]:
        """Starts a program on the edge host, or another, on one core; its output goes to a log of that name."""
        if shutil.which(argv[0]) is None:
            raise RelayError(f"{argv[0]} is missing: run scripts/setup bench as root")
        with self.log_file(name).open("w") as log:
            command = pin([str(part) for part in argv], cpu)
            return (host or self.lab.edge).popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT)

    def log_file(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _introduce(self) -> str:
        """Tells the edge host where the clients are. Returns the MAC address of its own interface."""
        with IPRoute() as ip:
            index = ip.link_lookup(ifname=self.lab.edge_interface)[0]
            # The client host's stack takes frames to a MAC address that is not its own for somebody else's, and drops
            # them at once: the load, which reads them before that, is all that deals with them.
            ip.neigh("replace", dst=self.clients, lladdr=CLIENTS_MAC, ifindex=index, state="permanent")
            return str(ip.link("get", index=index)[0].get("address"))


@dataclass(frozen=True, slots=True)
class Running:
    """A relay that runs. ``head`` is what it wants before each datagram; ``greetings`` makes what flows say first, as
    ``load.c`` reads it; ``to`` is where they send, if not to the edge host."""

    relay: tuple[int, ...]
    backend: tuple[int, ...]
    head: bytes = b""
    greetings: Callable[[int], bytes] | None = None
    to: str = ""


Start = Callable[[Site], AbstractContextManager[Running]]


@contextmanager
def direct(site: Site) -> Iterator[Running]:
    """No relay: the backend stands where the relays stand, on their core."""
    with _processes() as started:
        echo = started(site.start("echo", RELAY_CPU, site.program("echo"), site.lab.edge.address, str(PORT), "0"))
        yield Running((), (echo.pid,))


@contextmanager
def routed(site: Site) -> Iterator[Running]:
    """No relay, and a host between: the edge host's kernel forwards to the next, where the backend stands, and back."""
    lab = site.lab
    net = lab.client.address.rpartition(".")[0] + ".0/24"

    def way_back() -> None:
        with IPRoute() as ip:
            ip.route("replace", dst=net, gateway=lab.edge_inner_address)

    lab.transceiver.inside(way_back)
    with _processes() as started:
        argv = [str(site.program("echo")), lab.transceiver.address, str(PORT), "0"]
        echo = started(lab.transceiver.popen(pin(argv, RELAY_CPU), stdin=subprocess.DEVNULL))
        lab.edge.inside(lambda: sysctl("net/ipv4/ip_forward", "1"))
        try:
            yield Running((), (echo.pid,), to=lab.transceiver.address)
        finally:
            lab.edge.inside(lambda: sysctl("net/ipv4/ip_forward", "0"))


def floor(site: Site) -> AbstractContextManager[Running]:
    """A loop around recvmmsg and sendmmsg in C."""
    return _floor(site, 0)


def rounds(site: Site) -> AbstractContextManager[Running]:
    """The same with a pause between two batches, which is firsthop's under load."""
    return _floor(site, ROUND_US)


@contextmanager
def _floor(site: Site, round_us: int) -> Iterator[Running]:
    host = site.lab.edge.address
    with _processes() as started:
        # Before each datagram stands the client's struct sockaddr_in.
        echo = started(site.start("echo", LOAD_CPU, site.program("echo"), host, str(BACKEND_PORT), "16"))
        argv = (site.program("floor"), host, str(PORT), host, str(BACKEND_PORT), str(round_us))
        relay = started(site.start("floor", RELAY_CPU, *argv))
        yield Running((relay.pid,), (echo.pid,))


def nginx(site: Site) -> AbstractContextManager[Running]:
    """One worker process; a flow is a session with a socket to the backend."""
    return _nginx(site, site.lab.edge)


def nginx_far(site: Site) -> AbstractContextManager[Running]:
    """The same with the backend on the host behind it."""
    return _nginx(site, site.lab.transceiver)


@contextmanager
def _nginx(site: Site, backend: Host) -> Iterator[Running]:
    host = site.lab.edge.address
    config = site.directory / "nginx.conf"
    config.write_text(
        f"""
        load_module /usr/lib/nginx/modules/ngx_stream_module.so;
        user root;
        daemon off;
        worker_processes 1;
        worker_rlimit_nofile 65536;
        pid {site.directory}/nginx.pid;
        error_log {site.directory}/nginx-error.log;
        events {{ worker_connections 32768; multi_accept on; }}
        stream {{
            server {{
                listen {host}:{PORT} udp rcvbuf=4m sndbuf=4m;
                proxy_pass {backend.address}:{BACKEND_PORT};
                proxy_timeout 60s;  # no proxy_responses: a session lasts as long as its flow
            }}
        }}
        """
    )
    with _processes() as started:
        echo = started(_echo(site, backend))
        relay = started(site.start("nginx", RELAY_CPU, "nginx", "-c", config, "-p", site.directory))
        yield Running((relay.pid,), (echo.pid,))


def coturn(site: Site) -> AbstractContextManager[Running]:
    """One relay thread, nobody asked for a password; a flow is an allocation with one channel to the backend."""
    return _coturn(site, site.lab.edge, site.lab.edge.address)


def coturn_far(site: Site) -> AbstractContextManager[Running]:
    """The same with the backend on the host behind it."""
    return _coturn(site, site.lab.transceiver, site.lab.edge_inner_address)


@contextmanager
def _coturn(site: Site, backend: Host, by: str) -> Iterator[Running]:
    """``by`` is the address from which it speaks to the backend."""
    host, here = site.lab.edge.address, site.directory
    argv = ["turnserver", "-n", "--no-auth", "--listening-ip", host, "--relay-ip", by, "--listening-port", str(PORT)]
    argv += ["--relay-threads", "1", "--no-tcp", "--no-tls", "--no-dtls", "--no-tcp-relay", "--no-cli", "--no-rfc5780"]
    argv += ["--log-file", "stdout", "--pidfile", f"{here}/turn.pid", "--userdb", f"{here}/turn.db"]
    with _processes() as started:
        echo = started(_echo(site, backend))
        relay = started(site.start("coturn", RELAY_CPU, *argv))
        head = struct.pack("!HH", CHANNEL, 172)
        yield Running((relay.pid,), (echo.pid,), head, lambda flows: _turn_greetings(flows, backend.address))


def _echo(site: Site, host: Host) -> subprocess.Popen[Any]:
    """The backend of a relay, on the load's core."""
    return site.start("echo", LOAD_CPU, site.program("echo"), host.address, str(BACKEND_PORT), "0", host=host)


def firsthop(site: Site) -> AbstractContextManager[Running]:
    """The edge as ``firsthop edge`` starts it: supervisor with XDP, one worker and its spare, signaling. All datagrams
    go through the worker, as between hosts."""
    return _firsthop(site, "off")


def express(site: Site) -> AbstractContextManager[Running]:
    """The same edge, when it has put its flows past the worker: the backend reads what XDP brings to its socket, and
    stands where the relays stand, on their core."""
    return _firsthop(site, "auto")


@contextmanager
def between(site: Site) -> Iterator[Running]:
    """The same edge, when XDP sends its flows on to the host behind it, where the backend stands, and back."""
    ends = (site.lab.client, site.lab.transceiver)
    for host in ends:
        host.inside(lambda: take_frames("to-edge"))
    try:
        with _firsthop(site, "between") as running:
            yield running
    finally:
        for host in ends:
            host.inside(lambda: take_frames("to-edge", False))


@contextmanager
def _firsthop(site: Site, express: Literal["off", "auto", "between"]) -> Iterator[Running]:
    lab, here = site.lab, site.directory
    config, endpoint = here / "firsthop.toml", f"ipc://{here}/transceiver.sock"
    if express == "between":
        endpoint = f"tcp://{lab.transceiver.address}:{FAR_PORT}"
    secret = write_secrets(here, "a token that nobody uses")
    config.write_text(
        f"""
        cluster.keys = "{secret["keys"]}"
        [edge]
        media = "{lab.edge.address}:{PORT}"
        interface = "{lab.edge_interface}"
        run = "{here}"
        express = "{express}"
        inner_interface = "{"to-transceiver" if express == "between" else ""}"
        pins = "/sys/fs/bpf/firsthop-bench-{os.getpid()}"
        unknown_rate = 0  # thousands of flows begin at once, from one address
        flow_rate = 0  # and each is many calls' worth
        api_keys = "{here}/token"
        [[edge.transceivers]]
        id = 1
        endpoint = "{endpoint}"
        """
    )
    cluster = keys.load(secret["keys"])
    with _processes() as started:
        python = (sys.executable, "-m")
        mode = {"off": "loud", "auto": "quiet", "between": "between"}[express]
        argv = (*python, "bench.relay.transceiver", endpoint, secret["keys"], mode, lab.edge_inner_address)
        there = lab.transceiver if express == "between" else lab.edge
        transceiver = started(site.start("transceiver", LOAD_CPU, *argv, host=there))
        relay = started(site.start("edge", RELAY_CPU, *python, "firsthop", "edge", "--config", config))
        _await_children(relay, {"worker-0", "worker-spare", "signaling"})
        backend = [transceiver.pid]
        if express == "auto":
            module = (*python, "bench.relay.reader")
            reader = started(site.start("reader", RELAY_CPU, *module, here, secret["keys"], site.program("echo")))
            _await(reader, lambda: psutil.Process(reader.pid).name() == "echo")
            backend.append(reader.pid)
        if express == "between":
            listens = (lab.transceiver.address, str(FAR_PORT), str(HEAD_BYTES))
            echo = started(site.start("echo", RELAY_CPU, site.program("echo"), *listens, host=lab.transceiver))
            backend.append(echo.pid)
            _await(relay, lambda: lab.edge.inside(_way_is_open))
        yield Running((relay.pid,), tuple(backend), b"", lambda flows: _checks(flows, cluster))


RELAYS: dict[str, Start] = {
    "direct": direct,
    "routed": routed,
    "express": express,
    "between": between,
    "floor": floor,
    "rounds": rounds,
    "firsthop": firsthop,
    "nginx": nginx,
    "nginx-far": nginx_far,
    "coturn": coturn,
    "coturn-far": coturn_far,
}


@contextmanager
def _processes() -> Iterator[Started]:
    """Takes processes as they are started, and waits until each is up."""
    with started_processes() as started:

        def and_quiet(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
            return _quiet(started(process))

        yield and_quiet


def _quiet(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
    if not await_quiet(process, quiet_s=QUIET_S, within_s=READY_S, idle_s=0.02):
        raise RelayError(f"{process.args!r} did not come up")
    return process


def _await_children(process: subprocess.Popen[Any], names: set[str]) -> None:
    _await(process, lambda: names <= {child.name() for child in psutil.Process(process.pid).children()})
    _quiet(process)


def _await(process: subprocess.Popen[Any], up: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        with suppress(psutil.NoSuchProcess):
            if up():
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RelayError(f"{process.args!r} did not come up")
        time.sleep(0.02)


def _way_is_open() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9400/metrics", timeout=READY_S) as page:
            return OPEN in page.read()
    except OSError:
        return False


def _greetings(*rounds: tuple[int, list[bytes]]) -> bytes:
    """(first 16 bits of the answer, what each flow says) in each round."""
    file = [struct.pack("!I", len(rounds))]
    for answer, datagrams in rounds:
        file.append(struct.pack("!H", answer))
        file += [struct.pack("!H", len(datagram)) + datagram for datagram in datagrams]
    return b"".join(file)


def _checks(flows: int, cluster: keys.ClusterKeys) -> bytes:
    """A connectivity check of each flow, for a call of its own."""
    key_id, key = cluster.sealing, cluster.ufrag[cluster.sealing]
    usernames = [f"{ufrag.seal(1, key_id, key)}:load".encode() for _ in range(flows)]
    checks = [stun.binding_request(name, b"password of every flow", tie_breaker=1) for name in usernames]
    return _greetings((stun.BINDING_RESPONSE, checks))


def _turn_greetings(flows: int, host: str) -> bytes:
    """An allocation (RFC 8656) of each flow, then its channel to the backend."""
    cookie = struct.pack("!I", stun.COOKIE)
    packed = address.pack(host, BACKEND_PORT)
    xored = bytes(a ^ b for a, b in zip(packed[16:] + packed[12:16], cookie[:2] + cookie, strict=True))
    transport = struct.pack("!HHI", REQUESTED_TRANSPORT, 4, 17 << 24)
    channel = struct.pack("!HHI", CHANNEL_NUMBER, 4, CHANNEL << 16)
    channel += struct.pack("!HHBB", XOR_PEER_ADDRESS, 8, 0, 1) + xored

    def request(kind: int, flow: int, body: bytes) -> bytes:
        return struct.pack("!HH", kind, len(body)) + cookie + struct.pack("!III", kind, 0, flow) + body

    return _greetings(
        (TURN_ALLOCATE | SUCCESS, [request(TURN_ALLOCATE, flow, transport) for flow in range(flows)]),
        (TURN_CHANNEL_BIND | SUCCESS, [request(TURN_CHANNEL_BIND, flow, channel) for flow in range(flows)]),
    )
