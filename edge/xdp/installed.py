"""XDP as an edge has it: loaded, kept on its interface and told of new keys; or, where it cannot be had, nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Never

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.xdp.attachment import LOOK_EVERY_S, Attachment
from edge.xdp.cpufilter import detach_cpu_filter
from edge.xdp.express_ports import ExpressPorts
from edge.xdp.inner import Inner
from edge.xdp.limits import Limits, Rate
from edge.xdp.pins import Pins, PinsInUse, folder_of
from edge.xdp.steering import Steering, SteeringError
from edge.xdp.ways import Ways
from runtime.config import Edge
from runtime.errors import ConfigError
from runtime.families import edge as families
from runtime.families.family import Family
from wire.address import pack

__all__ = ["Xdp"]


class Xdp(Collector):
    """The first stage of the way in, for workers on ``cpus`` with the sockets ``media``. It opens ufrags with ``keys``,
    by id, and those of the clusters ``sisters``. It says to ``log`` what it must do without. As a collector it reads
    the kernel's counts when Prometheus asks. Raises ConfigError."""

    def __init__(
        self,
        edge: Edge,
        keys: dict[int, bytes],
        sisters: Sequence[Mapping[int, bytes]],
        cpus: list[int],
        media: Sequence[socket.socket],
        log: Any,
    ) -> None:
        self._interface = edge.interface
        self._cpus = cpus
        self._log = log
        self._steering = self._load(edge, keys, sisters, media[0])
        self._attachment: Attachment | None = None
        if self._steering is not None:
            self._attachment = Attachment(self._steering, edge.interface, media[0], log)
            self._attachment.look()
        self._inner: Inner | None = None
        if self._steering is not None and edge.between_hosts and edge.inner_interface not in ("", edge.interface):
            self._inner = Inner(self._steering.prog_fd, edge.inner_interface, self._steering.pins, log)

    @property
    def mode(self) -> str:
        """How it is attached, such as ``native``; ``off`` where it is not."""
        return self._attachment.mode if self._attachment is not None else "off"

    @property
    def maps(self) -> tuple[int, int, int, int, int] | None:
        """The descriptors of the maps of flows, SSRCs and shedding, and of ways from and to other hosts, which workers
        share with it."""
        steering = self._steering
        if steering is None:
            return None
        return steering.flows_fd, steering.ssrcs_fd, steering.shedding_fd, steering.backs_fd, steering.ways_fd

    @property
    def express(self) -> ExpressPorts | None:
        """The transceivers that take media themselves; None without XDP."""
        return self._steering.express if self._steering is not None else None

    @property
    def ways(self) -> Ways | None:
        """The ways to transceivers on other hosts; None without XDP."""
        return self._steering.ways if self._steering is not None else None

    @property
    def inner(self) -> Inner | None:
        """XDP on the interface towards other hosts; None where that is the clients' own."""
        return self._inner

    def use(self, keys: dict[int, bytes], sisters: Sequence[Mapping[int, bytes]]) -> None:
        """Opens ufrags with these keys from now on."""
        if self._steering is not None:
            self._steering.set_keys(keys, sisters)

    async def stay(self) -> Never:
        """Attaches it again whenever the interface has lost it."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._steering is not None and self._attachment is not None:
                self._attachment.look()
                self._steering.catch_up()

    def close(self) -> None:
        """Takes it off the interface, and its flows with it."""
        if self._inner is not None:
            self._inner.detach()
        if self._steering is not None:
            self._steering.close()

    def collect(self) -> Iterator[Metric]:
        attached = _gauges(families.XDP_ATTACHED)
        attached.add_metric([self.mode], int(self.mode != "off"))
        yield attached
        missing = _gauges(families.XDP_MISSING)
        if self._interface and self.mode == "off":
            missing.add_metric([self._interface, self._attachment.missing if self._attachment else "not_loaded"], 1)
        yield missing
        if self._steering is None:
            return
        slots = _gauges(families.CORE_SLOTS)
        placed = Counter(self._steering.slots())
        for cpu in self._cpus:
            slots.add_metric([str(cpu)], placed[cpu])
        yield slots
        packets = _counter(families.RX_XDP)
        for (verdict, cpu), count in self._steering.counters().items():
            packets.add_metric([verdict, str(cpu)], count)
        yield packets
        overflow = _counter(families.CORE_OVERFLOW)
        for cpu, count in self._steering.overflow().items():
            overflow.add_metric([str(cpu), "queue_full"], count)
        yield overflow
        fallbacks = _counter(families.XDP_FALLBACKS)
        for why, count in self._steering.ways.fallbacks().items():
            fallbacks.add_metric([why], count)
        yield fallbacks
        yield GaugeMetricFamily(families.XDP_FLOWS.name, families.XDP_FLOWS.means, value=self._steering.flow_count())

    def _load(
        self, edge: Edge, keys: dict[int, bytes], sisters: Sequence[Mapping[int, bytes]], first: socket.socket
    ) -> Steering | None:
        """The program, not attached yet; None where it cannot be had."""
        if not edge.interface:
            self._log.warning("no XDP: edge.interface is empty, the kernel's own hash spreads flows over workers")
            return None
        pins = self._pins(edge)
        try:
            # Compiling takes a core for a second, and calls may be going on. Linux makes the thread alone nice.
            with ThreadPoolExecutor(1, initializer=lambda: os.nice(19)) as yielding:
                steering = yielding.submit(
                    Steering.load,
                    edge.media.port,
                    pack(*edge.media.pair)[:16],
                    keys,
                    self._cpus,
                    sisters=sisters,
                    flow_entries=edge.flow_entries,
                    limits=Limits(
                        unknown=Rate(edge.unknown_rate, edge.unknown_burst),
                        relayed=Rate(edge.relay_rate, edge.relay_rate),
                        flow=Rate(edge.flow_rate, max(1, edge.flow_rate)),
                    ),
                    relays=[relay.mapped for relay in edge.relays],
                    pins=pins,
                    compiled=edge.compiled or edge.run,
                ).result()
        except ValueError as e:
            raise ConfigError(f"edge.interface {edge.interface}: {e}") from None
        except SteeringError as e:
            if pins is not None:
                pins.remove()
            with contextlib.suppress(OSError):  # an earlier supervisor's, where it had XDP
                detach_cpu_filter(first)
            self._log.warning(
                "no XDP: forged packets reach the workers, and the kernel's hash spreads flows", why=str(e)
            )
            return None
        try:
            steering.watch_queues()
        except OSError as e:
            self._log.warning("what the queues of the cores lose is not counted: no tracepoint", why=str(e))
        try:
            steering.bring_in_bulk()
        except OSError as e:
            self._log.warning("workers are interrupted for every few datagrams: no CAP_SYS_NICE", why=str(e))
        return steering

    def _pins(self, edge: Edge) -> Pins | None:
        try:
            return Pins(folder_of(edge))
        except PinsInUse as e:
            raise ConfigError(f"edge.name: {e.strerror or e}") from None
        except OSError as e:
            self._log.warning("XDP will end with this process, and its flows with the workers", why=str(e))
            return None


def _gauges(family: Family) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.means, labels=tuple(family.labels))


def _counter(family: Family) -> CounterMetricFamily:
    return CounterMetricFamily(family.name, family.means, labels=tuple(family.labels))
