"""One transceiver process, from its configuration to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from typing import Any

import zmq

from rtc.dtls.secure import check_aiortc
from rtc.vad import detector
from runtime import busy, logs, metrics
from runtime.collector import Collector
from runtime.config import Config
from runtime.directory.opened import open_store
from runtime.directory.publishing import publish
from runtime.errors import ConfigError
from runtime.families import media
from runtime.families import transceiver as families
from runtime.followed import follow
from runtime.keyfile import KeyFile, ufrag_keys
from runtime.process import FIRST, drop_capabilities, set_nice
from runtime.supervision import memory, signals, watchdog
from runtime.supervision.beats import HEALTH_PATH, Beat
from runtime.supervision.notify import notify
from runtime.tracing.export import tracing
from transceiver import agents, compiled, counters
from transceiver.gpus import Gpus
from transceiver.load import calibrated
from transceiver.server import Transceiver
from transceiver.supervisor import check
from transceiver.survival.vault import Vault
from transceiver.turns import TURNS
from wire import link

__all__ = ["prepare", "run", "serve"]

_NOT_ANEW = "SIGHUP changes nothing: keys are followed by themselves, and anything else needs a restart"


async def _serve(config: Config, beat: Beat, selector: busy.BusySelector, vault: Vault | None) -> None:
    log = logs.get()
    check(config)
    if compiled.missed(compiled.reason):
        log.warning("packets are served by Python's own form", why=compiled.reason)
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
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    gpus = Gpus()
    gpus.start()
    store = open_store(config.directory)
    ours = config.transceiver
    tracer, exporter = tracing(config.tracing, "firsthop-transceiver", str(ours.id), region=ours.region, zone=ours.zone)
    transceiver = Transceiver(
        config, cluster, socket, lambda: gpus.now, selector=selector, prior=calibrated(), vault=vault, tracer=tracer
    )
    revived = transceiver.keeper.revive()
    ending = _Ending(transceiver, config.transceiver.drain_s, stop)
    for number in (signal.SIGTERM, signal.SIGUSR2):  # without a supervisor none would keep its calls for the next one
        loop.add_signal_handler(number, ending)
    loop.add_signal_handler(signal.SIGUSR1, transceiver.leave)
    signals.let_through()
    load, desk = transceiver.load, transceiver.desk
    gauges = (
        metrics.Gauge(families.SESSIONS, lambda: transceiver.sessions),
        metrics.Gauge(families.COMPILED, lambda: float(compiled.reason is None)),
        metrics.Gauges(families.KEY_SESSIONS, lambda: transceiver.sessions_by_key),
        metrics.Gauge(families.KEPT_CALLS, lambda: len(transceiver.keeper)),
        metrics.Gauges(families.ROOM, lambda: {(agent,): room for agent, room in transceiver.room.items()}),
        metrics.Gauge(families.USED, lambda: load.used),
        metrics.Gauge(families.USED_LIMIT, lambda: load.limit),
        metrics.Gauge(families.LATE, lambda: load.lag_s),
        metrics.Gauges(
            families.DRAIN_CALLS, lambda: dict(zip((("moved",), ("all",)), map(float, desk.drained), strict=True))
        ),
        metrics.Gauge(families.NEIGHBOURS, lambda: desk.neighbours),
        metrics.Gauge(families.DRAINING, lambda: float(desk.draining)),
        metrics.Gauges(media.WAITING, _waiting),
        metrics.Outside(
            media.RX_EXPRESS_SOCKET, lambda: {"express_full": transceiver.express.dropped + transceiver.between.dropped}
        ),
        ufrag_keys(lambda: key_file.keys),
    )
    more = (*transceiver.schedule, TURNS.first_audio, *counters.all_counters, exporter.counts)
    pages = {HEALTH_PATH: beat.health}
    metrics.serve("transceiver.metrics", *config.transceiver.metrics.pair, *gauges, *more, pages=pages)
    watchdog.ready()
    log.info(
        "ready",
        endpoint=config.transceiver.endpoint,
        id=config.transceiver.id,
        agents=agents.names(),
        revived=revived,
        compiled=compiled.reason is None,
    )

    collector = Collector(lambda: transceiver.sessions)
    express = transceiver.express.run(), transceiver.between.run()
    of_transceiver = transceiver.sweep_forever(), transceiver.keeper.run(), *express, collector.run()
    work = (*of_transceiver, follow(key_file, transceiver.use), beat.forever())
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
    context.destroy(linger=2000)  # what was answered last is on its way, on a busy host for longer than one thinks
    exporter.close()
    log.info("stopped")


def _waiting() -> dict[tuple[str, ...], float]:
    now = time.monotonic()
    return {(agent,): TURNS.waiting(agent, now).turns for agent in agents.names()}


class _Ending:
    """What SIGTERM does: the first begins a drain, the second ends that."""

    def __init__(self, transceiver: Transceiver, drain_s: float, stop: asyncio.Event) -> None:
        self._transceiver, self._drain_s, self._stop = transceiver, drain_s, stop
        self._drain: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        if self._drain is not None or not self._drain_s:
            self._stop.set()
            return
        self._drain = asyncio.create_task(self._transceiver.drain(self._drain_s))
        self._drain.add_done_callback(lambda _: self._stop.set())


def prepare() -> None:
    """Does what a process can do before it knows its configuration, so that one which takes over is there at once."""
    for name in agents.names():
        with contextlib.suppress(Exception):  # which is told when it knows where to
            agents.find(name)
    calibrated()


def _load_agents(log: Any) -> None:
    """Imports all agents before there are calls: a package may take seconds to import, and media would wait."""
    for name in agents.names():
        try:
            agents.find(name)
        except Exception as e:  # whatever the import of another package raises
            log.warning("an agent cannot be loaded", agent=name, why=repr(e))


def serve(config: Config, beat: Beat, calls: int = -1) -> None:
    """Runs until SIGTERM, which hands calls over first; at once until SIGINT or a second SIGTERM; after SIGUSR1 until
    there is no call. ``beat`` counts for the supervisor; ``calls`` is the descriptor of memory in which calls outlive
    this process, if there is any. Raises ConfigError or KeyFileError with one line for what
    stands in the way."""
    try:
        check_aiortc()
    except RuntimeError as e:
        sys.exit(f"firsthop transceiver: {e}")
    vault = _vault(calls) if calls >= 0 else None
    busy.run(lambda selector: _serve(config, beat, selector, vault))


def _vault(fd: int) -> Vault:
    buffer, free = memory.mapped(fd)
    return Vault(buffer, free=free)


def run(config: Config) -> None:
    """Runs a transceiver that has no supervisor, as ``serve`` does."""
    logs.configure(config.log.level, config.log.format, process="transceiver", id=config.transceiver.id)
    signal.signal(signal.SIGHUP, lambda *_: logs.get().warning(_NOT_ANEW))
    set_nice(FIRST)
    drop_capabilities()
    serve(config, watchdog.MainBeat())
