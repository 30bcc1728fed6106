"""A transceiver host's parent: one process a core, each with its own id, link and metrics, started again when it dies.

Killed itself, it leaves them at work, and the next one takes them over (``runtime/store.py``). On SIGHUP it becomes
the next one. A process that would be started otherwise now (other code, other configuration) is replaced as soon as it
holds no call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

from runtime import logs, metrics, signals
from runtime.beats import Beats
from runtime.children import Child, Children, identity
from runtime.config import Config, Transceiver
from runtime.errors import ConfigError
from runtime.notify import notify
from runtime.process import cpus
from runtime.store import Store, lifeline, open_store
from transceiver import agents
from transceiver.records import files as records
from wire import keys
from wire.ufrag import MAX_TRANSCEIVER

__all__ = ["SPARE_NAME", "check", "run"]

SPARE_NAME = "media-spare"


def check(config: Config) -> None:
    """Looks at what can be wrong in a configuration before anything runs. Raises ConfigError or KeyFileError."""
    ours = config.transceiver
    keys.load(config.cluster.keys)
    if agents.find(ours.agent) is None:
        raise ConfigError(f"transceiver.agent: no agent called {ours.agent!r}, there is {', '.join(agents.names())}")
    records.check(ours)
    cpus("transceiver.cores", ours.cores)
    if ours.processes[-1].id > MAX_TRANSCEIVER:
        raise ConfigError(f"transceiver.id: {len(ours.cores)} of them from {ours.id} on are more than there are")


class Supervisor:
    """The processes of one host; ``store`` keeps what must outlive this one."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store
        self._lifeline = lifeline(store)
        self._beats = Beats(store)
        children = [self._child(place, each) for place, each in enumerate(config.transceiver.processes)]
        self._children = Children(
            children, "transceiver.child", SPARE_NAME, store, self._beats, "firsthop_transceiver", patient=True
        )

    def _child(self, place: int, ours: Transceiver) -> Child:
        config = self._config.model_copy(update={"transceiver": ours})
        orders = {"config": config.model_dump_json(), "cpu": ours.cores[0]}
        spec = json.dumps({**orders, "lifeline": self._lifeline[0], "beat": (self._beats.fd, place)}).encode()
        same = identity(json.dumps(orders).encode(), "transceiver", "firsthop", "wire")
        descriptors = (self._lifeline[0], self._beats.fd)
        return Child(f"media-{ours.id}", "transceiver.child", spec, descriptors, same, place)

    async def run(self) -> bool:
        """Until SIGTERM or SIGINT, when everything ends; or until SIGHUP: True, and everything goes on without this
        process, for one that takes over."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        metrics.serve(
            "transceiver.metrics", *self._config.transceiver.metrics.pair, self._children.restarts, self._children.hung
        )
        anew = asyncio.create_task(signals.to_start_anew())
        await asyncio.sleep(0)  # it listens before the signal that waits is heard
        signals.let_through()
        tasks = [anew, *(asyncio.create_task(each) for each in (self._children.run(), self._mend(), stop.wait()))]
        notify("READY=1")
        cores = self._config.transceiver.cores
        logs.get().info("ready", processes=len(cores), cores=list(cores))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
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


def run(config: Config) -> None:
    """Runs until SIGTERM. Raises ConfigError or KeyFileError with one line for what stands in the way."""
    ours = config.transceiver
    logs.configure(config.log.level, config.log.format, process="transceivers", id=ours.id)
    check(config)
    store = open_store("transceiver.id", ours.run / f"transceiver-{ours.id}.holder")
    first = not store.names
    try:
        supervisor = Supervisor(config, store)
        anew = asyncio.run(supervisor.run())
    except BaseException:
        if first:
            with contextlib.suppress(OSError):
                store.end()
        raise
    if anew:
        store.pass_on()
        signals.start_anew()
    store.end()
    logs.get().info("stopped")
