"""The examinations of ``firsthop doctor``: each looks at one thing of this host and changes nothing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge.xdp import hops
from firsthop import past_workers
from runtime.address import Address, Endpoint
from runtime.config import Config, Directory, Edge
from runtime.errors import bind_trouble
from transceiver import compiled
from wire.exposure import exposure
from wire.express import door_of

if TYPE_CHECKING:
    from redis import Redis  # here, because its client takes a while to import

__all__ = [
    "PATIENCE_S",
    "Finding",
    "bcc",
    "between",
    "bpffs",
    "btf",
    "buffers",
    "certificate",
    "clock",
    "code",
    "endpoint",
    "express",
    "headers",
    "interface",
    "kernel",
    "open_redis",
    "redis",
    "secrets",
    "tcp_port",
    "udp_port",
]

PATIENCE_S = 2.0
_CPUMAP_PROGRAMS = (5, 9)  # the kernel that can run a program on the core that a packet was sent to
_BPF_FS_MAGIC = 0xCAFE4A11
_SOON_DAYS = 14
_BUFFER_BYTES = 4 << 20  # that the edge asks for (edge/sockets.py)
_MTU_BYTES = 1280  # of all that goes past the workers (wire/encapsulation.py), and of every IPv6 link
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_STATUS_AT = 40  # of struct timex on 64 bit machines: after modes, offset, freq, maxerror and esterror


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one look at ``subject``: what was ``seen``, and ``what_to_do`` where that is not well."""

    subject: str
    state: Literal["ok", "warning", "wrong"]
    seen: str
    what_to_do: str = ""


def kernel(release: str = "") -> Finding:
    """Whether this kernel can do what XDP steering asks of it."""
    release = release or platform.release()
    version = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if version >= _CPUMAP_PROGRAMS:
        return Finding("kernel", "ok", release)
    return Finding("kernel", "wrong", f"{release} has no programs in CPUMAP", "use Linux 5.9 or later for XDP")


def btf(path: Path = Path("/sys/kernel/btf/vmlinux")) -> Finding:
    """Whether the kernel tells the types of its own structures."""
    if path.exists():
        return Finding("BTF", "ok", str(path))
    return Finding("BTF", "warning", "this kernel has none", "tools such as bpftool see less; steering works without")


def headers() -> Finding:
    """Whether the headers are there that BCC compiles with."""
    places = [Path("/lib/modules", platform.release(), name) for name in ("build", "source")]
    if chosen := os.environ.get("BCC_KERNEL_SOURCE"):
        places = [Path(chosen)]
    missing = [str(place) for place in places if not place.is_dir()]
    if not missing or Path("/sys/kernel/kheaders.tar.xz").exists():
        return Finding("kernel headers", "ok", str(places[0]))
    todo = f"apt-get install linux-headers-{platform.release()}, or link those of linux-headers-amd64 there"
    return Finding("kernel headers", "wrong", f"no {' and no '.join(missing)}", todo)


def bcc() -> Finding:
    """Whether BCC's Python module is seen."""
    if importlib.util.find_spec("bcc") is not None:
        return Finding("BCC", "ok", "Python module bcc is there")
    todo = "apt-get install python3-bpfcc, and make the environment with --system-site-packages"
    return Finding("BCC", "wrong", "there is no Python module bcc", todo)


def bpffs(pins: Path) -> Finding:
    """Whether pins outlive the edge."""
    there = next(place for place in (pins, *pins.parents) if place.exists())
    if _magic(there) == _BPF_FS_MAGIC:
        return Finding("edge.pins", "ok", str(pins))
    todo = "mount -t bpf bpf /sys/fs/bpf"
    return Finding("edge.pins", "warning", f"{pins} is in no BPF filesystem: XDP ends with the edge", todo)


def _magic(path: Path) -> int:
    """The type of the filesystem that ``path`` is on (statfs(2))."""
    about = (ctypes.c_ulong * 64)()
    if ctypes.CDLL(None).statfs(os.fsencode(path), about) != 0:
        return 0
    return int(about[0]) & 0xFFFFFFFF


def interface(name: str, workers: int, sys: Path = Path("/sys/class/net")) -> Iterator[Finding]:
    """Whether the interface of XDP is there and up, its driver, and its queues."""
    place = sys / name
    if not place.exists():
        has = ", ".join(sorted(each.name for each in sys.iterdir()))
        yield Finding("edge.interface", "wrong", f"this host has no {name}", f"name one of {has}")
        return
    state = (place / "operstate").read_text().strip()
    if state == "down":
        yield Finding("edge.interface", "wrong", f"{name} is down", f"ip link set {name} up")
    driver = place / "device/driver"
    what = driver.resolve().name if driver.exists() else "no device, such as a bridge or veth"
    yield Finding("edge.interface", "ok" if state != "down" else "warning", f"{name}, driver {what}")
    queues = len(list((place / "queues").glob("rx-*")))
    if queues >= workers or not driver.exists():
        yield Finding("receive queues", "ok", f"{queues} for {workers} workers")
    else:
        todo = f"ethtool -L {name} combined {workers}, where the driver has so many"
        yield Finding("receive queues", "warning", f"{queues} for {workers} workers: fewer cores take interrupts", todo)


def express(edge: Edge) -> Finding:
    """Whether media can go past the workers to transceivers of this host."""
    here = [row.id for row in edge.transceivers if row.endpoint.address is None]
    if edge.express == "off":
        return Finding("edge.express", "ok", "off: all media goes by the workers")
    if not here:
        return Finding("edge.express", "ok", "no transceiver of this host is listed")
    door = door_of(edge.run, edge.name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(str(door))
        except OSError as e:
            if not _runs():
                return Finding("edge.express", "ok", f"{door} is there when the edge runs")
            todo = "start the edge again; transceivers find it in transceiver.run, which is to be edge.run"
            return Finding("edge.express", "warning", f"{door}: {e.strerror}: media goes by the workers", todo)
    return Finding("edge.express", "ok", f"{door} answers")


def between(edge: Edge) -> Iterator[Finding]:
    """Whether media can go past the workers to the listed transceivers of other hosts; nothing where it is not to."""
    away = {row.id: row.endpoint.address.pair for row in edge.transceivers if row.endpoint.address is not None}
    if not edge.between_hosts or not edge.interface:
        return
    inner = edge.inner_interface or edge.interface
    if above := hops.vlan_of(edge.media.host, edge.interface):
        seen = f"{edge.media.host} is on {above}, in a VLAN of {edge.interface}: media goes by the workers"
        yield Finding("edge.express in a VLAN", "warning", seen, past_workers.FALLBACKS["headers"])
    for number, (hop, *_) in hops.find(away).items():
        subject = f"way to transceiver {number}"
        if why := "no_route" if hop is None else hops.barred(hop.interface, edge.interface, inner):
            yield Finding(subject, "warning", f"{why}: media goes by the workers", past_workers.WHY[why])
        elif hop is not None and hop.mtu < _MTU_BYTES:
            seen = f"MTU {hop.mtu}: packets of media may not fit, and go by the workers"
            yield Finding(subject, "warning", seen, past_workers.FALLBACKS["too_long"])
        else:
            yield Finding(subject, "ok", "a next hop is known, by an interface that takes frames of XDP")


def code() -> Finding:
    """Whether packets go through the compiled form of the code."""
    chosen = compiled.choose()
    if isinstance(chosen, Path):
        return Finding("code of packets", "ok", "compiled")
    seen = f"Python's own, because {chosen}"
    if compiled.missed(chosen):
        return Finding("code of packets", "warning", seen, f"{sys.executable} -m transceiver.compiled.build")
    return Finding("code of packets", "ok", seen)


def buffers(sys: Path = Path("/proc/sys/net/core")) -> Finding:
    """Whether sockets may have the buffers that the edge asks for: what comes in a burst waits there."""
    small = {}
    for name in ("rmem_max", "wmem_max"):
        try:
            size = int((sys / name).read_text())
        except (OSError, ValueError):
            return Finding(
                "socket buffers", "warning", f"this host does not say its net.core.{name}, as in a container"
            )
        if size < _BUFFER_BYTES:
            small[name] = size
    if not small:
        return Finding("socket buffers", "ok", f"{_BUFFER_BYTES >> 20} MiB may be had")
    seen = ", ".join(f"net.core.{name} is {size >> 10} KiB" for name, size in small.items())
    todo = "sysctl -w " + " ".join(f"net.core.{name}={2 * _BUFFER_BYTES}" for name in small) + ", and in /etc/sysctl.d"
    return Finding("socket buffers", "warning", f"{seen}: bursts are lost sooner", todo)


def clock() -> Finding:
    """Whether the clock is set by the network's: certificates and ephemeral keys end by it."""
    timex = (ctypes.c_uint8 * 256)()
    if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
        return Finding("clock", "warning", "nobody can ask whether it is synchronised")
    status = int.from_bytes(bytes(timex)[_STATUS_AT : _STATUS_AT + 4], "little")
    if status & _UNSYNCHRONISED:
        return Finding("clock", "warning", "it is not synchronised", "apt-get install chrony")
    return Finding("clock", "ok", "synchronised")


def secrets(config: Config) -> Iterator[Finding]:
    """Whether the files of secrets are there, and for nobody else."""
    files = {"cluster.keys": config.cluster.keys}
    if "edge" in config.model_fields_set:
        files["edge.api_keys"] = config.edge.api_keys
        if config.edge.tls_key is not None:
            files["edge.tls_key"] = config.edge.tls_key
        for i, server in enumerate(config.edge.ice_servers):
            if server.secret_file is not None:
                files[f"edge.ice_servers {i}"] = server.secret_file
    if config.directory.password_file is not None:
        files["directory.password_file"] = config.directory.password_file
    if config.tracing.headers_file is not None:
        files["tracing.headers_file"] = config.tracing.headers_file
    for key, path in files.items():
        try:
            path.read_bytes()
        except OSError as e:
            todo = "firsthop init makes it" if isinstance(e, FileNotFoundError) else f"who runs this must read {path}"
            yield Finding(key, "wrong", f"{path}: {e.strerror}", todo)
            continue
        why, _, todo = exposure(path).partition(": ")
        yield Finding(key, "wrong", f"{path}: {why}", todo) if why else Finding(key, "ok", str(path))


def udp_port(key: str, address: Address) -> Finding:
    """Whether the port is free, or firsthop has it already."""
    return _port(key, address, socket.SOCK_DGRAM, "udp")


def tcp_port(key: str, address: Address) -> Finding:
    """The same of TCP."""
    return _port(key, address, socket.SOCK_STREAM, "tcp")


def _port(key: str, address: Address, kind: socket.SocketKind, name: str) -> Finding:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address.pair)
        except OSError as e:
            if bind_trouble(e).startswith("the port is taken"):
                todo = f"by firsthop, if it runs; else: ss -lnp{name[0]} 'sport = :{address.port}'"
                return Finding(key, "ok" if _runs() else "wrong", f"{name} {address} is taken", "" if _runs() else todo)
            return Finding(key, "wrong", f"{name} {address}: {bind_trouble(e)}", "name an address of this host")
    return Finding(key, "ok", f"{name} {address} is free")


def _runs() -> bool:
    """Whether a service of firsthop's runs on this host."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = place.read_bytes().split(b"\0")
            if any(word.endswith(b"firsthop") for word in words) and {b"edge", b"transceiver"} & set(words):
                return True
    return False


def endpoint(who: str, where: Endpoint) -> Finding:
    """Whether somebody listens there."""
    try:
        if where.address is not None:
            began = time.monotonic()
            with socket.create_connection(where.address.pair, PATIENCE_S):
                return Finding(who, "ok", f"{where} answers in {(time.monotonic() - began) * 1000:.1f} ms")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE_S)
            path = str(where.path)
            sock.connect(f"\0{path[1:]}" if path[0] == "@" else path)
            return Finding(who, "ok", f"{where} answers")
    except TimeoutError:
        return Finding(who, "wrong", f"{where} does not answer", "is a firewall between, or the host down?")
    except OSError as e:
        return Finding(who, "wrong", f"{where}: {e.strerror}", "is it started, and is its endpoint this one?")


def open_redis(directory: Directory) -> Redis:
    """A client of the directory's store, which is not connected yet. Raises OSError and ValueError."""
    from redis import Redis

    options: dict[str, Any] = {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    if directory.password_file is not None:
        options["password"] = directory.password_file.read_text().strip()
    if directory.ca_file is not None:
        options["ssl_ca_certs"] = str(directory.ca_file)
    client: Redis = Redis.from_url(directory.redis, **options)
    return client


def redis(directory: Directory) -> Finding:
    """Whether the store of the directory answers."""
    from redis.exceptions import RedisError

    try:
        with open_redis(directory) as store:
            store.ping()
    except (RedisError, OSError, ValueError) as e:
        return Finding(
            "directory.redis", "wrong", f"it does not answer: {e}", "calls go on without; new hosts are not found"
        )
    return Finding("directory.redis", "ok", "it answers")


def certificate(path: Path, now: float) -> Finding:
    """When the certificate of signaling ends."""
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as e:
        return Finding("edge.tls_certificate", "wrong", f"{path}: {e}", "name a file with a PEM chain")
    days = (ends - datetime.fromtimestamp(now, UTC)).days
    if days < 0:
        return Finding(
            "edge.tls_certificate", "wrong", f"it ended on {ends:%Y-%m-%d}", "renew it: it is taken up by itself"
        )
    if days < _SOON_DAYS:
        return Finding(
            "edge.tls_certificate", "warning", f"it ends in {days} days", "renew it: it is taken up by itself"
        )
    return Finding("edge.tls_certificate", "ok", f"it ends on {ends:%Y-%m-%d}")
