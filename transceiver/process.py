"""One transceiver process, from its configuration to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from typing import Any

import zmq

from rtc.dtls.secure import check_aiortc
from rtc.vad import detector
from runtime import logs, metrics
from runtime.config import Config
from runtime.directory.opened import open_store
from runtime.directory.publishing import publish
from runtime.errors import ConfigError
from runtime.followed import follow
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.process import FIRST, drop_capabilities, set_nice
from runtime.supervision import signals
from runtime.supervision.beats import Beat
from runtime.supervision.notify import notify
from transceiver import agents, counters
from transceiver.gpus import Gpus
from transceiver.server import Transceiver
from transceiver.supervisor import check
from wire import link

__all__ = ["run", "serve"]

_NOT_ANEW = "SIGHUP changes nothing: keys are followed by themselves, and anything else needs a restart"


async def _serve(config: Config, beat: Beat) -> None:
    log = logs.get()
    check(config)
    detector.load(config.transceiver.vad)
    _load_agents(log)
    key_file = KeyFile(config.cluster.keys, log)
    cluster = key_file.keys
    context = zmq.Context[zmq.Socket[bytes]]()
    try:
        socket = link.router(context, config.transceiver.endpoint, cluster)
    except zmq.ZMQError as e:
        raise ConfigError(f"transceiver.endpoint {config.transceiver.endpoint}: {e.strerror}") from None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gpus = Gpus()
    gpus.start()
    store = open_store(config.directory)
    transceiver = Transceiver(config, cluster, socket, lambda: gpus.now)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, transceiver.leave)
    signals.let_through()
    sessions = metrics.Gauge("firsthop_transceiver_sessions", "Calls held now", lambda: transceiver.sessions)
    by_key = metrics.Gauges(
        "firsthop_transceiver_key_sessions",
        "Calls held now, by the key that sealed their ufrag",
        ("id",),
        lambda: transceiver.sessions_by_key,
    )
    held = ufrag_keys(lambda: key_file.keys)
    more = (*transceiver.schedule, *counters.all_counters)
    metrics.serve("transceiver.metrics", *config.transceiver.metrics.pair, sessions, by_key, held, *more)
    gc.freeze()  # what is here stays: looking through it for garbage would be a pause of 40 ms for every call
    notify("READY=1")
    log.info("ready", endpoint=config.transceiver.endpoint, id=config.transceiver.id, agents=agents.names())

    work = (transceiver.sweep_forever(), follow(key_file, transceiver.use), beat.forever())
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(each) for each in work]
    if config.directory.redis:
        tasks.append(asyncio.create_task(publish(store, transceiver.report, log)))
    tasks += [asyncio.create_task(event.wait()) for event in (stop, transceiver.idle)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    notify("STOPPING=1")
    await transceiver.close()
    await store.close()
    context.destroy(linger=200)
    log.info("stopped")


def _load_agents(log: Any) -> None:
    """Imports all agents before there are calls: a package may take seconds to import, and media would wait."""
    for name in agents.names():
        try:
            agents.find(name)
        except Exception as e:  # whatever the import of another package raises
            log.warning("an agent cannot be loaded", agent=name, why=repr(e))


def serve(config: Config, beat: Beat) -> None:
    """Runs until SIGTERM, or after SIGUSR1 until there is no call; ``beat`` counts for the supervisor. Raises
    ConfigError or KeyFileError with one line for what stands in the way."""
    try:
        check_aiortc()
    except RuntimeError as e:
        sys.exit(f"firsthop transceiver: {e}")
    asyncio.run(_serve(config, beat))


def run(config: Config) -> None:
    """Runs a transceiver that has no supervisor, as ``serve`` does."""
    logs.configure(config.log.level, config.log.format, process="transceiver", id=config.transceiver.id)
    signal.signal(signal.SIGHUP, lambda *_: logs.get().warning(_NOT_ANEW))
    set_nice(FIRST)
    drop_capabilities()
    serve(config, Beat(-1, 0))
