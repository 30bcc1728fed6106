"""The base of both supervisors: the parent of a service's processes, as far as the edge's and the transceivers' are
alike.

It starts its children, and starts them again when they die, hang or hold too much memory
(``runtime/supervision/children.py``). When it is killed, it leaves them at work, and the next supervisor takes them
over (``runtime/supervision/store.py``). On SIGHUP it becomes the next one: the program that is installed now, with the
configuration as it is now. On SIGUSR2 it ends and leaves everything to the next one, which systemd starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import Any

from prometheus_client.registry import Collector

from runtime import logs, metrics
from runtime.address import Address
from runtime.config import Config
from runtime.errors import ConfigError
from runtime.supervision import orphans, signals, watchdog
from runtime.supervision.beats import HEALTH_PATH, Beats
from runtime.supervision.child import ChildSpec
from runtime.supervision.children import Child, Children, identity
from runtime.supervision.notify import notify
from runtime.supervision.store import Store, lifeline

__all__ = ["Supervisor", "supervise"]


class _Asked(Enum):
    """The wish that ends a supervisor: that everything ends, goes on in a new program, or waits for the next one."""

    END = auto()
    START_ANEW = auto()
    LEAVE = auto()


class Supervisor:
    """The base of both supervisors. A subclass makes ``children`` in its ``__init__``, of what ``_child`` gives.
    Metrics are served at ``metrics_at``, which the configuration key ``metrics_key`` gives.
    ``packages`` are those whose code the children run."""

    metrics_key: str
    packages: tuple[str, ...]
    children: Children
    metrics_at: Address

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store
        self._log = logs.get()
        self._lifeline, _ = lifeline(store)
        self._beats = Beats(store)
        self._beat = watchdog.MainBeat()

    def collectors(self) -> Sequence[Collector]:
        """More metrics than those of the children."""
        return ()

    def work(self) -> Sequence[Coroutine[Any, Any, object]]:
        """Further work that goes on until this ends. None of it returns; what it raises ends the supervisor."""
        return ()

    async def leave(self) -> None:
        """Brings to an end, after SIGTERM, what is to end before the children are told to. They are looked after
        meanwhile; a second SIGTERM cuts it short."""

    def facts(self) -> dict[str, Any]:
        """The facts in the log line that tells that this is ready."""
        return {}

    def close(self) -> None:
        """Ends for good, and leaves nothing for a next supervisor."""
        self._store.end()
        self._log.info("stopped")

    def _child(
        self,
        module: str,
        name: str,
        place: int,
        own: dict[str, Any],
        *,
        fds: tuple[int, ...] = (),
        lasting: dict[str, Any] | None = None,
        cpu: int | None = None,
        **log: Any,
    ) -> Child:
        """A child that runs ``module``. ``own`` is what its program is told, with the descriptors ``fds`` that it
        inherits. ``lasting`` stands for ``own`` where two children are compared: it leaves out numbers of descriptors,
        and what a child follows by itself. ``log`` is on each of its lines."""
        log = {"level": self._config.log.level, "form": self._config.log.format, **log}
        spec = ChildSpec(name, own, log, self._lifeline, (self._beats.fd, place), cpu)
        same = json.dumps([own if lasting is None else lasting, log, cpu]).encode()
        fds = (self._lifeline, self._beats.fd, *fds)
        return Child(name, module, spec.dump(), fds, identity(same, *self.packages), place)

    async def run(self) -> _Asked:
        """Runs until SIGTERM or SIGINT, when everything ends; at SIGTERM children may finish what they do, unless
        it comes twice. Or it runs until SIGHUP or SIGUSR2. Then everything goes on without this process, for one that
        takes over. Raises what keeps this host from running it, such as ConfigError."""
        loop = asyncio.get_running_loop()
        stop, hurry, leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

        def asked_to_end() -> None:
            if stop.is_set():
                hurry.set()
            stop.set()

        def interrupted() -> None:
            hurry.set()
            stop.set()

        loop.add_signal_handler(signal.SIGTERM, asked_to_end)
        loop.add_signal_handler(signal.SIGINT, interrupted)
        loop.add_signal_handler(signal.SIGUSR2, leave.set)
        anew = asyncio.create_task(signals.to_start_anew())
        await asyncio.sleep(0)  # it listens before the signal that waits is heard
        collectors = (*self.children.metrics, *self.collectors())
        pages = {HEALTH_PATH: self._beat.health}
        metrics.serve(self.metrics_key, *self.metrics_at.pair, *collectors, pages=pages)
        signals.let_through()
        work = (self.children.run(), self._beat.forever(), self._mend(), self._left(stop, hurry), *self.work())
        tasks = [anew, *(asyncio.create_task(each) for each in (leave.wait(), *work))]
        if os.getpid() == 1:
            tasks.append(asyncio.create_task(orphans.reap()))
        watchdog.ready()
        self._log.info("ready", **self.facts())
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, ConfigError):
                await self.children.end()  # nothing ran yet
            if isinstance(result, Exception):
                raise result  # such as what keeps this host from starting processes
        if stop.is_set():
            await self.children.end(hurry)
        # The loop's handlers go with the loop, and what is left to do is not for a second Ctrl-C to cut short.
        signals.hold_back()
        return _Asked.END if stop.is_set() else _Asked.LEAVE if leave.is_set() else _Asked.START_ANEW

    async def _left(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        await stop.wait()
        notify("STOPPING=1")
        waits = [asyncio.create_task(hurry.wait()), asyncio.create_task(self.leave())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _mend(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._store.mend()


def supervise(store: Store, make: Callable[[], Supervisor]) -> None:
    """Runs the supervisor that ``make`` makes with ``store``, until SIGTERM. Raises ConfigError or KeyFileError with
    one line for what stands in the way.

    Killed, or told by SIGUSR2 to leave, it leaves everything to the next one. So it does when it fails, unless nothing
    ran yet.
    """
    first, ran = not store.names, Children.any_in(store)
    try:
        supervisor = make()
    except BaseException:
        if first:
            with contextlib.suppress(OSError):
                store.end()
        raise
    try:
        match asyncio.run(supervisor.run()):
            case _Asked.START_ANEW:
                store.pass_on()
                watchdog.ahead()
                signals.start_anew()
            case _Asked.LEAVE:
                logs.get().info("left to the next one")
                signals.leave()
            case _Asked.END:
                pass
    except ConfigError:
        if not ran:
            supervisor.close()
        raise
    except OSError as e:
        # Nothing that a person must mend: it ran. The next one may do better.
        raise RuntimeError("the supervisor cannot go on") from e
    supervisor.close()
