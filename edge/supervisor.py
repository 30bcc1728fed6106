"""The edge's parent: opens every socket, owns XDP, starts the children and starts them again when they die.

The sockets stay open here, so a worker that dies leaves its socket's queue and its flows to the next one. What must
outlive this process too is in a store (sockets and children, ``runtime/store.py``) or pinned (XDP,
``edge/xdp/pins.py``), and the next one takes it over. It is also the only process with privileges.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge import apikeys
from edge.relay.spec import Spec
from edge.relay.worker import SPARE_NAME
from edge.sockets import http_socket, listening, media_sockets
from edge.tls import server_context
from edge.xdp import kernel
from edge.xdp.attachment import LOOK_EVERY_S, Attachment
from edge.xdp.cpufilter import detach_cpu_filter
from edge.xdp.limits import Limits, Rate
from edge.xdp.pins import Pins, PinsInUse, folder_of
from edge.xdp.steering import Steering, SteeringError
from runtime import logs, metrics, ports, signals
from runtime.beats import Beats
from runtime.children import Child, Children, identity
from runtime.config import Config
from runtime.errors import ConfigError
from runtime.followed import follow
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.notify import notify
from runtime.process import cpus, instance
from runtime.store import Store, lifeline, open_store
from wire import keys
from wire.address import pack
from wire.keys import ClusterKeys

__all__ = ["check", "run"]


class _EdgeCollector(Collector):
    """Who works where, and the first stage of the funnel, read from the kernel when Prometheus asks."""

    def __init__(
        self, cpus: list[int], interface: str, steering: Steering | None, attachment: Attachment | None
    ) -> None:
        self._cpus = cpus
        self._interface = interface
        self._steering = steering
        self._attachment = attachment

    def collect(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("firsthop_edge_worker_cpu", "The CPU that each worker runs on", labels=["worker"])
        for index, cpu in enumerate(self._cpus):
            workers.add_metric([str(index)], cpu)
        yield workers
        attached = GaugeMetricFamily("firsthop_xdp_attached", "1 while XDP steers", labels=["mode"])
        mode = self._attachment.mode if self._attachment is not None else "off"
        attached.add_metric([mode], int(mode != "off"))
        yield attached
        missing = GaugeMetricFamily(
            "firsthop_xdp_missing", "1 while XDP should steer and does not", labels=["interface", "why"]
        )
        if self._interface and mode == "off":
            missing.add_metric([self._interface, self._attachment.missing if self._attachment else "not_loaded"], 1)
        yield missing
        if self._steering is None:
            return
        slots = GaugeMetricFamily(
            "firsthop_edge_core_slots", "Of 256 slots of new calls, those that go to each core", labels=["core"]
        )
        placed = Counter(self._steering.slots())
        for cpu in self._cpus:
            slots.add_metric([str(cpu)], placed[cpu])
        yield slots
        packets = CounterMetricFamily(
            "firsthop_rx_xdp_packets",
            "Packets seen by XDP; core is where it sent them",
            labels=["verdict", "core"],
        )
        for (verdict, cpu), count in self._steering.counters().items():
            packets.add_metric([verdict, str(cpu)], count)
        yield packets
        overflow = CounterMetricFamily(
            "firsthop_rx_core_packets",
            "Steered packets that did not reach their core",
            labels=["core", "outcome"],
        )
        for cpu, count in self._steering.overflow().items():
            overflow.add_metric([str(cpu), "queue_full"], count)
        yield overflow
        yield GaugeMetricFamily("firsthop_xdp_flows", "Flows in the kernel's table", value=self._steering.flow_count())


class Supervisor:
    """Everything that must outlive a worker; ``store`` keeps what must outlive this as well. Raises ConfigError or
    KeyFileError for a configuration that cannot run."""

    def __init__(self, config: Config, store: Store) -> None:
        edge = config.edge
        self._config = config
        self._store = store
        self._log = logs.get()
        check(config)
        self._key_file = KeyFile(config.cluster.keys, self._log)
        self._keys = self._key_file.keys
        self._cpus = cpus("edge.cores", edge.cores)
        of_children = [ports.signaling(edge.metrics), *(ports.worker(edge.metrics, i) for i in range(len(self._cpus)))]
        children_run = any(name.startswith("child-") for name in store.names)
        for address in [edge.metrics, *([] if children_run else of_children)]:
            # Opened later, and by children; but a port that is taken is better said now than by one that keeps dying.
            listening("edge.metrics", *address.pair).close()
        self._lifeline = lifeline(store)
        self._beats = Beats(store)
        self._instance = instance(edge.run)
        self._http = http_socket(edge.http, store)
        self._media = media_sockets(edge.media, len(self._cpus), store)
        self._steering = self._steer()
        self._attachment: Attachment | None = None
        if self._steering is not None:
            self._attachment = Attachment(self._steering, edge.interface, self._media[0], self._log)
            self._attachment.look()
        workers = [self._worker(i) for i in range(len(self._cpus))]
        self._children = Children(
            [*workers, self._signaling()], "edge.relay.worker", SPARE_NAME, store, self._beats, "firsthop_edge"
        )

    def _steer(self) -> Steering | None:
        """XDP, loaded and not attached yet; None where it cannot be had."""
        edge = self._config.edge
        if not edge.interface:
            self._log.warning("no XDP: edge.interface is empty, the kernel's own hash spreads flows over workers")
            return None
        pins = self._pins()
        try:
            # Compiling takes a core for half a second, and calls may be going on. Linux makes the thread alone nice.
            with ThreadPoolExecutor(1, initializer=lambda: os.nice(19)) as yielding:
                steering = yielding.submit(
                    Steering.load,
                    edge.media.port,
                    pack(*edge.media.pair)[:16],
                    self._keys.ufrag,
                    self._cpus,
                    flow_entries=edge.flow_entries,
                    limits=Limits(
                        unknown=Rate(edge.unknown_rate, edge.unknown_burst),
                        flow=Rate(edge.flow_rate, max(1, edge.flow_rate)),
                    ),
                    pins=pins,
                ).result()
        except ValueError as e:
            raise ConfigError(f"edge.interface {edge.interface}: {e}") from None
        except SteeringError as e:
            if pins is not None:
                pins.remove()
            with contextlib.suppress(OSError):  # an earlier supervisor's, where it had XDP
                detach_cpu_filter(self._media[0])
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

    def _pins(self) -> Pins | None:
        edge = self._config.edge
        try:
            return Pins(folder_of(edge))
        except PinsInUse as e:
            raise ConfigError(f"edge.name: {e.strerror or e}") from None
        except OSError as e:
            self._log.warning("XDP will end with this process, and its flows with the workers", why=str(e))
            return None

    def _worker(self, index: int) -> Child:
        steering, edge, log = self._steering, self._config.edge, self._config.log
        maps = (steering.flows_fd, steering.ssrcs_fd, steering.shedding_fd) if steering else ()
        sockets = tuple(sock.fileno() for sock in self._media)
        spec = Spec(
            edge=edge.name,
            index=index,
            cpu=self._cpus[index],
            lifeline=self._lifeline[0],
            socket=sockets[index],
            not_mine=tuple(fd for fd in sockets if fd != sockets[index]),
            flow_entries=edge.flow_entries,
            flows=maps[0] if maps else -1,
            ssrcs=maps[1] if maps else -1,
            shedding=maps[2] if maps else -1,
            metrics=ports.worker(edge.metrics, index).pair,
            log=(log.level, log.format),
            transceivers=tuple((peer.id, peer.endpoint) for peer in edge.transceivers),
            keys=self._keys,
            key_file=str(self._config.cluster.keys),
            beat=(self._beats.fd, 1 + index),
            instance=self._instance,
        )
        descriptors = (self._lifeline[0], self._beats.fd, *sockets, *maps)
        orders = replace(
            spec,
            lifeline=0,
            socket=0,
            not_mine=(),
            flows=0,
            ssrcs=0,
            shedding=0,
            beat=(0, 0),
            keys=self._lasting_keys(),
        ).dump()
        same = _identity(orders, sockets[index], *maps)
        return Child(f"worker-{index}", "edge.relay.worker", spec.dump(), descriptors, same, 1 + index)

    def _signaling(self) -> Child:
        edge = self._config.edge
        orders = {
            "config": self._config.model_dump_json(),
            "media": (edge.advertise or edge.media).pair,
            "metrics": ports.signaling(edge.metrics).pair,
            "instance": self._instance,
        }
        descriptors = {"socket": self._http.fileno(), "lifeline": self._lifeline[0], "beats": self._beats.fd}
        same = _identity(json.dumps({**orders, "keys": self._lasting_keys().dump()}).encode(), self._http.fileno())
        spec = json.dumps({**orders, "keys": self._keys.dump(), **descriptors}).encode()
        return Child("signaling", "edge.signaling", spec, tuple(descriptors.values()), same, 0)

    def _use(self, keys: ClusterKeys) -> None:
        if self._steering is not None:
            self._steering.set_keys(keys.ufrag)
        self._keys = keys  # and Prometheus hears of it, now that it is true

    def _lasting_keys(self) -> ClusterKeys:
        """What of the keys a child cannot take from the file while it runs."""
        return replace(self._keys, ufrag={}, sealing=0)

    async def run(self) -> bool:
        """Until SIGTERM or SIGINT, when everything ends; or until SIGHUP: True, and everything goes on without this
        process, for one that takes over."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        anew = asyncio.create_task(signals.to_start_anew())
        await asyncio.sleep(0)  # it listens before the signal that waits is heard
        edge = _EdgeCollector(self._cpus, self._config.edge.interface, self._steering, self._attachment)
        held = ufrag_keys(lambda: self._keys)
        metrics.serve(
            "edge.metrics", *self._config.edge.metrics.pair, self._children.restarts, self._children.hung, edge, held
        )
        signals.let_through()
        work = (
            self._children.run(),
            follow(self._key_file, self._use),
            self._mend(),
            self._stay_attached(),
            stop.wait(),
        )
        tasks = [anew, *(asyncio.create_task(each) for each in work)]
        mode = self._attachment.mode if self._attachment is not None else "off"
        notify("READY=1")
        self._log.info("ready", media=self._config.edge.media, http=self._config.edge.http, xdp=mode)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, ConfigError):
                await self._children.end()  # nothing ran yet
            if isinstance(result, Exception):
                raise result  # such as what keeps this host from starting processes
        if stop.is_set():
            notify("STOPPING=1")
            await self._children.end()
        # The loop's handlers go with the loop, and what is left to do is not for a second Ctrl-C to cut short.
        signals.hold_back()
        return not stop.is_set()

    async def _mend(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._store.mend()

    async def _stay_attached(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._steering is not None and self._attachment is not None:
                self._attachment.look()
                self._steering.catch_up()

    def close(self) -> None:
        """Takes XDP off the interface, closes the sockets, and leaves nothing in the store."""
        if self._steering is not None:
            self._steering.close()
        for sock in (*self._media, self._http):
            sock.close()
        self._store.end()
        self._log.info("stopped")


def check(config: Config) -> None:
    """Looks at what can be wrong in a configuration before anything runs. Raises ConfigError or KeyFileError."""
    edge = config.edge
    keys.load(config.cluster.keys)
    apikeys.load(edge.api_keys)
    server_context(edge.tls_certificate, edge.tls_key)
    if not edge.transceivers:
        raise ConfigError("edge.transceivers: at least one [[edge.transceivers]] with id and endpoint is needed")
    cpus("edge.cores", edge.cores)
    if edge.interface and edge.interface not in {name for _, name in socket.if_nameindex()}:
        raise ConfigError(f"edge.interface: this host has no interface {edge.interface!r}")
    for key in ("media", "http", "metrics"):
        # Whether a port is taken cannot be told while an edge runs that may have it.
        listening(f"edge.{key}", getattr(edge, key).host, 0).close()


def _identity(orders: bytes, *descriptors: int) -> str:
    """The same for children that would do the same with the same sockets and maps."""
    about = [kernel.facts(fd).get("map_id") or str(os.fstat(fd).st_ino) for fd in descriptors]
    return identity(orders + " ".join(about).encode(), "edge", "firsthop", "wire")


def run(config: Config) -> None:
    """Runs until SIGTERM; one that came since ``signals.hold_back`` counts. Raises ConfigError or KeyFileError with one
    line.

    Killed, it leaves calls, sockets and XDP to the next one. So it does when it fails, unless nothing ran yet.
    """
    logs.configure(config.log.level, config.log.format, process="edge", edge=config.edge.name)
    check(config)
    edge = config.edge
    store = open_store("edge.name", edge.run / f"{edge.name}.holder", [folder_of(edge)])
    first = not store.names
    try:
        supervisor = Supervisor(config, store)
    except BaseException:
        if first:
            store.end()
        raise
    try:
        if asyncio.run(supervisor.run()):
            store.pass_on()
            signals.start_anew()
    except ConfigError:
        supervisor.close()
        raise
    except OSError as e:
        # Nothing that a person must mend: it ran. The next one may do better.
        raise RuntimeError("the supervisor cannot go on") from e
    supervisor.close()
