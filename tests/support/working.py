"""One real worker process, started as the supervisor starts it, between UDP clients and ZeroMQ ROUTERs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from prometheus_client.parser import text_string_to_metric_families
from waiting import until
from wiring import Said, heard, hello_back, raw, refused_by_3

from edge.relay.spec import Sister, Spec
from rtc.rtp import packet as rtp
from runtime.supervision.child import ChildSpec
from wire import address, frames, link, stun, ufrag
from wire.keys import ClusterKeys
from wire.versions import GREETING, VERSION

KEYS = ClusterKeys({1: bytes(range(16)), 2: bytes(16)}, 1, bytes(32))
MINE, OTHER, ABSENT = 1, 2, 3
RX, TX = "firsthop_rx_worker_datagrams_total", "firsthop_tx_worker_datagrams_total"
WORKER = b"edge/worker-0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def check(transceiver: int, key_id: int = 1) -> bytes:
    """A STUN check for a call that ``transceiver`` answered."""
    return check_under(key_id, KEYS.ufrag[key_id], transceiver)


def check_under(key_id: int, key: bytes, transceiver: int) -> bytes:
    sealed = ufrag.seal(transceiver, key_id, key)
    return stun.binding_request(f"{sealed}:client".encode(), b"password", tie_breaker=1)


def path_up(client: bytes, *ssrcs: int, by: int = MINE) -> bytes:
    """The message of a transceiver about a client whose check it found authentic."""
    return raw("path.up", address=client, ufrag=ufrag.seal(by, 1, KEYS.ufrag[1]), ssrcs=list(ssrcs))


def audio(ssrc: int, sequence: int = 1) -> bytes:
    return rtp.build(111, False, sequence, 960, ssrc, b"sealed voice")


class Transceiver:
    """The ROUTER of one transceiver and what has come to it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        speaks: int = VERSION,
        worker: bytes = WORKER,
        keys: ClusterKeys = KEYS,
    ) -> None:
        self._context, self._endpoint, self._worker = context, endpoint, worker
        self._number = int(endpoint.rpartition("/")[2])
        self._socket = link.router(context, endpoint, keys)
        self.received: list[tuple[bytes, bytes]] = []
        self.speaks = speaks  # and the version before; or 3, as the release that knew no hello
        self.heard_in: list[int] = []  # the version of each message
        self.told: list[Said] = []  # control messages of the worker's, besides its hello
        self._stamps: list[tuple[list[tuple[bytes, bytes]], int]] = []

    def drain(self) -> list[tuple[bytes, bytes]]:
        """(client address, datagram) of everything that came so far."""
        while self._socket.poll(0):
            peer, said = self._socket.recv_multipart()
            assert peer == self._worker
            message = heard(said)
            self.heard_in.append(said[1])
            if isinstance(message, Said) and message.type != "hello":
                self.told.append(message)
                continue
            if isinstance(message, Said):
                self._socket.send_multipart([peer, self._reply(message)])
                continue
            self.received += message.datagrams()
            self._stamps.append((message.datagrams(), message.stamp_ns))
        return self.received

    def _reply(self, hello: Said) -> bytes:
        return hello_back(hello, self.speaks - 1, self.speaks) if self.speaks > GREETING else refused_by_3(hello)

    def steered(self) -> list[bytes]:
        """The addresses of which the worker has said that they come by it."""
        self.drain()
        return [each for said in self.told if said.type == "path.steered" for each in said.fields["addresses"]]

    def not_steered(self) -> list[str]:
        """The calls of which it has said that it knows no way to them."""
        self.drain()
        return [said.fields["ufrag"] for said in self.told if said.type == "path.not_steered"]

    def stamp_of(self, datagram: bytes) -> int:
        """The stamp of the message that brought ``datagram``, as soon as it is there."""
        until(lambda: self.has(datagram))
        return next(stamp for batch, stamp in self._stamps if datagram in [sent for _, sent in batch])

    def has(self, *datagrams: bytes) -> bool:
        have = [datagram for _, datagram in self.drain()]
        return all(datagram in have for datagram in datagrams)

    def send(self, *parts: bytes) -> None:
        """Sends to the worker, as soon as it is there."""

        def sent() -> bool:
            try:
                self._socket.send_multipart([self._worker, *parts], zmq.NOBLOCK)
            except zmq.ZMQError as e:
                if e.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                return False
            return True

        until(sent)

    def datagrams(self, *batch: tuple[bytes, bytes]) -> None:
        """Sends clients their datagrams."""
        self.send(frames.pack_batch(batch))

    def path_up(self, client: bytes, *ssrcs: int) -> None:
        self.send(path_up(client, *ssrcs, by=self._number))

    def start_again(self, speaks: int) -> None:
        """As another process, of a release that speaks that version."""
        self._socket.close()
        self.speaks = speaks
        self.heard_in.clear()
        until(self._bound)

    def _bound(self) -> bool:
        try:
            self._socket = link.router(self._context, self._endpoint, KEYS)
        except zmq.ZMQError:  # ZeroMQ closes in a thread of its own
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@dataclass
class Bench:
    """One worker under test. ``sent`` counts the datagrams that clients sent."""

    context: zmq.Context[zmq.Socket[bytes]]
    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    metrics_port: int
    lifeline: int
    transceivers: dict[int, Transceiver] = field(default_factory=dict)
    clients: list[socket.socket] = field(default_factory=list)
    sent: int = 0

    def let_go(self) -> None:
        """Lets go as when supervisor and holder die at once. Returns when the worker has ended, even one that hangs."""
        self.process.send_signal(signal.SIGSTOP)
        os.close(self.lifeline)
        self.lifeline = -1
        assert self.process.wait(30) == -signal.SIGKILL

    def endpoint(self, number: int) -> str:
        return f"ipc://{self.directory}/{number}"

    def client(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30)
        self.clients.append(sock)
        return sock

    def to_worker(self, client: socket.socket, *datagrams: bytes) -> None:
        """Sends, and waits until all of them are counted, so that no buffer overflows unnoticed."""
        self.from_all([client], *datagrams)

    def from_all(self, clients: Sequence[socket.socket], *datagrams: bytes) -> None:
        """The same of several clients, each of which sends all of these."""
        for client in clients:
            for datagram in datagrams:
                client.sendto(datagram, ("127.0.0.1", self.port))
        self.sent += len(clients) * len(datagrams)
        until(lambda: sum(self.funnel(RX).values()) >= self.sent)

    def funnel(self, name: str) -> Counter[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return Counter({next(iter(s.labels.values()), ""): int(s.value) for s in samples if s.value})

    def proven(self, client: socket.socket, *ssrcs: int, by: int = MINE) -> None:
        """Proves a client: its check came to the transceiver ``by``, which says so, and the worker knows."""
        self.to_worker(client, check(by))
        before = self.funnel(RX)["forwarded_flow"]
        self.transceivers[by].path_up(of(client), *ssrcs)

        def known() -> bool:
            self.to_worker(client, b"\x16known?")
            return self.funnel(RX)["forwarded_flow"] > before

        until(known)


def of(client: socket.socket) -> bytes:
    """The 18 bytes of a client's address."""
    return address.pack(*client.getsockname())


@contextmanager
def a_worker(
    directory: Path,
    stderr: int | None = None,
    shedding: int = -1,
    speaks: int = VERSION,
    sisters: tuple[Sister, ...] = (),
) -> Iterator[Bench]:
    """A worker whose log goes to the descriptor ``stderr``, or to ``worker.log`` in ``directory``; ``shedding`` is a
    map, ``speaks`` the version of its transceivers."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(("::ffff:127.0.0.1", 0))
    metrics_port = free_port()
    lifeline, other_end = os.pipe()
    spec = Spec(
        edge="edge",
        index=0,
        cpu=min(os.sched_getaffinity(0)),
        socket=sock.fileno(),
        not_mine=(),
        flow_entries=65536,
        flows=-1,
        ssrcs=-1,
        shedding=shedding,
        metrics=("127.0.0.1", metrics_port),
        transceivers=tuple((number, f"ipc://{directory}/{number}") for number in (MINE, OTHER)),
        keys=KEYS,
        key_file=str(directory / "cluster.toml"),
        sisters=sisters,
    )
    argv = [sys.executable, "-m", "edge.relay.worker"]
    child = ChildSpec("worker-0", spec.dump(), {"level": "warning", "form": "json"}, lifeline, cpu=spec.cpu)
    given = (lifeline, spec.socket, *([shedding] if shedding >= 0 else []))
    with (directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, pass_fds=given, stderr=stderr or log)
    context = zmq.Context[zmq.Socket[bytes]]()
    bench = Bench(context, directory, sock.getsockname()[1], process, metrics_port, other_end)
    try:
        assert process.stdin is not None
        process.stdin.write(child.dump())
        process.stdin.close()
        for number in (MINE, OTHER):
            bench.transceivers[number] = Transceiver(context, bench.endpoint(number), speaks)

        def up() -> bool:
            assert process.poll() is None, "the worker died"
            with closing(socket.socket()) as probe:
                return probe.connect_ex(("127.0.0.1", metrics_port)) == 0

        until(up)
        # Both links are there when a check for each has come through.
        client = bench.client()

        def linked() -> bool:
            bench.to_worker(client, check(MINE), check(OTHER))
            return all(transceiver.drain() for transceiver in bench.transceivers.values())

        until(linked)
        yield bench
        assert process.poll() is None, "the worker died"
        assert sum(bench.funnel(RX).values()) == bench.sent, "a datagram was counted twice or not at all"
    finally:
        process.terminate()
        process.wait(30)
        for client in bench.clients:
            client.close()
        for transceiver in bench.transceivers.values():
            transceiver.close()
        sock.close()
        os.close(lifeline)
        if bench.lifeline >= 0:
            os.close(bench.lifeline)
        context.term()


def gained(bench: Bench, client: socket.socket, *datagrams: bytes) -> Counter[str]:
    """The counts of the funnel for these."""
    before = bench.funnel(RX)
    bench.to_worker(client, *datagrams)
    return bench.funnel(RX) - before
