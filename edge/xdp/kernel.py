"""BPF maps and programs by file descriptor, for processes without BCC: the ``bpf(2)`` system call itself.

BCC costs 100 MB and a second, so it only compiles, in one process, and workers inherit descriptors. A
worker needs no capability for that: with ``kernel.unprivileged_bpf_disabled`` set to 2, making maps and loading
programs is for CAP_BPF, while lookups, updates, deletes and batches on a descriptor that one holds stay open to
anyone (Linux 5.19 and later; ``tests/edge/xdp/test_steer.py`` shows it with a process of user nobody).

Every call that the kernel refuses raises OSError.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bpf.layout import FLOW, FLOW_KEY, NUMBER, SHED, SSRC, U32, flow_key
from wire import address as flow_address
from wire.encapsulation import NO_TICKET, Head

__all__ = [
    "XDP_DROP",
    "XDP_PASS",
    "XDP_REDIRECT",
    "BpfMap",
    "Flow",
    "FlowStore",
    "Shedding",
    "attach_tracepoint",
    "attach_xdp",
    "create_map",
    "facts",
    "is_bpffs",
    "load_program",
    "pin",
    "pinned",
    "possible_cpus",
    "prog_test_run",
    "replace_xdp",
    "run_live",
]

XDP_PROGRAM, TRACEPOINT_PROGRAM = 6, 17  # BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_RAW_TRACEPOINT
XDP_DROP: Final = 1
XDP_PASS: Final = 2
XDP_REDIRECT: Final = 4

_BUCKETS_AT: Final = FLOW.offset("media_due_ns")
_EXPRESS_AT: Final = FLOW.offset("express")
_LOOKUP, _UPDATE, _DELETE, _PIN, _GET, _TEST_RUN, _RAW_TRACEPOINT, _LOOKUP_BATCH = 1, 2, 3, 6, 7, 10, 17, 24
_LINK_CREATE, _LINK_UPDATE = 28, 29
_MAP_CREATE, _PROG_LOAD = 0, 5
_ATTACH_XDP = 37
_REPLACE = 1 << 2  # BPF_F_REPLACE
_BPFFS_MAGIC = 0xCAFE4A11
# union bpf_attr of include/uapi/linux/bpf.h, one view a command.
_MAP = struct.Struct("=IIIIIII16s")  # type, bytes of key, of value, entries, flags, inner map, NUMA node, name
# Type, instructions, where they are, licence, log level, bytes of log, where it goes, kernel version, flags, name.
_PROGRAM = struct.Struct("=IIQQIIQII16s")
_ELEMENT = struct.Struct("=IxxxxQQQ")  # map, key, value, flags
_BATCH = struct.Struct("=QQQQIIQQ")  # in, out, keys, values, count, map, element flags, flags
_RUN = struct.Struct("=IIIIQQII40x")  # program, verdict, bytes in, bytes out, in, out, repeat, duration
# The same with the context in, its size, flags, CPU and batch; and struct xdp_md, the context.
_RUN_LIVE, _XDP_MD, _LIVE_FRAMES = struct.Struct("=IIIIQQIIIIQQIII4x"), struct.Struct("=IIIIII"), 1 << 1
_LINK = struct.Struct("=IIII")  # program, interface, attach type, flags
_LINK_TO = struct.Struct("=IIII")  # link, new program, flags, program that must be there now
_TRACEPOINT = struct.Struct("=QIxxxx")  # name, program
_OBJECT = struct.Struct("=QII")  # path, descriptor, flags

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(platform.machine())
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_ALWAYS = 0xFFFFFFFF
_PER_CPU_TYPES = {"5", "6", "10", "21"}  # percpu hash, percpu array, percpu LRU hash, percpu cgroup storage
_FIRST_BATCH = 4096
_LICENCE = b"GPL\0"  # without it the kernel lends a program few of its functions
_VERIFIER_LOG_BYTES = 1 << 20
_INSTRUCTION_BYTES = 8


def _bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """The system call. ``attributes`` is read and, by some commands, written."""
    if _SYSCALL is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known to edge/xdp/kernel.py")
    result: int = _libc.syscall(_SYSCALL, command, ctypes.byref(attributes), len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf(2) command {command}: {os.strerror(code)}")
    return result


def _buffer(data: bytes | int) -> ctypes.Array[ctypes.c_char]:
    """A copy of ``data`` (or that many zero bytes) where the kernel can reach it, without a terminating zero."""
    size = data if isinstance(data, int) else len(data)
    buffer = (ctypes.c_char * size)()
    if not isinstance(data, int):
        buffer.raw = data
    return buffer


def create_map(name: str, kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> int:
    """Makes a map of the type ``kind`` (enum bpf_map_type). Returns its descriptor, the caller's to close."""
    about = _MAP.pack(kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode()[:15])
    return _bpf(_MAP_CREATE, _buffer(about))


def load_program(name: str, kind: int, instructions: bytes) -> int:
    """Loads a program of the type ``kind`` (enum bpf_prog_type). Returns its descriptor, the caller's to close. A note
    of the OSError has what the kernel's verifier said."""
    code, licence, log = _buffer(instructions), _buffer(_LICENCE), _buffer(_VERIFIER_LOG_BYTES)
    where = [ctypes.addressof(each) for each in (code, licence, log)]

    def load(log_level: int) -> int:
        wanted = (log_level, len(log), where[2]) if log_level else (0, 0, 0)
        count = len(code) // _INSTRUCTION_BYTES
        return _bpf(
            _PROG_LOAD, _buffer(_PROGRAM.pack(kind, count, where[0], where[1], *wanted, 0, 0, name.encode()[:15]))
        )

    try:
        return load(0)
    except OSError as refused:
        with contextlib.suppress(OSError):
            os.close(load(1))
        refused.add_note(log.value.decode(errors="replace"))
        raise


class BpfMap:
    """A BPF map behind ``fd``, with keys and values as bytes. It does not own the descriptor.

    A value of a per-CPU map is its copies for all possible CPUs in one, each padded to 8 bytes. Raises ValueError
    where the kernel's sizes are others: it would write past our buffers.
    """

    def __init__(self, fd: int, key_bytes: int, value_bytes: int) -> None:
        self.fd = fd
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        map_facts = facts(fd)
        if "map_type" not in map_facts:
            raise ValueError(f"file descriptor {fd} is not a BPF map")
        value = int(map_facts["value_size"])
        if map_facts["map_type"] in _PER_CPU_TYPES:
            value = (value + 7) // 8 * 8 * len(possible_cpus())
        if (int(map_facts["key_size"]), value) != (key_bytes, value_bytes):
            raise ValueError(
                f"BPF map at descriptor {fd} has keys of {map_facts['key_size']} and values of {value} bytes,"
                f" not {key_bytes} and {value_bytes}: it was made by another version of firsthop, restart the edge"
            )

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where there is none."""
        value = _buffer(self.value_bytes)
        try:
            self._element(_LOOKUP, key, value)
        except FileNotFoundError:
            return None
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Makes or replaces an entry. Raises OSError with E2BIG where the map is full."""
        if len(value) != self.value_bytes:
            raise ValueError(f"a value of this map has {self.value_bytes} bytes, not {len(value)}")
        self._element(_UPDATE, key, _buffer(value))

    def put(self, key: bytes, value: bytes) -> bool:
        """Makes or replaces an entry. Returns False where the map is full."""
        try:
            self.update(key, value)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            return False
        return True

    def delete(self, key: bytes) -> bool:
        """Removes an entry. Returns False where there was none."""
        try:
            self._element(_DELETE, key, None)
        except FileNotFoundError:
            return False
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries, a batch of them a system call. What comes or goes meanwhile may be among them or not."""
        size = _FIRST_BATCH
        position = b""
        while True:
            start = _buffer(position or 1)
            end = _buffer(max(4, self.key_bytes))
            keys, values = _buffer(size * self.key_bytes), _buffer(size * self.value_bytes)
            attributes = _buffer(
                _BATCH.pack(
                    ctypes.addressof(start) if position else 0,
                    ctypes.addressof(end),
                    ctypes.addressof(keys),
                    ctypes.addressof(values),
                    size,
                    self.fd,
                    0,
                    0,
                )
            )
            done = False
            try:
                _bpf(_LOOKUP_BATCH, attributes)
            except FileNotFoundError:
                done = True  # the last batch comes with ENOENT
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size *= 2  # one hash bucket holds more than a batch
                continue
            count = _BATCH.unpack(attributes.raw)[4]
            key_bytes, value_bytes = keys.raw, values.raw
            for i in range(count):
                yield (
                    key_bytes[i * self.key_bytes : (i + 1) * self.key_bytes],
                    value_bytes[i * self.value_bytes : (i + 1) * self.value_bytes],
                )
            if done:
                return
            position = end.raw

    def _element(self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        if len(key) != self.key_bytes:
            raise ValueError(f"a key of this map has {self.key_bytes} bytes, not {len(key)}")
        at = _buffer(key)
        value_at = 0 if value is None else ctypes.addressof(value)
        _bpf(command, _buffer(_ELEMENT.pack(self.fd, ctypes.addressof(at), value_at, 0)))


class Flow(NamedTuple):
    """A row of the flow table. ``address`` has 18 bytes (``wire/address.py``); ``last_seen_ns`` is CLOCK_MONOTONIC
    and up to a second old."""

    address: bytes
    cpu: int
    transceiver: int
    last_seen_ns: int


class FlowStore:
    """The tables that steer packets which are not STUN requests: flows by address, and sources by SSRC.

    The tables live in the kernel as long as anybody holds a descriptor or the program is attached, so a worker
    that was killed finds its flows again.
    """

    def __init__(self, flows_fd: int, ssrcs_fd: int) -> None:
        self._flows = BpfMap(flows_fd, FLOW_KEY.size, FLOW.size)
        self._ssrcs = BpfMap(ssrcs_fd, SSRC.size, U32.size)

    def put(
        self, address18: bytes, cpu: int, transceiver: int, express: bool = False, head: Head | None = None
    ) -> bool:
        """Enters a flow as seen now. Returns False where the table is full: the flow's packets are then dropped. With
        ``express`` its media goes past the worker, as long as its transceiver takes that; with ``head`` before it, to
        one on another host.

        One that is there already keeps its buckets: what it may send does not grow by being proved again.
        """
        if len(address18) != flow_address.SIZE:
            raise ValueError(f"a flow's address has {flow_address.SIZE} bytes, not {len(address18)}")
        number, ticket = head or (0, NO_TICKET)
        buckets, now = (0, 0, 0, 0), time.monotonic_ns()
        value = FLOW.pack(cpu, transceiver, now, 0, *buckets, express, ticket, NUMBER.pack(number))
        key = flow_key(address18)
        known = self._flows.lookup(key)
        if known is not None:
            value = value[:_BUCKETS_AT] + known[_BUCKETS_AT:_EXPRESS_AT] + value[_EXPRESS_AT:]
        return self._flows.put(key, value)

    def holder(self, address18: bytes) -> tuple[int, int] | None:
        """The CPU and the transceiver that have a flow, or None where the flow is not known."""
        value = self._flows.lookup(flow_key(address18))
        if value is None:
            return None
        cpu, transceiver = FLOW.unpack(value)[:2]
        return cpu, transceiver

    def head(self, address18: bytes) -> Head | None:
        """The head that a flow's media has on its way to another host, if it goes there."""
        value = self._flows.lookup(flow_key(address18))
        ticket = NO_TICKET if value is None else FLOW.read(value, "ticket")
        return Head(NUMBER.unpack(FLOW.read(value, "number"))[0], ticket) if value and ticket != NO_TICKET else None

    def last_seen_s(self, address18: bytes) -> float:
        """The time at which the flow last sent, up to a second old; CLOCK_MONOTONIC. 0 where it is not known."""
        value = self._flows.lookup(flow_key(address18))
        return 0.0 if value is None else FLOW.read(value, "last_seen_ns") / 1e9

    def remove(self, address18: bytes) -> bool:
        """Forgets a flow. Returns False where it was not known."""
        return self._flows.delete(flow_key(address18))

    def items(self) -> Iterator[Flow]:
        """All flows, in no order."""
        for key, value in self._flows.items():
            yield Flow(key[: flow_address.SIZE], *FLOW.unpack(value)[:3])

    __iter__ = items

    def put_ssrc(self, ssrc: int, cpu: int) -> bool:
        """Sends RTP with this SSRC from unknown addresses to ``cpu``. Returns False where the table is full."""
        return self._ssrcs.put(SSRC.pack(ssrc), U32.pack(cpu))

    def ssrc_holder(self, ssrc: int) -> int | None:
        """The CPU to which an SSRC's packets from unknown addresses go, or None."""
        value = self._ssrcs.lookup(SSRC.pack(ssrc))
        return None if value is None else int(U32.unpack(value)[0])

    def remove_ssrc(self, ssrc: int) -> bool:
        """Forgets an SSRC. Returns False where it was not known."""
        return self._ssrcs.delete(SSRC.pack(ssrc))


class Shedding:
    """The share of each core's packets that XDP drops before they get there. It stays as it is written when the writer
    ends."""

    def __init__(self, shedding_fd: int) -> None:
        self._chances = BpfMap(shedding_fd, U32.size, SHED.size)

    def put(self, cpu: int, media: float, strangers: float = 0.0) -> None:
        """Has each packet for ``cpu`` that is known flows' media, or strangers', dropped with that probability: 0 none,
        1 all."""
        self._chances.update(U32.pack(cpu), SHED.pack(round(media * _ALWAYS), round(strangers * _ALWAYS)))

    def get(self, cpu: int) -> float:
        """The probability that is in force for media."""
        return self._both(cpu)[0] / _ALWAYS

    def strangers(self, cpu: int) -> float:
        """The probability that is in force for strangers."""
        return self._both(cpu)[1] / _ALWAYS

    def _both(self, cpu: int) -> tuple[int, int]:
        media, strangers = SHED.unpack(self._chances.lookup(U32.pack(cpu)) or bytes(SHED.size))
        return media, strangers


def prog_test_run(prog_fd: int, packet: bytes, repeat: int = 1) -> tuple[int, bytes, int]:
    """Runs an XDP program on ``packet`` (at least 14 bytes) without a network.

    Returns what the program returned, the packet after it, and the mean time of a run in ns over ``repeat`` runs.
    """
    data, out = _buffer(packet), _buffer(len(packet) + 256)
    attributes = _buffer(
        _RUN.pack(prog_fd, 0, len(packet), len(out), ctypes.addressof(data), ctypes.addressof(out), repeat, 0)
    )
    _bpf(_TEST_RUN, attributes)
    _, verdict, _, out_bytes, _, _, _, duration_ns = _RUN.unpack(attributes.raw)
    return verdict, out.raw[:out_bytes], duration_ns


def run_live(prog_fd: int, packet: bytes, interface: int) -> None:
    """Has ``packet`` arrive on the interface of that index: what the program returns for it is done (Linux 5.18)."""
    data, about = _buffer(packet), _buffer(_XDP_MD.pack(0, len(packet), 0, interface, 0, 0))
    attributes = _RUN_LIVE.pack(
        *(prog_fd, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0),
        *(len(about), 0, ctypes.addressof(about), 0, _LIVE_FRAMES, 0, 1),
    )
    _bpf(_TEST_RUN, _buffer(attributes))


def attach_xdp(prog_fd: int, interface: int, flags: int) -> int:
    """Attaches to the interface of that index and returns the link's descriptor (Linux 5.9).

    The program is attached as long as the link is open: closing it, or dying, takes this program off and no
    other. EBUSY or EEXIST where one is there already.
    """
    return _bpf(_LINK_CREATE, _buffer(_LINK.pack(prog_fd, interface, _ATTACH_XDP, flags)))


def replace_xdp(link_fd: int, new_prog_fd: int, old_prog_fd: int | None) -> None:
    """Puts another program in a link, between two packets. Raises OSError with EPERM where ``old_prog_fd`` is not the
    one in it; None is any."""
    wanted = (0, 0) if old_prog_fd is None else (_REPLACE, old_prog_fd)
    _bpf(_LINK_UPDATE, _buffer(_LINK_TO.pack(link_fd, new_prog_fd, *wanted)))


def attach_tracepoint(prog_fd: int, name: str) -> int:
    """Runs a raw tracepoint program at ``name`` as long as the link, whose descriptor this returns, is open or
    pinned."""
    at = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT, _buffer(_TRACEPOINT.pack(ctypes.addressof(at), prog_fd)))


def pin(fd: int, path: Path) -> None:
    """Lets a map, program or link live on in a BPF filesystem until ``path`` is unlinked."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_PIN, _buffer(_OBJECT.pack(ctypes.addressof(name), fd, 0)))


def pinned(path: Path) -> int:
    """A descriptor of what is pinned there. Raises FileNotFoundError where nothing is."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_GET, _buffer(_OBJECT.pack(ctypes.addressof(name), 0, 0)))


def is_bpffs(path: Path) -> bool:
    """Whether ``path`` is in a BPF filesystem."""
    # struct statfs begins with its type, a long; 256 bytes are more than any architecture's has.
    result = (ctypes.c_long * 32)()
    return bool(_libc.statfs(os.fsencode(path), result) == 0 and result[0] == _BPFFS_MAGIC)


def possible_cpus() -> list[int]:
    """The CPUs for which the kernel keeps per-CPU values."""
    with open("/sys/devices/system/cpu/possible") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return [cpu for part in ranges for cpu in range(int(part[0]), int(part[-1]) + 1)]


def facts(fd: int) -> dict[str, str]:
    """The kernel's facts about a BPF descriptor, such as ``map_id``, ``prog_tag`` or a link's ``ifindex``."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        pairs = (line.partition(":") for line in file)
        return {name: value.strip() for name, _, value in pairs}
