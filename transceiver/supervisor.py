"""A transceiver host's parent: it supervises one process a core, or one on any core, each with its own id, link and
metrics.

A process that would be started otherwise now (other code, other configuration) hands its calls over where others have
room, and is replaced as soon as it holds none.
"""

from __future__ import annotations

import hashlib
from typing import Any

from runtime import logs
from runtime.config import Config, Transceiver
from runtime.directory import opened
from runtime.errors import ConfigError
from runtime.families import transceiver as families
from runtime.process import cpus
from runtime.supervision import memory
from runtime.supervision.children import Child, Children
from runtime.supervision.store import Store, open_store
from runtime.supervision.supervisor import Supervisor, supervise
from runtime.tracing import export
from transceiver import agents, compiled
from transceiver.records import folders
from transceiver.survival.vault import size_of
from wire import keys
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["SPARE_NAME", "check", "run"]

SPARE_NAME = "media-spare"


def check(config: Config) -> None:
    """Looks at what can be wrong in a configuration before anything runs. Raises ConfigError or KeyFileError."""
    ours = config.transceiver
    if agents.find(ours.agent) is None:
        raise ConfigError(f"transceiver.agent: no agent called {ours.agent!r}, there is {', '.join(agents.names())}")
    for name in config.agents.versions:
        if name not in agents.names():
            raise ConfigError(f"agents.versions: no agent called {name!r}, there is {', '.join(agents.names())}")
    keys.load(config.cluster.keys)
    folders.check(ours)
    opened.check(config.directory)
    export.check(config.tracing)
    reachable = (ours.advertise or ours.endpoint).address
    if config.directory.redis and reachable is not None and reachable.host in ("0.0.0.0", "::"):
        raise ConfigError(f"transceiver.advertise: edges cannot connect to {ours.endpoint}: name what they reach it by")
    cpus("transceiver.cores", ours.cores)
    if ours.processes[-1].id > MAX_TRANSCEIVER:
        raise ConfigError(f"transceiver.id: {len(ours.places)} of them from {ours.id} on are more than there are")


class HostSupervisor(Supervisor):
    """The processes of one host; ``store`` keeps what must outlive this one."""

    metrics_key = "transceiver.metrics"
    packages = ("transceiver", "rtc", "runtime", "wire")

    def __init__(self, config: Config, store: Store) -> None:
        super().__init__(config, store)
        ours = config.transceiver
        self.metrics_at = ours.metrics
        # Links that stand were made with its secret, so a process with another one is another process.
        self._link = hashlib.blake2b(keys.load(config.cluster.keys).link, digest_size=16).hexdigest()
        self.children = Children(
            [self._process(place, each) for place, each in enumerate(ours.processes)],
            "transceiver.child",
            SPARE_NAME,
            store,
            self._beats,
            families.CHILDREN,
            patient=True,
            most_bytes=ours.memory_mib << 20,
            goodbye_s=ours.drain_s,
        )

    def _process(self, place: int, ours: Transceiver) -> Child:
        ours = ours.model_copy(update={"memory_mib": 0})  # which is not for it to know: another limit is no other spec
        config = self._config.model_copy(update={"transceiver": ours})
        calls = memory.kept(self._store, f"calls-{ours.id}", size_of(ours.max_sessions))
        return self._child(
            "transceiver.child",
            f"media-{ours.id}",
            place,
            {"config": config.model_dump_json(), "calls": calls},
            fds=(calls,),
            lasting={"config": config.model_dump_json(), "link": self._link, "compiled": compiled.reason is None},
            cpu=ours.cores[0] if ours.cores else None,
            process="transceiver",
            id=ours.id,
        )

    def facts(self) -> dict[str, Any]:
        """See Supervisor."""
        ours = self._config.transceiver
        return {"processes": len(ours.places), "cores": list(ours.cores)}


def run(config: Config) -> None:
    """Runs until SIGTERM. Raises ConfigError or KeyFileError with one line for what stands in the way."""
    ours = config.transceiver
    logs.configure(config.log.level, config.log.format, process="transceivers", id=ours.id)
    check(config)
    store = open_store("transceiver.id", ours.run / f"transceiver-{ours.id}.holder")
    supervise(store, lambda: HostSupervisor(config, store))
