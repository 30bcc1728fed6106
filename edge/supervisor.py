"""The edge's parent: it opens every socket, owns XDP, and supervises the workers and signaling.

The sockets stay open here, so a worker that dies leaves its socket's queue and its flows to the next one. What must
outlive this process too is in a store (sockets and children, ``runtime/supervision/store.py``) or pinned (XDP,
``edge/xdp/pins.py``), and the next supervisor takes it over. This is also the only process with privileges.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client.registry import Collector

from edge import apikeys, turnsecrets
from edge.between import Between
from edge.directory import Transceiver
from edge.directory_file import Listings, announce, followed, prepare
from edge.draining import empty, mark, others_found
from edge.express import Express
from edge.relay.spec import SPARE_NAME, Sister, Spec
from edge.sockets import flows_endpoint, http_socket, listening, media_sockets
from edge.tls import server_context
from edge.xdp import kernel
from edge.xdp.installed import Xdp
from edge.xdp.pins import folder_of
from runtime import logs, ports
from runtime.config import Config, Edge
from runtime.directory import opened
from runtime.errors import ConfigError
from runtime.families import edge as families
from runtime.followed import follow
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.metrics import Gauges
from runtime.process import cpus, instance
from runtime.supervision.children import Child, Children
from runtime.supervision.store import Store, open_store
from runtime.supervision.supervisor import Supervisor, supervise
from runtime.tracing import export
from wire import keys
from wire.express import door_of
from wire.keys import ClusterKeys

__all__ = ["check", "run"]


class EdgeSupervisor(Supervisor):
    """The parent of an edge: it owns everything that must outlive a worker; ``store`` keeps what must outlive this as
    well. Raises ConfigError or KeyFileError for a configuration that cannot run."""

    metrics_key = "edge.metrics"
    packages = ("edge", "bpf", "runtime", "wire")

    def __init__(self, config: Config, store: Store) -> None:
        edge = config.edge
        check(config)
        children_run = Children.any_in(store)
        super().__init__(config, store)
        self._key_file = KeyFile(config.cluster.keys, self._log)
        self._keys = self._key_file.keys
        self._sister_files = [KeyFile(row.keys, self._log) for row in edge.clusters]
        self._cpus = cpus("edge.cores", edge.cores)
        like_workers = len(self._cpus) + (edge.backbone is not None)
        of_children = [ports.signaling(edge.metrics), *(ports.worker(edge.metrics, i) for i in range(like_workers))]
        for address in [edge.metrics, *([] if children_run else of_children)]:
            # Opened later, and by children; but a port that is taken is better said now than by one that keeps dying.
            listening("edge.metrics", *address.pair).close()
        self._instance = instance(edge.run)
        with contextlib.suppress(OSError):
            mark(edge).unlink()  # of one that was killed while it drained
        self._http = http_socket(edge.http, store)
        self._express = Express(
            edge,
            self._instance,
            lambda: self._keys,
            lambda: self._xdp.express,
            store,
            self._log,
            mode=lambda: self._xdp.mode,
        )
        self._media = media_sockets(edge.media, len(self._cpus), store, self._express.turn_away())
        self._xdp = Xdp(edge, self._keys.ufrag, self._sister_keys, self._cpus, self._media, self._log)
        self._express.take_over()
        self._transceivers = [Transceiver(peer.id, str(peer.endpoint)) for peer in edge.transceivers]
        self._directory = announce(_directory_path(edge), self._transceivers, self._log)
        self._found = prepare(_found_path(edge), self._log, keep=bool(config.directory.redis))
        self._between = Between(
            edge,
            lambda: self._keys,
            lambda: self._xdp.ways,
            lambda: self._xdp.inner,
            self._express.local,
            Listings(followed(self._directory, self._transceivers, self._log), followed(self._found, (), self._log)),
            self._log,
        )
        self._express.beside = self._between.gauges
        workers = [self._worker(i) for i in range(len(self._cpus))]
        gateway = [self._gateway()] if edge.backbone is not None else []
        self.children = Children(
            [*workers, *gateway, self._signaling()],
            "edge.relay.worker",
            SPARE_NAME,
            store,
            self._beats,
            families.CHILDREN,
            most_bytes=edge.memory_mib << 20,
        )
        self.metrics_at = edge.metrics

    def _worker(self, index: int) -> Child:
        edge, maps = self._config.edge, self._xdp.maps or ()
        sockets = tuple(sock.fileno() for sock in self._media)
        spec = replace(
            self._spec(index),
            cpu=self._cpus[index],
            socket=sockets[index],
            not_mine=tuple(fd for fd in sockets if fd != sockets[index]),
            flows=maps[0] if maps else -1,
            ssrcs=maps[1] if maps else -1,
            shedding=maps[2] if maps else -1,
            backs=maps[3] if maps and edge.between_hosts else -1,
            ways=maps[4] if maps and edge.between_hosts else -1,
            flows_to=flows_endpoint(edge, shared=bool(self._config.directory.redis)),
            flows_from=tuple(row.endpoint for row in edge.behind_one_address),
            sisters=tuple(
                Sister(row.name, str(row.keys), tuple(map(str, row.edges)), file.keys)
                for row, file in zip(edge.clusters, self._sister_files, strict=True)
            ),
        )
        return self._child(
            "edge.relay.worker",
            f"worker-{index}",
            1 + index,
            spec.dump(),
            fds=(*sockets, *maps),
            lasting={**_lasting(spec), "same": _identities(sockets[index], *maps)},
            cpu=spec.cpu,
            process="worker",
            worker=index,
        )

    def _gateway(self) -> Child:
        """One more worker, to which edges of other clusters pass on what is for calls of this one."""
        place = len(self._cpus)
        spec = replace(self._spec(place), cpu=self._cpus[-1], backbone=str(self._config.edge.backbone))
        return self._child(
            "edge.relay.worker",
            "gateway",
            1 + place,
            spec.dump(),
            fds=spec.not_mine,
            lasting=_lasting(spec),
            process="gateway",
        )

    def _spec(self, index: int) -> Spec:
        """The spec of a worker that has no socket, no maps and no other edges yet."""
        edge = self._config.edge
        return Spec(
            edge=edge.name,
            index=index,
            cpu=-1,
            socket=-1,
            not_mine=tuple(sock.fileno() for sock in self._media),
            flow_entries=edge.flow_entries,
            flows=-1,
            ssrcs=-1,
            shedding=-1,
            metrics=ports.worker(edge.metrics, index).pair,
            transceivers=tuple((transceiver.id, transceiver.endpoint) for transceiver in self._transceivers),
            directory=self._directory,
            found=self._found,
            keys=self._keys,
            key_file=str(self._config.cluster.keys),
            instance=self._instance,
        )

    def _signaling(self) -> Child:
        listed = tuple((transceiver.id, transceiver.endpoint) for transceiver in self._transceivers)
        # What it follows or need not know makes no other spec.
        edge = self._config.edge.model_copy(update={"transceivers": (), "memory_mib": 0, "drain_s": 0})
        told = {
            "config": self._config.model_copy(update={"edge": edge}).model_dump_json(),
            "metrics": ports.signaling(edge.metrics).pair,
            "instance": self._instance,
            "directory": self._directory,
            "found": self._found,
        }
        http = self._http.fileno()
        lasting = {**told, "keys": _lasting_keys(self._keys).dump(), "transceivers": () if self._directory else listed}
        return self._child(
            "edge.signaling",
            "signaling",
            0,
            {**told, "keys": self._keys.dump(), "transceivers": listed, "socket": http},
            fds=(http,),
            lasting={**lasting, "same": _identities(http)},
            process="signaling",
        )

    @property
    def _sister_keys(self) -> list[dict[int, bytes]]:
        """The ufrag keys of each other cluster whose calls are passed on."""
        return [file.keys.ufrag for file in self._sister_files]

    def _use(self, keys: ClusterKeys) -> None:
        self._xdp.use(keys.ufrag, self._sister_keys)
        self._keys = keys  # and Prometheus hears of it, now that it is true

    def _use_sisters(self, _: ClusterKeys) -> None:
        self._xdp.use(self._keys.ufrag, self._sister_keys)

    def collectors(self) -> tuple[Collector, ...]:
        """See Supervisor."""
        cpus: dict[tuple[str, ...], float] = {(str(index),): cpu for index, cpu in enumerate(self._cpus)}
        workers = Gauges(families.WORKER_CPU, lambda: cpus)
        return workers, self._xdp, self._express.metrics, ufrag_keys(lambda: self._keys)

    def work(self) -> tuple[Coroutine[Any, Any, object], ...]:
        """See Supervisor."""
        sisters = [follow(file, self._use_sisters) for file in self._sister_files]
        return (
            follow(self._key_file, self._use),
            *sisters,
            self._xdp.stay(),
            self._express.serve(),
            self._between.serve(),
        )

    async def leave(self) -> None:
        """See Supervisor. Where there are other edges, new calls are for them, and this one's have time to end."""
        edge = self._config.edge
        if edge.drain_s and (edge.other_edges or await others_found(edge)):
            with contextlib.suppress(OSError):
                mark(edge).touch()
            await empty(edge, len(self._cpus) + (edge.backbone is not None), self._log)

    def facts(self) -> dict[str, Any]:
        """See Supervisor."""
        return {"media": self._config.edge.media, "http": self._config.edge.http, "xdp": self._xdp.mode}

    def close(self) -> None:
        """See Supervisor. Takes XDP off the interface and closes the sockets."""
        self._xdp.close()
        self._express.close()
        for sock in (*self._media, self._http):
            sock.close()
        for path in (_directory_path(self._config.edge), _found_path(self._config.edge), mark(self._config.edge)):
            with contextlib.suppress(OSError):
                path.unlink()
        super().close()


def check(config: Config) -> None:
    """Looks at what can be wrong in a configuration before anything runs. Raises ConfigError or KeyFileError."""
    edge = config.edge
    ours = keys.load(config.cluster.keys)
    for row in edge.clusters:
        if keys.load(row.keys).link in (ours.link, ours.shared().link):
            raise ConfigError(f"edge.clusters: {row.name}: {row.keys} has this cluster's own keys")
    apikeys.load(edge.api_keys)
    server_context(edge.tls_certificate, edge.tls_key)
    for server in edge.ice_servers:
        if server.secret_file is not None:
            turnsecrets.load(server.secret_file)
    if not edge.transceivers and not config.directory.redis:
        raise ConfigError(
            "edge.transceivers: at least one [[edge.transceivers]] with id and endpoint is needed, or directory.redis"
        )
    opened.check(config.directory)
    export.check(config.tracing)
    cpus("edge.cores", edge.cores)
    if edge.interface and edge.interface not in {name for _, name in socket.if_nameindex()}:
        raise ConfigError(f"edge.interface: this host has no interface {edge.interface!r}")
    for key in ("media", "http", "metrics"):
        # Whether a port is taken cannot be told while an edge runs that may have it.
        listening(f"edge.{key}", getattr(edge, key).host, 0).close()


def _lasting_keys(keys: ClusterKeys) -> ClusterKeys:
    """The part of the keys that a child cannot take from the file while it runs."""
    return replace(keys, ufrag={}, sealing=0)


def _lasting(spec: Spec) -> dict[str, Any]:
    """The part of a worker's spec by which two are compared."""
    return replace(
        spec,
        socket=0,
        not_mine=(),
        flows=0,
        ssrcs=0,
        shedding=0,
        backs=min(0, spec.backs),
        ways=min(0, spec.ways),
        keys=_lasting_keys(spec.keys),
        transceivers=() if spec.directory else spec.transceivers,
        sisters=tuple(replace(sister, keys=_lasting_keys(sister.keys)) for sister in spec.sisters),
    ).dump()


def _directory_path(edge: Edge) -> Path:
    return edge.run / f"{edge.name}.transceivers"


def _found_path(edge: Edge) -> Path:
    return edge.run / f"{edge.name}.found"


def _identities(*descriptors: int) -> list[str]:
    """Values that are equal for the same sockets and maps, whatever their descriptors are."""
    return [kernel.facts(fd).get("map_id") or str(os.fstat(fd).st_ino) for fd in descriptors]


def run(config: Config) -> None:
    """Runs until SIGTERM; one that came since ``signals.hold_back`` counts. Raises ConfigError or KeyFileError with one
    line."""
    logs.configure(config.log.level, config.log.format, process="edge", edge=config.edge.name)
    check(config)
    edge = config.edge
    leave = [folder_of(edge), _directory_path(edge), _found_path(edge), door_of(edge.run, edge.name)]
    store = open_store("edge.name", edge.run / f"{edge.name}.holder", leave)
    supervise(store, lambda: EdgeSupervisor(config, store))
