"""The edge's parent: opens every socket, owns XDP, starts the children and starts them again when they die.

The sockets stay open here, so a worker that dies leaves its socket's queue and its flows to the next one. It is
also the only process with privileges.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge import apikeys
from edge.children import Child, Children
from edge.steering import Steering, SteeringError, attach_cpu_filter
from edge.tls import server_context
from edge.worker import Spec
from firsthop import logs, metrics
from firsthop.config import Config, split_address
from firsthop.errors import ConfigError, bind_trouble
from firsthop.notify import notify
from wire import keys
from wire.address import pack

__all__ = ["run"]

_SOCKET_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33


class _EdgeCollector(Collector):
    """Who works where, and the first stage of the funnel, read from the kernel when Prometheus asks."""

    def __init__(self, cpus: list[int], steering: Steering | None, mode: str) -> None:
        self._cpus = cpus
        self._steering = steering
        self._mode = mode

    def collect(self) -> Iterator[Metric]:
        workers = GaugeMetricFamily("firsthop_edge_worker_cpu", "The CPU that each worker runs on", labels=["worker"])
        for index, cpu in enumerate(self._cpus):
            workers.add_metric([str(index)], cpu)
        yield workers
        attached = GaugeMetricFamily("firsthop_xdp_attached", "1 while XDP steers", labels=["mode"])
        attached.add_metric([self._mode], 0 if self._steering is None else 1)
        yield attached
        if self._steering is None:
            return
        packets = CounterMetricFamily(
            "firsthop_rx_xdp_packets",
            "Packets seen by XDP; core is where it sent them",
            labels=["verdict", "core"],
        )
        for (verdict, cpu), count in self._steering.counters().items():
            packets.add_metric([verdict, str(cpu)], count)
        yield packets
        yield GaugeMetricFamily("firsthop_xdp_flows", "Flows in the kernel's table", value=self._steering.flow_count())


class Supervisor:
    """Everything that must outlive a worker. Raises ConfigError or KeyFileError for a
    configuration that cannot run."""

    def __init__(self, config: Config) -> None:
        edge = config.edge
        self._config = config
        self._log = logs.get()
        self._keys = keys.load(config.cluster.keys)
        apikeys.load(edge.api_keys)
        server_context(edge.tls_certificate, edge.tls_key)
        if not edge.transceivers:
            raise ConfigError("edge.transceivers: at least one [[edge.transceivers]] with id and endpoint is needed")
        self._cpus = _cpus(edge.cores)
        if self._metrics_address(1 + len(self._cpus))[1] > 65535:
            raise ConfigError(f"edge.metrics {edge.metrics}: signaling and every worker need a port above this one")
        self._media = _media_sockets(edge.media, len(self._cpus))
        self._http = _listening("edge.http", *split_address(edge.http))
        for offset in range(1, 2 + len(self._cpus)):
            # Theirs to open; but a port that is taken is better said now, once, than by a child that keeps dying.
            _listening("edge.metrics", *self._metrics_address(offset)).close()
        self._steering, self._mode = self._steer()
        workers = [self._worker(i) for i in range(len(self._cpus))]
        self._children = Children([*workers, self._signaling()], spare_module="edge.worker")

    def _steer(self) -> tuple[Steering | None, str]:
        edge = self._config.edge
        if not edge.interface:
            self._log.warning("no XDP: edge.interface is empty, the kernel's own hash spreads flows over workers")
            return None, "off"
        if edge.interface not in {name for _, name in socket.if_nameindex()}:
            raise ConfigError(f"edge.interface: this host has no interface {edge.interface!r}")
        host, port = split_address(edge.media)
        steering = None
        try:
            steering = Steering.load(
                port,
                pack(host, port)[:16],
                self._keys.ufrag,
                self._cpus,
                flow_entries=edge.flow_entries,
                unknown_rate=edge.unknown_rate,
                unknown_burst=edge.unknown_burst,
            )
            mode = steering.attach(edge.interface)
        except ValueError as e:
            raise ConfigError(f"edge.interface {edge.interface}: {e}") from None
        except SteeringError as e:
            if steering is not None:
                steering.close()
            self._log.warning(
                "no XDP: forged packets reach the workers, and the kernel's hash spreads flows", why=str(e)
            )
            return None, "off"
        # Only now: without XDP the receiving core says nothing about the flow.
        attach_cpu_filter(self._media[0], self._cpus)
        self._log.info("xdp attached", interface=edge.interface, mode=mode, cores=self._cpus)
        return steering, mode

    def _metrics_address(self, offset: int) -> tuple[str, int]:
        host, port = split_address(self._config.edge.metrics)
        return host, port + offset

    def _worker(self, index: int) -> Child:
        steering, edge, log = self._steering, self._config.edge, self._config.log
        maps = (steering.flows_fd, steering.ssrcs_fd) if steering else ()
        sockets = tuple(sock.fileno() for sock in self._media)
        spec = Spec(
            edge=edge.name,
            index=index,
            cpu=self._cpus[index],
            socket=sockets[index],
            not_mine=tuple(fd for fd in sockets if fd != sockets[index]),
            flows=maps[0] if maps else -1,
            ssrcs=maps[1] if maps else -1,
            metrics=self._metrics_address(2 + index),
            log=(log.level, log.format),
            transceivers=tuple((peer.id, peer.endpoint) for peer in edge.transceivers),
            keys=self._keys,
        )
        return Child(f"worker-{index}", "edge.worker", spec.dump(), (*sockets, *maps))

    def _signaling(self) -> Child:
        spec = {
            "config": self._config.model_dump_json(),
            "keys": self._keys.dump(),
            "socket": self._http.fileno(),
            "media": split_address(self._config.edge.advertise or self._config.edge.media),
            "metrics": self._metrics_address(1),
        }
        return Child("signaling", "edge.signaling", json.dumps(spec).encode(), (self._http.fileno(),))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        edge = _EdgeCollector(self._cpus, self._steering, self._mode)
        metrics.serve("edge.metrics", *self._metrics_address(0), self._children.restarts, edge)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        stopped = asyncio.create_task(stop.wait())
        children = asyncio.create_task(self._children.run())
        notify("READY=1")
        self._log.info("ready", media=self._config.edge.media, http=self._config.edge.http, xdp=self._mode)
        await asyncio.wait((stopped, children), return_when=asyncio.FIRST_COMPLETED)
        notify("STOPPING=1")
        stopped.cancel()
        children.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await children

    def close(self) -> None:
        """Takes XDP off the interface and closes the sockets."""
        if self._steering is not None:
            self._steering.close()
        for sock in (*self._media, self._http):
            sock.close()
        self._log.info("stopped")


def _cpus(wanted: tuple[int, ...]) -> list[int]:
    allowed = sorted(os.sched_getaffinity(0))
    if missing := sorted(set(wanted) - set(allowed)):
        raise ConfigError(f"edge.cores: this process may not use {missing}, only {allowed}")
    if len(set(wanted)) != len(wanted):
        raise ConfigError("edge.cores: a core is named twice")
    return list(wanted) or allowed


def _media_sockets(media: str, count: int) -> list[socket.socket]:
    """One socket a worker, in the order of the workers: the CPU filter answers with places in it."""
    host, port = split_address(media)
    bind_to = (host if ":" in host else f"::ffff:{host}", port)

    def make(share: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _SOCKET_BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        sock.bind(bind_to)
        return sock

    try:
        # Shared ports would let a second edge of the same user bind in silence and take half of the calls.
        make(share=False).close()
        return [make(share=True) for _ in range(count)]
    except OSError as e:
        raise ConfigError(f"edge.media {media}: {bind_trouble(e)}") from None


def _listening(key: str, host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as e:
        sock.close()
        raise ConfigError(f"{key}: {host} port {port}: {bind_trouble(e)}") from None
    return sock


def run(config: Config) -> None:
    """Runs until SIGTERM. Raises ConfigError or KeyFileError with one line."""
    logs.configure(config.log.level, config.log.format, process="edge", edge=config.edge.name)
    supervisor = Supervisor(config)
    try:
        asyncio.run(supervisor.run())
    finally:
        supervisor.close()
