"""Loads ``bpf/steer.c``, attaches it, and reads its counters. The only module that knows BCC.

Without it firsthop works too, so whatever is missing is one ``SteeringUnavailable`` with one line to act on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import bpf
from bpf.verdicts import VERDICTS, c_enum
from edge import kernel
from wire.ufrag import MAX_KEY_ID, SLOTS

__all__ = [
    "MAX_CPUS",
    "Steering",
    "SteeringError",
    "SteeringUnavailable",
    "attach_cpu_filter",
    "cpu_filter",
    "detach_cpu_filter",
]

MAX_CPUS: Final = 128
DEFAULT_FLOW_ENTRIES: Final = 65536
# 100 calls behind one address that a NAT moves at once, each with 50 packets a second, until their new flows are
# known; starting at once they send 20 checks a second each (RFC 8445 section 14.2). A second of it may come in one
# burst. To the transceivers it is 4 % of a core, should all of it be a good ufrag repeated by a flood.
DEFAULT_UNKNOWN_RATE: Final = 5000
DEFAULT_UNKNOWN_BURST: Final = 5000
# Prefixes whose buckets are remembered, at about 100 bytes each.
BUCKET_ENTRIES: Final = 65536
# Datagrams on their way to a core. The kernel's own examples use 192 to 2048; at 400 kpps this is 5 ms.
CPU_QUEUE: Final = 2048

_NO_CPU = 0xFFFFFFFF
_NATIVE, _GENERIC = 1 << 2, 1 << 1  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
# CAP_PERFMON, because the verifier lets nobody else move a packet pointer by a length read from the packet.
_CAPABILITIES = {12: "CAP_NET_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}
_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68


class SteeringError(Exception):
    """XDP steering cannot be had as asked; one line says why and what to do."""


class SteeringUnavailable(SteeringError):
    """Something that steering needs is missing here: one line says what, and how to get it."""


class Steering:
    """The loaded program and its maps. Close it, or use it in a ``with`` statement.

    ``flows_fd`` and ``ssrcs_fd`` are for ``kernel.FlowStore`` in the workers, which inherit them; ``prog_fd`` is
    for ``kernel.prog_test_run``. Behind ``buckets_fd`` are 16 byte prefixes and the time (u64, ns of CLOCK_MONOTONIC)
    at which each will have used what it took.
    """

    def __init__(self, prog_fd: int, map_fds: Mapping[str, int], cpus: Sequence[int]) -> None:
        """For ``load``: takes the descriptors over."""
        self.prog_fd = prog_fd
        self.flows_fd = map_fds["flows"]
        self.ssrcs_fd = map_fds["ssrcs"]
        self.buckets_fd = map_fds["buckets"]
        self.cpus = tuple(cpus)
        self._fds = [prog_fd, *map_fds.values()]
        self._link_fd: int | None = None
        u32 = kernel.U32.size
        self._copies = len(kernel.possible_cpus())
        self._keys = kernel.BpfMap(map_fds["keys"], u32, kernel.ROUTE_KEY.size)
        self._slots = kernel.BpfMap(map_fds["slots"], u32, u32)
        self._cpu_queues = kernel.BpfMap(map_fds["cpus"], u32, u32)
        self._flows = kernel.BpfMap(self.flows_fd, kernel.FLOW_KEY.size, kernel.FLOW.size)
        self._counters = kernel.BpfMap(map_fds["counters"], u32, 8 * self._copies)

    @classmethod
    def load(
        cls,
        port: int,
        address: bytes | None,
        keys: Mapping[int, bytes],
        cpus: Sequence[int],
        *,
        flow_entries: int = DEFAULT_FLOW_ENTRIES,
        unknown_rate: int = DEFAULT_UNKNOWN_RATE,
        unknown_burst: int = DEFAULT_UNKNOWN_BURST,
        unknown_prefixes: tuple[int, int] = (32, 64),
    ) -> Steering:
        """Compile, load and fill the program, attached to nothing yet.

        ``port`` is the media port; ``address`` the 16 byte destination (IPv4 as ``::ffff:a.b.c.d``), None for any;
        ``keys`` the 16 byte ufrag keys by key id; ``cpus`` the workers' CPUs: slot i goes to
        ``cpus[i % len(cpus)]``.
        ``flow_entries`` bounds the flow table and the SSRC table each, at about 100 bytes an entry.
        ``unknown_rate`` is how many packets a second are steered from the unknown addresses of one prefix, and
        ``unknown_burst`` how many at once; a rate of 0 sets no limit. ``unknown_prefixes`` are the prefixes' lengths
        in bits for IPv4 and IPv6. Known flows are never limited.

        Raises SteeringUnavailable, or ValueError for arguments that cannot be.
        """
        if not 1 <= port <= 65535:
            raise ValueError(f"media port {port} is not between 1 and 65535")
        if address is not None and len(address) != 16:
            raise ValueError(f"the media address has {len(address)} bytes, not 16")
        if not cpus or not all(0 <= cpu < MAX_CPUS for cpu in cpus):
            raise ValueError(f"workers need CPUs between 0 and {MAX_CPUS - 1}, not {list(cpus)}")
        if flow_entries < 1:
            raise ValueError(f"a flow table of {flow_entries} entries holds no flow")
        admission = _admission(unknown_rate, unknown_burst, unknown_prefixes)
        _require_what_bcc_needs()
        cflags = {
            **admission,
            "MEDIA_PORT": port,
            "FLOW_ENTRIES": flow_entries,
            "SSRC_ENTRIES": flow_entries,
            "BUCKET_ENTRIES": BUCKET_ENTRIES,
            "CPU_ENTRIES": max(cpus) + 1,
            "MAX_CPUS": MAX_CPUS,
            "FLOW_KEY_BYTES": kernel.FLOW_KEY.size,
            "FLOW_BYTES": kernel.FLOW.size,
            "ROUTE_KEY_BYTES": kernel.ROUTE_KEY.size,
        }
        if address is not None:
            cflags |= {f"MEDIA_ADDRESS_{i}": word for i, word in enumerate(struct.unpack("=4I", address))}
        prog_fd, map_fds = _compile(cflags)
        try:
            steering = cls(prog_fd, map_fds, cpus)
        except BaseException:
            for fd in (prog_fd, *map_fds.values()):
                os.close(fd)
            raise
        try:
            steering._fill(keys)
        except BaseException:
            steering.close()
            raise
        return steering

    def _fill(self, keys: Mapping[int, bytes]) -> None:
        self.set_keys(keys)
        for cpu in self.cpus:
            try:
                self._cpu_queues.update(kernel.U32.pack(cpu), kernel.U32.pack(CPU_QUEUE))
            except OSError as error:
                raise SteeringUnavailable(
                    f"CPU {cpu} cannot take packets from XDP ({error.strerror}): choose workers among"
                    f" CPUs {kernel.possible_cpus()}"
                ) from error
        self.set_slots([self.cpus[slot % len(self.cpus)] for slot in range(SLOTS)])

    def set_keys(self, keys: Mapping[int, bytes]) -> None:
        """Accept ufrags under these keys (key id to 16 bytes) and no others: key rotation without a reload."""
        for key_id, key in keys.items():
            if not 0 <= key_id <= MAX_KEY_ID or len(key) != 16:
                raise ValueError(f"ufrag key {key_id}: key ids are 0 to {MAX_KEY_ID}, keys have 16 bytes")
        for key_id in range(MAX_KEY_ID + 1):
            value = kernel.ROUTE_KEY.pack(keys.get(key_id, bytes(16)), key_id in keys)
            self._keys.update(kernel.U32.pack(key_id), value)

    def set_slots(self, cpus: Sequence[int | None]) -> None:
        """The CPU of each of the 256 slots; None drops what belongs there (counted as ``no_core``)."""
        if len(cpus) != SLOTS:
            raise ValueError(f"there are {SLOTS} slots, not {len(cpus)}")
        for slot, cpu in enumerate(cpus):
            self._slots.update(kernel.U32.pack(slot), kernel.U32.pack(_NO_CPU if cpu is None else cpu))

    def attach(self, ifname: str) -> str:
        """Steer what arrives at the interface. Returns ``native``, or ``generic`` where the driver has no XDP.

        The program leaves the interface when this object detaches or its process dies, and no other program is
        ever touched. Raises SteeringError where one is there already or the interface does not take any.
        """
        if self._link_fd is not None:
            raise SteeringError("steering is attached already: detach it first")
        try:
            interface = socket.if_nametoindex(ifname)
        except OSError as error:
            raise SteeringError(f"no network interface is called {ifname!r}: see 'ip -brief link'") from error
        failures = []
        for mode, flags in (("native", _NATIVE), ("generic", _GENERIC)):
            try:
                self._link_fd = kernel.attach_xdp(self.prog_fd, interface, flags)
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    raise SteeringError(
                        f"{ifname} has an XDP program already, which is left alone: stop its owner, or take it off"
                        f" with 'ip link set {ifname} xdp off', then start again"
                    ) from error
                failures.append(f"{mode}: {os.strerror(error.errno or 0)}")
            else:
                return mode
        raise SteeringError(f"{ifname} takes no XDP program ({', '.join(failures)}): steer another interface")

    def detach(self) -> None:
        """Take the program off its interface. Nothing happens where it is on none."""
        if self._link_fd is not None:
            os.close(self._link_fd)
            self._link_fd = None

    def counters(self) -> dict[tuple[str, int], int]:
        """Packets by verdict and target CPU since the load, in one read. Verdicts that steer nowhere have CPU 0.

        Each verdict is there, each steering verdict for each worker's CPU, zero or not.
        """
        totals = {
            (verdict.label, cpu): 0
            for verdict in VERDICTS
            for cpu in (self.cpus if verdict.kind == "steered" else (0,))
        }
        copies = struct.Struct(f"={self._copies}Q")
        for key, value in self._counters.items():
            total = sum(copies.unpack(value))
            if total:
                verdict, cpu = divmod(kernel.U32.unpack(key)[0], MAX_CPUS)
                totals[VERDICTS[verdict].label, cpu] = total
        return totals

    def flow_count(self) -> int:
        """Flows in the kernel's table, by reading it whole (a few ms when full)."""
        return sum(1 for _ in self._flows.items())

    def close(self) -> None:
        """Detach, and release program and maps (which live on in the workers that hold them)."""
        self.detach()
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cpu_filter(cpus: Sequence[int]) -> bytes:
    """Classic BPF that returns the running CPU's index in ``cpus``, as ``struct sock_filter`` instructions.

    Any other CPU gets an index no group has, so that the kernel's hash decides.
    """
    instruction = struct.Struct("=HBBI")
    load, jump_if_equal, leave = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    running_cpu = 0xFFFFF000 + 36  # SKF_AD_OFF + SKF_AD_CPU
    code = instruction.pack(load, 0, 0, running_cpu)
    for index, cpu in enumerate(cpus):
        code += instruction.pack(jump_if_equal, 0, 1, cpu) + instruction.pack(leave, 0, 0, index)
    return code + instruction.pack(leave, 0, 0, 0xFFFFFFFF)


def attach_cpu_filter(sock: socket.socket, cpus: Sequence[int]) -> None:
    """Let the SO_REUSEPORT group of ``sock`` deliver to the n-th socket bound what arrives on ``cpus[n]``.

    Only while XDP steers: without it, the receiving core says nothing about the flow. Raises OSError.
    """
    code = cpu_filter(cpus)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: number of instructions, address.
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def detach_cpu_filter(sock: socket.socket) -> None:
    """Back to the kernel's own hash for the group of ``sock``. Raises OSError where no filter is attached."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


def _require_what_bcc_needs() -> None:
    """Raises SteeringUnavailable for what BCC would report in many lines on stderr, or not at all."""
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise SteeringUnavailable(
            f"no XDP steering: this process lacks {', '.join(missing)}; run it as root or grant these"
        )
    release = platform.release()
    places = [Path("/lib/modules", release, name) for name in ("build", "source")]
    in_kernel = Path("/sys/kernel/kheaders.tar.xz").exists()
    if chosen := os.environ.get("BCC_KERNEL_SOURCE"):
        places, in_kernel = [Path(chosen)], False
    if not in_kernel and not all(place.is_dir() for place in places):
        raise SteeringUnavailable(
            f"no XDP steering: no kernel headers at {' and '.join(map(str, places))};"
            f" install linux-headers-{release} or run scripts/setup as root"
        )


def _admission(rate: int, burst: int, prefixes: tuple[int, int]) -> dict[str, int]:
    """The constants of ``bpf/admit.h``."""
    if not 0 <= rate <= 10**9 or not 1 <= burst <= 10**9:
        raise ValueError(f"{rate} packets a second and {burst} at once from unknown addresses are not a limit")
    if not (0 <= prefixes[0] <= 32 and 0 <= prefixes[1] <= 128):
        raise ValueError(f"prefixes of {prefixes[0]} bits of IPv4 and {prefixes[1]} of IPv6 do not exist")
    interval = 10**9 // rate if rate else 0
    v4, *v6 = struct.unpack("=5I", _mask(prefixes[0], 4) + _mask(prefixes[1], 16))
    return {
        "UNKNOWN_INTERVAL_NS": interval,
        "UNKNOWN_WINDOW_NS": (burst - 1) * interval,
        "UNKNOWN_V4_MASK": v4,
        **{f"UNKNOWN_V6_MASK_{i}": word for i, word in enumerate(v6)},
    }


def _mask(bits: int, size: int) -> bytes:
    return ((1 << bits) - 1 << size * 8 - bits).to_bytes(size, "big")


def _compile(cflags: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """Compile and load ``bpf/steer.c``. Returns the descriptors of the program and of each map, ours to close.

    BCC is let go again at once: from here on descriptors are enough.
    """
    try:
        from bcc import BPF
    except ImportError as error:
        raise SteeringUnavailable(
            "no XDP steering: Python module bcc is missing; install Debian's python3-bpfcc (not bcc from PyPI)"
            " and use an environment made with --system-site-packages"
        ) from error
    folder = Path(bpf.__path__[0])
    text = f'{c_enum()}#line 1 "steer.c"\n{(folder / "steer.c").read_text()}'
    flags = [f"-I{folder}", *(f"-D{name}={value}" for name, value in cflags.items())]
    with _stderr_kept() as kept:
        module = None
        try:
            module = BPF(text=text.encode(), cflags=flags)
            program = module.load_func(b"firsthop_steer", BPF.XDP)
            maps = ("keys", "slots", "cpus", "flows", "ssrcs", "buckets", "counters")
            return os.dup(program.fd), {name: os.dup(module[name.encode()].map_fd) for name in maps}
        except Exception as error:
            said = kept()
            line = next(
                (line for line in said.splitlines() if "error:" in line), (str(error) or repr(error)).splitlines()[0]
            )
            failure = SteeringUnavailable(f"no XDP steering: the kernel program does not load: {line.strip()}")
            failure.add_note(said)
            raise failure from error
        finally:
            if module is not None:
                module.cleanup()


@contextlib.contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """Keeps what C code writes to descriptor 2; the function it gives returns that so far."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 2)
            yield lambda: os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
