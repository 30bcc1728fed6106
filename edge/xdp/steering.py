"""The XDP steering of an edge: it loads ``bpf/steer.c``, fills and attaches it, and reads its counters.

firsthop works without it too, so whatever is missing is one ``SteeringUnavailable`` with one line to act on.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bpf.layout import FLOW, KEYS, MAX_CPUS, MAX_RELAYS, RELAY, U32, U64, Map, maps, route_key
from bpf.verdicts import VERDICTS
from edge.xdp import kernel
from edge.xdp.cpumap import bring_in_bulk
from edge.xdp.express_ports import ExpressPorts
from edge.xdp.limits import Limits
from edge.xdp.pins import Pins
from edge.xdp.placement import slots
from edge.xdp.program import SteeringError, SteeringUnavailable, load_programs, require_what_bcc_needs
from edge.xdp.ways import Ways
from wire.ufrag import MAX_KEY_ID, MAX_SISTERS, SLOTS

__all__ = [
    "MAX_CPUS",
    "Steering",
    "SteeringError",
    "SteeringUnavailable",
]

DEFAULT_FLOW_ENTRIES: Final = 65536
# Datagrams on their way to a core. The kernel's own examples use 192 to 2048; at 400 kpps this is 5 ms.
CPU_QUEUE: Final = 2048

_NO_CPU = 0xFFFFFFFF
_MODES: Final = {"native": 1 << 2, "generic": 1 << 1}  # XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE


class Steering:
    """The loaded program and its maps. Close it, or use it in a ``with`` statement.

    ``flows_fd`` and ``ssrcs_fd`` are for ``kernel.FlowStore`` in the workers, which inherit them, ``shedding_fd`` for
    their ``kernel.Shedding``; ``express`` has the transceivers of this host that take media themselves, ``ways`` those
    of others, from which ``backs_fd`` and ``ways_fd`` lead back to clients (``ways.Backs``); ``prog_fd`` is for
    ``kernel.prog_test_run``. Behind ``buckets_fd`` are 16 byte prefixes and the time (u64, ns of CLOCK_MONOTONIC) at
    which each will have got back what it took; behind ``named_fd`` the same of ufrags, by the 8 bytes of their whole
    tag, and of SSRCs, which four zero bytes follow; ``relays_fd`` has that of each relay.
    """

    def __init__(
        self,
        programs: Mapping[str, int],
        maps: Mapping[str, Map],
        map_fds: Mapping[str, int],
        cpus: Sequence[int],
        pins: Pins | None,
        adopted: bool,
    ) -> None:
        """Takes the descriptors over, for ``load``. ``adopted`` says that an earlier process filled these very maps."""
        self.prog_fd = programs["steer"]
        self._overflow_fd = programs["overflow"]
        self._pins = pins
        self._adopted = adopted
        self.flows_fd = map_fds["flows"]
        self.ssrcs_fd = map_fds["ssrcs"]
        self.buckets_fd = map_fds["buckets"]
        self.named_fd = map_fds["named"]
        self.relays_fd = map_fds["relays"]
        self.shedding_fd = map_fds["shedding"]
        self.express = ExpressPorts(map_fds["express"], map_fds["express_ports"])
        self.ways = Ways(map_fds["ways"], map_fds["inners"], map_fds["fallbacks"])
        self.backs_fd, self.ways_fd = map_fds["backs"], map_fds["ways"]
        self.cpus = tuple(cpus)
        self._fds = [*programs.values(), *map_fds.values()]
        self._link_fd: int | None = None
        self._older_flows: int | None = None
        self._caught_up_ns = 0
        copies = len(kernel.possible_cpus())
        self._copies = struct.Struct(f"={copies}Q")
        tables = {
            name: kernel.BpfMap(fd, maps[name].key.size, maps[name].value_bytes(copies)) for name, fd in map_fds.items()
        }
        self._keys, self._slots, self._cpu_queues = tables["keys"], tables["slots"], tables["cpus"]
        self._flows, self._ssrcs, self._relays = tables["flows"], tables["ssrcs"], tables["relays"]
        self._backs = tables["backs"]
        self._queue_ids, self._overflow, self._counters = tables["queues"], tables["overflow"], tables["counters"]

    @classmethod
    def load(
        cls,
        port: int,
        address: bytes | None,
        keys: Mapping[int, bytes],
        cpus: Sequence[int],
        *,
        sisters: Sequence[Mapping[int, bytes]] = (),
        flow_entries: int = DEFAULT_FLOW_ENTRIES,
        limits: Limits = Limits(),  # noqa: B008  # a value
        relays: Collection[tuple[bytes, int]] = (),
        pins: Pins | None = None,
        compiled: Path | None = None,
    ) -> Steering:
        """Compiles, loads and fills the program, which is attached to nothing yet. The folder ``compiled`` keeps it for
        the next time.

        With ``pins`` the maps outlive this process, and what an earlier one pinned there is taken over: flows,
        counters, and which cores are out. It is this object's to remove.

        ``port`` is the media port; ``address`` the 16 byte destination (IPv4 as ``::ffff:a.b.c.d``), None for any;
        ``keys`` the 16 byte ufrag keys by key id, ``sisters`` as in ``set_keys``; ``cpus`` the workers' CPUs, among
        which ``edge.xdp.placement`` spreads the slots.
        ``flow_entries`` bounds the flow table and the SSRC table each, at about 100 bytes an entry.
        ``limits`` are what strangers and single flows may send; ``relays`` the prefixes, at most MAX_RELAYS, of relays
        with many callers each: an address in 16 bytes and how many bits of it count.

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
        if len(relays) > MAX_RELAYS:
            raise ValueError(f"{len(relays)} relays: at most {MAX_RELAYS}")
        constants = limits.constants()
        if relays:
            constants["RELAYS"] = 1
        require_what_bcc_needs()
        made = maps(flow_entries, max(kernel.possible_cpus()) + 1)
        constants["MEDIA_PORT"] = port
        if address is not None:
            constants |= {f"MEDIA_ADDRESS_{i}": word for i, word in enumerate(struct.unpack("=4I", address))}
        fitting, outgrown = pins.fit(made) if pins is not None else ({}, {})
        try:
            programs, map_fds = load_programs(constants, made, fitting, compiled)
            try:
                steering = cls(programs, made, map_fds, cpus, pins, adopted=len(fitting) == len(map_fds))
            except BaseException:
                for fd in (*programs.values(), *map_fds.values()):
                    os.close(fd)
                raise
            try:
                steering._fill(keys, sisters, outgrown)
                steering._set_relays(relays)
                if "flows" in outgrown:
                    steering._older_flows = os.dup(outgrown["flows"])
                if pins is not None:
                    for name in map_fds.keys() - fitting.keys():
                        pins.put(name, map_fds[name])
            except BaseException:
                steering.release()
                raise
        finally:
            for fd in (*fitting.values(), *outgrown.values()):
                os.close(fd)
        return steering

    def _fill(
        self, keys: Mapping[int, bytes], sisters: Sequence[Mapping[int, bytes]], outgrown: Mapping[str, int]
    ) -> None:
        """Fills the maps. Content that an earlier process pinned stays: flows, and which cores are out."""
        self._caught_up_ns = time.monotonic_ns()
        self.set_keys(keys, sisters)
        earlier = [cpu for cpu in kernel.possible_cpus() if self._cpu_queues.lookup(U32.pack(cpu)) is not None]
        out = set(earlier) - set(self.slots()) if earlier else set()
        for cpu in self.cpus:
            try:
                self._cpu_queues.update(U32.pack(cpu), U32.pack(CPU_QUEUE))
            except OSError as error:
                raise SteeringUnavailable(
                    f"CPU {cpu} cannot take packets from XDP ({error.strerror}): choose workers among"
                    f" CPUs {kernel.possible_cpus()}"
                ) from error
        if out >= set(self.cpus):
            out = set()
        self.set_slots(slots(self.cpus, out))
        self._queue_ids.update(U32.pack(0), U32.pack(int(kernel.facts(self._cpu_queues.fd)["map_id"])))
        for name, table in (("flows", self._flows), ("ssrcs", self._ssrcs), ("backs", self._backs)):
            if name in outgrown:
                _copy(outgrown[name], table)
        for cpu in set(earlier) - set(self.cpus):
            self._cpu_queues.delete(U32.pack(cpu))
        # Of a core without a worker now: the next check finds its slot's core.
        for key, value in self._flows.items():
            if FLOW.unpack(value)[0] not in self.cpus:
                self._flows.delete(key)
        for key, value in self._ssrcs.items():
            if U32.unpack(value)[0] not in self.cpus:
                self._ssrcs.delete(key)

    def catch_up(self) -> None:
        """Takes over what workers have entered in an outgrown flow table since the last call; they hold that table
        until they are replaced. Call it a few times then; nothing happens where all is as it was."""
        if self._older_flows is None:
            return
        since_ns, self._caught_up_ns = self._caught_up_ns, time.monotonic_ns()
        # What was there before, and is not here, has ended meanwhile.
        _copy(self._older_flows, self._flows, lambda value: FLOW.read(value, "last_seen_ns") > since_ns)

    def set_keys(self, keys: Mapping[int, bytes], sisters: Sequence[Mapping[int, bytes]] = ()) -> None:
        """Accepts ufrags under these keys (key id to 16 bytes), and those of at most MAX_SISTERS other clusters, and no
        others: key rotation without a reload.

        A key that stays is not touched, and what comes is there before what goes is gone.
        """
        if len(sisters) > MAX_SISTERS:
            raise ValueError(f"keys of {len(sisters)} other clusters: at most {MAX_SISTERS}")
        wanted = {}
        for cluster, its_keys in enumerate((keys, *sisters)):
            for key_id, key in its_keys.items():
                if not 0 <= key_id <= MAX_KEY_ID or len(key) != 16:
                    raise ValueError(f"ufrag key {key_id}: key ids are 0 to {MAX_KEY_ID}, keys have 16 bytes")
                wanted[cluster * (MAX_KEY_ID + 1) + key_id] = key
        for place in sorted(range(KEYS), key=lambda place: place not in wanted):
            at, value = U32.pack(place), route_key(wanted.get(place, bytes(16)), place in wanted)
            if self._keys.lookup(at) != value:
                self._keys.update(at, value)

    def _set_relays(self, relays: Collection[tuple[bytes, int]]) -> None:
        """Has these relays and no others. One that stays keeps its bucket."""
        wanted = {RELAY.pack(bits, address) for address, bits in relays}
        there = {key for key, _ in self._relays.items()}
        for key in there - wanted:
            self._relays.delete(key)
        for key in wanted - there:
            self._relays.update(key, U64.pack(0))

    def set_slots(self, cpus: Sequence[int | None]) -> None:
        """Sets the CPU of each of the 256 slots; None drops what belongs there (counted as ``no_core``)."""
        if len(cpus) != SLOTS:
            raise ValueError(f"there are {SLOTS} slots, not {len(cpus)}")
        for slot, cpu in enumerate(cpus):
            self._slots.update(U32.pack(slot), U32.pack(_NO_CPU if cpu is None else cpu))

    def slots(self) -> list[int]:
        """The CPU of each of the 256 slots now."""
        by_slot = {U32.unpack(key)[0]: U32.unpack(value)[0] for key, value in self._slots.items()}
        return [by_slot[slot] for slot in range(SLOTS)]

    @property
    def pins(self) -> Pins | None:
        """Where it is pinned, if it is."""
        return self._pins

    def attach(self, ifname: str) -> str:
        """Steers what arrives at the interface. Returns ``native``, or ``generic`` where the driver has no XDP.

        Where an earlier process pinned its link, this program takes the place of the one in it between two packets,
        unless it is the same. The program leaves the interface when this object detaches, or, without pins, when its
        process dies; no other program is ever touched. Raises SteeringError where one is there already or the
        interface does not take any.
        """
        if self._link_fd is not None:
            if not self._is_mine(self._link_fd):
                raise SteeringError(
                    f"somebody put another program into the XDP link of {ifname}, which is left alone: stop its owner,"
                    " and start the edge again",
                    "other_program",
                )
            raise SteeringError("steering is attached already: detach it first")
        interface = _index(ifname)
        if not interface:
            raise SteeringError(f"no network interface is called {ifname!r}: see 'ip -brief link'", "no_interface")
        mode = self._take_over(interface) or self._attach(ifname, interface)
        if self._pins is not None:
            self._pins.put("program", self.prog_fd)
        return mode

    def steers(self, ifname: str) -> bool:
        """Whether this program is on the interface that has that name now."""
        return self._link_fd is not None and self._is_on(ifname) and self._is_mine(self._link_fd)

    def let_go(self, ifname: str) -> None:
        """Detaches from an interface that does not have that name, or is gone. Nothing happens where there is none."""
        if self._link_fd is not None and not self._is_on(ifname):
            self.detach()

    def _is_on(self, ifname: str) -> bool:
        assert self._link_fd is not None
        # An interface that is gone leaves its link behind, with index 0; so does whoever detaches it.
        index = int(kernel.facts(self._link_fd)["ifindex"])
        return index != 0 and index == _index(ifname)

    def _is_mine(self, link_fd: int) -> bool:
        return kernel.facts(link_fd)["prog_id"] == kernel.facts(self.prog_fd)["prog_id"]

    def _attach(self, ifname: str, interface: int) -> str:
        failures = []
        for mode, flags in _MODES.items():
            try:
                self._link_fd = kernel.attach_xdp(self.prog_fd, interface, flags)
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    raise SteeringError(
                        f"{ifname} has an XDP program already, which is left alone: stop its owner, or take it off"
                        f" with 'ip link set {ifname} xdp off'",
                        "other_program",
                    ) from error
                failures.append(f"{mode}: {os.strerror(error.errno or 0)}")
            else:
                if self._pins is not None:
                    self._pins.put(f"link-{mode}", self._link_fd)
                return mode
        raise SteeringError(f"{ifname} takes no XDP program ({', '.join(failures)}): steer another interface")

    def _take_over(self, interface: int) -> str | None:
        """Takes over the link that an earlier process pinned, so that this program is in it. Returns its mode; None
        without one."""
        if self._pins is None:
            return None
        running = self._pins.get("program")
        try:
            for mode in _MODES:
                link = self._pins.get(f"link-{mode}")
                if link is None:
                    continue
                about = kernel.facts(link)
                if (
                    running is None
                    or int(about["ifindex"]) != interface
                    or about["prog_id"] != kernel.facts(running)["prog_id"]
                ):
                    # Of another interface, or of one that is gone and came back, or left half changed.
                    self._pins.drop(f"link-{mode}")
                    os.close(link)
                    continue
                self._link_fd = link
                # The tag is a hash of the instructions, whatever maps they use.
                same = kernel.facts(running)["prog_tag"] == kernel.facts(self.prog_fd)["prog_tag"]
                if not (same and self._adopted):
                    kernel.replace_xdp(link, self.prog_fd, running)
                    return mode
                self._fds.remove(self.prog_fd)
                os.close(self.prog_fd)
                self.prog_fd, running = running, None
                self._fds.append(self.prog_fd)
                return mode
            return None
        finally:
            if running is not None:
                os.close(running)

    def watch_queues(self) -> None:
        """Begins to count what finds no room in its core's queue. Raises OSError where the kernel cannot tell."""
        if self._pins is not None:
            self._pins.drop("overflow-link")  # of an earlier process: each packet is counted once
        link_fd = kernel.attach_tracepoint(self._overflow_fd, "xdp_cpumap_enqueue")
        self._fds.append(link_fd)
        if self._pins is not None:
            self._pins.put("overflow-link", link_fd)

    def bring_in_bulk(self) -> None:
        """Does what ``edge.xdp.cpumap`` says. Call it after each load, which starts the queues' threads anew."""
        bring_in_bulk(int(kernel.facts(self._cpu_queues.fd)["map_id"]), self.cpus)

    def overflow(self) -> dict[int, int]:
        """The number of packets that found no room in the queue of their core, by CPU, since the first
        ``watch_queues``."""
        return {cpu: sum(self._copies.unpack(self._overflow.lookup(U32.pack(cpu)) or b"")) for cpu in self.cpus}

    def detach(self) -> None:
        """Takes the program off its interface. Nothing happens where it is on none."""
        if self._link_fd is not None:
            if self._pins is not None:
                for mode in _MODES:
                    self._pins.drop(f"link-{mode}")
            os.close(self._link_fd)
            self._link_fd = None

    def counters(self) -> dict[tuple[str, int], int]:
        """The number of packets by verdict and target CPU since the load, in one read. Verdicts that are not
        ``of_core`` have CPU 0.

        Each verdict is there, each that is ``of_core`` for each worker's CPU, zero or not.
        """
        totals = {(verdict.label, cpu): 0 for verdict in VERDICTS for cpu in (self.cpus if verdict.of_core else (0,))}
        nothing = bytes(self._copies.size)
        for key, value in self._counters.items():
            if value != nothing:
                verdict, cpu = divmod(U32.unpack(key)[0], MAX_CPUS)
                totals[VERDICTS[verdict].label, cpu] = sum(self._copies.unpack(value))
        return totals

    def flow_count(self) -> int:
        """The number of flows in the kernel's table, found by reading it whole (a few ms when full)."""
        return sum(1 for _ in self._flows.items())

    def release(self) -> None:
        """Lets go of program, maps and link. What is pinned goes on, and steers if it is attached."""
        if self._link_fd is not None:
            os.close(self._link_fd)
            self._link_fd = None
        if self._older_flows is not None:
            os.close(self._older_flows)
            self._older_flows = None
        while self._fds:
            os.close(self._fds.pop())

    def close(self) -> None:
        """Detaches, unpins, and releases program and maps (which live on in the workers that hold them)."""
        self.detach()
        self.release()
        if self._pins is not None:
            self._pins.remove()
            self._pins = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _index(ifname: str) -> int:
    """The index of the interface that has that name now; 0 where none has."""
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        return 0


def _copy(fd: int, table: kernel.BpfMap, wanted: Callable[[bytes], bool] = lambda value: True) -> None:
    """Copies entries of an outgrown map, as far as there is room for them, that are not there and whose values are
    ``wanted``. Values of an older layout are shorter, and zeroes follow them (``bpf/layout.py``); values of a newer one
    are cut."""
    about = kernel.facts(fd)
    if int(about["key_size"]) != table.key_bytes:
        return
    old = kernel.BpfMap(fd, table.key_bytes, int(about["value_size"]))
    for key, value in old.items():
        if not wanted(value) or table.lookup(key) is not None:
            continue
        try:
            table.update(key, value.ljust(table.value_bytes, b"\0")[: table.value_bytes])
        except OSError:
            return
