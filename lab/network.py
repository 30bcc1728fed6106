"""A network of three hosts on one machine: client, edge and transceiver, as namespaces joined by veth; and, where they
are wanted, a second edge and a second transceiver host.

::

    person (this machine) - - -  client ------------- edge ------------- transceiver
             10.79.x.1   10.79.x.2  10.77.x.1   10.77.x.2  10.78.x.1   10.78.x.2
                                    10.80.x.1   10.80.x.2  10.81.x.1   10.81.x.2
                                       +------------ edge-2 -----------------+

An edge's ``to-client`` interface is where XDP is attached. Nothing forwards between client and transceiver: only
what an edge relays gets across. Two edges reach each other through the transceiver's host. ``transceiver-2`` has a
cable to each edge and to ``transceiver``, and is 10.83.x.2 to all of them. ``x`` is the same in all and differs between
labs.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError

from lab.links import (
    LabError,
    address,
    await_links,
    checksum_offload,
    delete_links,
    entered,
    home,
    in_thread,
    join,
    set_checksum_offload_off,
    sysctl,
    up,
)

__all__ = ["Host", "Lab", "LabError", "checksum_offload"]

T = TypeVar("T")

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
ROLES = ("client", "edge", "transceiver", "edge-2", "transceiver-2")
# The owner's pid, and the number that tells its subnets from those of other labs.
TAG = re.compile(r"(fh(\d+)-(\d+))-(?:client|edge|transceiver|edge-2|transceiver-2)")
TERMINATE_S = 3.0
KILL_S = 2.0


@dataclass(frozen=True, slots=True)
class Host:
    """One of them: ``name`` and ``netns`` (path) of its namespace, and its IPv4 ``address``; the edge's is
    the one that clients see."""

    name: str
    address: str
    _children: list[subprocess.Popen[Any]] = field(default_factory=list, repr=False, compare=False)

    @property
    def netns(self) -> str:
        return str(NAMESPACES / self.name)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs ``argv`` on this host; nsenter replaces itself, so the pid is the program's own."""
        return ["nsenter", f"--net={self.netns}", "--", *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts ``argv`` on this host; ``options`` as for subprocess.Popen. What still runs when the lab closes
        is ended then."""
        child: subprocess.Popen[Any] = subprocess.Popen(self.command(argv), **options)  # noqa: S603
        self._children.append(child)
        return child

    def pids(self) -> set[int]:
        """The processes that are on this host now."""
        return _pids_in([Path(self.netns)])

    def inside(self, work: Callable[[], T]) -> T:
        """Calls ``work`` in a thread that is on this host, and returns its result. Sockets that it opens stay on this
        host and can be used from anywhere."""

        def there() -> T:
            with entered(self.netns):
                return work()

        return in_thread(there)


class Lab:
    """The hosts, which exist from ``with`` to its end. It needs root: it raises LabError on entry where they cannot be
    made.

    ``edges`` and ``transceivers`` are 1 or 2: ``edge_2`` and ``transceiver_2`` are the second ones, if there are.
    ``with_person`` joins this machine to the client
    host, so that a browser here reaches an edge through the interface that XDP is on. ``person_address`` is then this
    machine's address on that link, else None.
    """

    edge_interface = "to-client"

    client: Host
    edge: Host
    edge_2: Host | None = None
    transceiver: Host
    transceiver_2: Host | None = None
    edge_inner_address: str
    edge_2_inner_address: str
    person_address: str | None = None

    def __init__(self, *, with_person: bool = False, edges: int = 1, transceivers: int = 1) -> None:
        self._with_person = with_person
        more = (("edge-2", edges == 2), ("transceiver-2", transceivers == 2))
        self._roles = (*ROLES[:3], *(role for role, wanted in more if wanted))
        self._owner = os.getpid()
        self._tag: str | None = None
        self._children: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces, which needs root: run this with sudo")
        atexit.register(self._close_at_exit)
        try:
            in_thread(self._build)
        except BaseException as e:
            self.close()
            if isinstance(e, (OSError, NetlinkError)):
                why = f"the lab's network cannot be made ({e}): needs CAP_SYS_ADMIN, CAP_NET_ADMIN and veth"
                raise LabError(why) from e
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends what runs on the hosts and removes them. Does nothing the second time, and in a forked child."""
        atexit.unregister(self._close_at_exit)
        in_thread(self._remove)

    @staticmethod
    def remove_stale() -> list[str]:
        """Removes labs whose owner is gone, with the processes still in them; returns the names of what went."""
        if os.geteuid() != 0:
            raise LabError("removing stale labs needs root: run this with sudo")
        stale = {tag for tag, pid, _ in _labs() if not Path(f"/proc/{pid}").exists()}
        for tag in sorted(stale):
            in_thread(lambda tag=tag: _remove(tag))  # type: ignore[misc]
        return sorted(stale)

    def _build(self) -> None:
        x = self._claim()
        tag = f"fh{self._owner}-{x}"
        self.client = Host(f"{tag}-client", f"10.77.{x}.1", self._children)
        self.edge = Host(f"{tag}-edge", f"10.77.{x}.2", self._children)
        self.transceiver = Host(f"{tag}-transceiver", f"10.78.{x}.2", self._children)
        self.edge_inner_address, self.edge_2_inner_address = f"10.78.{x}.1", f"10.81.{x}.1"
        if "edge-2" in self._roles:
            self.edge_2 = Host(f"{tag}-edge-2", f"10.80.{x}.2", self._children)
        if "transceiver-2" in self._roles:
            self.transceiver_2 = Host(f"{tag}-transceiver-2", f"10.83.{x}.2", self._children)
        for host in self._hosts:
            with entered(host.netns), IPRoute() as ip:
                up(ip, "lo")

        self._join_client()
        join((self.edge.name, "to-transceiver"), (self.transceiver.name, "to-edge"), index=20)
        with entered(self.edge.netns), IPRoute() as ip:
            address(ip, "to-transceiver", self.edge_inner_address)
        with entered(self.transceiver.netns), IPRoute() as ip:
            address(ip, "to-edge", self.transceiver.address)
        if self.edge_2 is not None:
            self._join_edge_2(x, self.edge_2)
        if self.transceiver_2 is not None:
            self._join_transceiver_2(x, self.transceiver_2)
        if self._with_person:
            self._join_person(x, tag)
        for host in self._hosts:
            with entered(host.netns), IPRoute() as ip:
                await_links(ip)

    def share_address(self) -> str:
        """Gives both edges one more address, the same, and the client host a way there by the first. Returns it."""
        shared = self.client.address.replace("10.77.", "10.82.")
        for host in self._edges:

            def share() -> None:
                with IPRoute() as ip:
                    ip.addr("add", index=ip.link_lookup(ifname="lo")[0], address=shared, prefixlen=32)

            host.inside(share)
        self.route_to(self.edge, shared)
        return shared

    def route_to(self, edge: Host, shared: str) -> None:
        """Has the network bring what the client host sends to the shared address to this edge from now on."""

        def route() -> None:
            with IPRoute() as ip:
                ip.route("replace", dst=f"{shared}/32", gateway=edge.address)

        self.client.inside(route)

    @property
    def _edges(self) -> tuple[Host, ...]:
        return (self.edge,) if self.edge_2 is None else (self.edge, self.edge_2)

    @property
    def _hosts(self) -> tuple[Host, ...]:
        second = () if self.transceiver_2 is None else (self.transceiver_2,)
        return self.client, *self._edges, self.transceiver, *second

    def unplug(self) -> None:
        """Removes the link between client and edge, with both of its interfaces."""

        def unplug() -> None:
            with entered(self.client.netns):
                delete_links(["to-edge"])

        in_thread(unplug)

    def plug(self) -> None:
        """Makes the link between client and edge again."""

        def plug() -> None:
            self._join_client()
            for host in (self.client, self.edge):
                with entered(host.netns), IPRoute() as ip:
                    await_links(ip)

        in_thread(plug)

    def _join_edge_2(self, x: int, edge: Host) -> None:
        join((self.client.name, "to-edge-2"), (edge.name, self.edge_interface), index=12)
        join((edge.name, "to-transceiver"), (self.transceiver.name, "to-edge-2"), index=22)
        with entered(self.client.netns), IPRoute() as ip:
            address(ip, "to-edge-2", f"10.80.{x}.1")
            set_checksum_offload_off("to-edge-2")
        with entered(edge.netns), IPRoute() as ip:
            address(ip, self.edge_interface, edge.address)
            address(ip, "to-transceiver", self.edge_2_inner_address)
            ip.route("add", dst=f"10.78.{x}.0/24", gateway=f"10.81.{x}.2")
            # Its address there is what a client keeps whose packets another edge has got until now.
            ip.route("add", dst=f"10.77.{x}.1/32", gateway=f"10.80.{x}.1")
        with entered(self.transceiver.netns), IPRoute() as ip:
            address(ip, "to-edge-2", f"10.81.{x}.2")
            sysctl("net/ipv4/ip_forward", "1")
        with entered(self.edge.netns), IPRoute() as ip:
            ip.route("add", dst=f"10.81.{x}.0/24", gateway=self.transceiver.address)
            ip.route("add", dst=f"10.80.{x}.1/32", gateway=self.client.address)

    def _join_transceiver_2(self, x: int, host: Host) -> None:
        for n, other in enumerate((self.transceiver, *self._edges)):
            its = f"to-{other.name.removeprefix(f'{self._tag}-')}"
            join((other.name, "to-second"), (host.name, its), index=30 + 2 * n)
            with entered(other.netns), IPRoute() as ip:
                address(ip, "to-second", f"10.{84 + n}.{x}.1")
                ip.route("add", dst=f"{host.address}/32", gateway=f"10.{84 + n}.{x}.2")
            with entered(host.netns), IPRoute() as ip:
                address(ip, its, f"10.{84 + n}.{x}.2")
        with entered(host.netns), IPRoute() as ip:
            ip.addr("add", index=ip.link_lookup(ifname="lo")[0], address=host.address, prefixlen=32)
            self._route_from_transceiver_2(ip, x)

    def _route_from_transceiver_2(self, ip: IPRoute, x: int) -> None:
        ip.route("add", dst=f"{self.transceiver.address}/32", gateway=f"10.84.{x}.1")

    def cables(self, *, plugged: bool) -> None:
        """Takes all cables of ``transceiver_2`` out, so that nothing comes or goes and nobody is told; or plugs them in
        again."""
        host = self.transceiver_2
        assert host is not None

        def there() -> None:
            with IPRoute() as ip:
                for link in ip.get_links():
                    if link.get("ifname") != "lo":
                        ip.link("set", index=link["index"], state="up" if plugged else "down")
                if plugged:
                    await_links(ip)
                    self._route_from_transceiver_2(ip, int(host.address.split(".")[2]))

        host.inside(there)

    def _join_client(self) -> None:
        join((self.client.name, "to-edge"), (self.edge.name, self.edge_interface), index=10)
        with entered(self.client.netns), IPRoute() as ip:
            address(ip, "to-edge", self.client.address)
            # CPUMAP builds the packet anew on another core and loses the mark that says its checksum is still to
            # be filled in: the stack there drops it as corrupt. So senders towards XDP fill it in themselves.
            set_checksum_offload_off("to-edge")
        with entered(self.edge.netns), IPRoute() as ip:
            address(ip, self.edge_interface, self.edge.address)

    def _join_person(self, x: int, interface: str) -> None:
        self.person_address = f"10.79.{x}.1"
        with IPRoute() as here:
            here.link(
                "add",
                ifname=interface,
                kind="veth",
                peer={"ifname": "to-person", "net_ns_fd": self.client.name},
            )
            address(here, interface, self.person_address)
            set_checksum_offload_off(interface)
            with entered(self.client.netns), IPRoute() as ip:
                address(ip, "to-person", f"10.79.{x}.2")
                sysctl("net/ipv4/ip_forward", "1")
            with entered(self.edge.netns), IPRoute() as ip:
                ip.route("add", dst=f"10.79.{x}.0/24", gateway=self.client.address)
            here.route("add", dst=f"10.77.{x}.0/24", gateway=f"10.79.{x}.2")
            if self.edge_2 is not None:
                with entered(self.edge_2.netns), IPRoute() as ip:
                    ip.route("add", dst=f"10.79.{x}.0/24", gateway=f"10.80.{x}.1")
                here.route("add", dst=f"10.80.{x}.0/24", gateway=f"10.79.{x}.2")

    def _claim(self) -> int:
        """Makes the namespaces, under a number that no other lab has and no route of this machine covers."""
        with _lock():
            taken = {x for _, _, x in _labs()}
            with IPRoute() as ip:
                routes = [
                    IPv4Network((route.get("dst"), route["dst_len"]))
                    for route in ip.get_routes(family=2)
                    if route["dst_len"]
                ]
            for x in range(256):
                ours = [IPv4Network(f"10.{second}.{x}.0/24") for second in range(77, 87)]
                if x not in taken and not any(a.overlaps(b) for a in ours for b in routes):
                    break
            else:
                raise LabError("no free subnet in 10.77.0.0/16 to 10.86.0.0/16: remove stale labs, or a route there")
            self._tag = f"fh{self._owner}-{x}"
            for role in self._roles:
                _new_namespace(f"{self._tag}-{role}")
            return x

    def _remove(self) -> None:
        if self._tag is None or os.getpid() != self._owner:
            return
        _remove(self._tag, self._children)
        self._tag = None
        self._children.clear()

    def _close_at_exit(self) -> None:
        # The interpreter starts no more threads by now, and no event loop is running either.
        self._remove()


@contextmanager
def _lock() -> Iterator[None]:
    """Holds a lock, so that one lab at a time picks its number. The directory itself is locked, so no file is left
    behind."""
    directory = os.open("/run", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _labs() -> list[tuple[str, int, int]]:
    """(tag, owner's pid, number) of each namespace of each lab on this machine."""
    matches = (TAG.fullmatch(name) for name in netns.listnetns())
    return [(m[1], int(m[2]), int(m[3])) for m in matches if m]


def _new_namespace(name: str) -> None:
    # netns.create would fork, which a process with threads should not.
    libc = ctypes.CDLL(None, use_errno=True)
    with home():
        if libc.unshare(CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), name)
        netns.attach(name, threading.get_native_id())


def _remove(tag: str, children: Sequence[subprocess.Popen[Any]] = ()) -> None:
    """Removes the processes, links and namespaces of ``tag``, as far as they are there."""
    paths = [path for role in ROLES if (path := NAMESPACES / f"{tag}-{role}").exists()]
    _end_processes(paths, children)
    # A namespace frees its links some time after it is gone; taking them away first makes the end a definite one.
    delete_links([tag])
    for path in paths:
        # A file that no namespace was ever mounted on: its maker died between the two steps.
        with suppress(OSError), entered(str(path)):
            delete_links([*(f"to-{role}" for role in ROLES), "to-person", "to-second"])
    for path in paths:
        netns.remove(path.name)


def _end_processes(namespaces: Sequence[Path], children: Sequence[subprocess.Popen[Any]]) -> None:
    """Ends what runs in ``namespaces``, and ``children``: one just started may not have reached its host yet."""

    def remaining() -> set[int]:
        return _pids_in(namespaces) | {child.pid for child in children if child.poll() is None}

    for number, patience_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, KILL_S)):
        pids = remaining()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while pids and time.monotonic() < deadline:
            time.sleep(0.01)
            pids = remaining()
        if not pids:
            return


def _pids_in(namespaces: Sequence[Path]) -> set[int]:
    wanted = {(stat.st_dev, stat.st_ino) for stat in map(os.stat, namespaces)}
    pids = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            stat = (entry / "ns/net").stat()
            if (stat.st_dev, stat.st_ino) in wanted and int(entry.name) != os.getpid():
                pids.add(int(entry.name))
    return pids
