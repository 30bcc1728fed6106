"""Keeps a supervisor's children alive: who dies or hangs is started again, and who keeps dying is waited with.

Importing what a child needs takes a quarter of a second or more, which callers would hear. So one process more than
there are has done that already and waits for its orders: when one dies it takes the place in a few milliseconds, and
another becomes the spare.

Children outlive the supervisor. Its successor finds them in the store and goes on watching; those that serve other
orders than it would give (another configuration, other code) are replaced one after the other.

One hangs when its count (``runtime.beats``) stands still while this process looked at it several times, a second
apart. Looks are counted and not seconds: where the whole machine stood still there was none meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime import logs
from runtime.beats import EVERY_S, Beats
from runtime.errors import ConfigError
from runtime.metrics import Tally
from runtime.process import MEND
from runtime.store import Store

__all__ = ["Child", "Children", "identity"]

_HEALTHY_AFTER_S = 1.0
_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
_GOODBYE_S = 5.0
# A new worker needs the cores more than the next spare does.
_SETTLE_S = 1.0
_WARM_WITHIN_S = 10.0
_KEPT = "child-"
# Looks at a child whose count stands still before it is taken to hang, and at one that has yet to import everything.
_HANGS_AFTER, _BEGINS_WITHIN = 4, 60


@dataclass(frozen=True, slots=True)
class Child:
    """``module`` is run with ``spec`` on standard input and the descriptors ``fds`` inherited. Two with the same
    ``identity`` do the same. It counts at ``place``, which is its own."""

    name: str
    module: str
    spec: bytes
    fds: tuple[int, ...]
    identity: str
    place: int

    @property
    def kept_as(self) -> str:
        """What the store calls its pidfd."""
        return f"{_KEPT}{self.name}@{self.identity}"


def identity(orders: bytes, *packages: str) -> str:
    """The same for children that would do the same: same orders, and same code in these packages."""
    digest = hashlib.blake2b(orders, digest_size=8)
    for package in packages:
        for file in sorted((Path(__file__).parent.parent / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


class _Process:
    """A process by its pidfd: started here, or by a supervisor before this one."""

    def __init__(self, pidfd: int, started: subprocess.Popen[bytes] | None = None) -> None:
        self.pidfd = pidfd
        self.code: int | None = None  # of one that is not our child nobody can tell
        self.gone = asyncio.Event()
        self._started = started
        asyncio.get_running_loop().add_reader(pidfd, self._reap)

    @classmethod
    def start(cls, module: str, fds: tuple[int, ...]) -> _Process:
        started = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, pass_fds=fds)  # noqa: S603
        return cls(os.pidfd_open(started.pid), started)

    @property
    def name(self) -> str:
        """What it calls itself, once it has imported everything."""
        with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{self.pidfd}") as file:
            pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
            return Path(f"/proc/{pid}/comm").read_text().strip()
        return ""

    def order(self, spec: bytes) -> None:
        """What it waits for on its standard input."""
        assert self._started is not None
        assert self._started.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead already, which will show
            self._started.stdin.write(spec)
            self._started.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def end(self) -> None:
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.gone.wait(), _GOODBYE_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.gone.wait()

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        if self._started is not None:
            self.code = self._started.wait()
        else:
            # Ours after all, where the supervisor only changed its program.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self.gone.set()

    def close(self) -> None:
        """Lets go of it; not before the store has."""
        if self._started is not None and self._started.stdin is not None:
            self._started.stdin.close()
        os.close(self.pidfd)


class Children:
    """Runs ``children``. Those of ``spare_module`` have a spare, which calls itself ``spare_name`` when it is ready; it
    inherits the descriptors of all of them, and closes those that turn out not to be its own. Names of metrics begin
    with ``prefix``. Where ``patient``, those whose orders have changed end when they want to: SIGUSR1 tells them."""

    def __init__(
        self,
        children: list[Child],
        spare_module: str,
        spare_name: str,
        store: Store,
        beats: Beats,
        prefix: str,
        *,
        patient: bool = False,
    ) -> None:
        names = [child.name for child in children]
        self.restarts = Tally(f"{prefix}_restarts", "Children that died and were started again", names, label="child")
        self.hung = Tally(f"{prefix}_hung", "Children that hung and were killed for it", names, label="child")
        self._beats = beats
        self._patient = patient
        self._any_began = False
        self._children = children
        self._spare_module = spare_module
        self._spare_name = spare_name
        self._spare_fds = tuple({fd for child in children if child.module == spare_module for fd in child.fds})
        self._spare: _Process | None = None
        self._spare_gone = asyncio.Event()
        self._store = store
        self._running: dict[str, _Process] = {}
        self._replacing = asyncio.Lock()
        self._log = logs.get()

    async def run(self) -> None:
        """Never returns; it raises what keeps this host from starting processes, such as ConfigError where the first
        child finds that its configuration cannot be. Cancelled, it leaves them running, but for the spare."""
        wanted = {child.kept_as for child in self._children}
        found = {name: self._adopt(name) for name in self._store.names if name.startswith(_KEPT)}
        self._any_began = bool(found)
        outdated = {name: process for name, process in found.items() if name not in wanted}
        tasks = [asyncio.create_task(self._keep_spare())]
        for child in self._children:
            theirs = [(name, p) for name, p in outdated.items() if name.startswith(f"{_KEPT}{child.name}@")]
            for name, _ in theirs:
                del outdated[name]
            tasks.append(asyncio.create_task(self._keep(child, found.get(child.kept_as), theirs)))
        tasks += [asyncio.create_task(self._dismiss(name, process)) for name, process in outdated.items()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            if self._spare is not None:
                # Without orders it would end by itself, but stay a zombie of whoever takes over by exec.
                self._spare.signal(signal.SIGKILL)
                await self._spare.gone.wait()
                self._spare.close()
        raise next(result for result in results if isinstance(result, Exception))

    async def end(self) -> None:
        """Ends them all. To be called when ``run`` has ended."""
        await asyncio.gather(*(process.end() for process in self._running.values()))

    def _adopt(self, kept_as: str) -> _Process:
        pidfd = self._store.take(kept_as)
        assert pidfd is not None
        process = self._running[kept_as] = _Process(pidfd)
        return process

    async def _keep(self, child: Child, running: _Process | None, outdated: list[tuple[str, _Process]]) -> None:
        loop = asyncio.get_running_loop()
        if running is not None:
            self._log.info("took a child over", child=child.name)
        if outdated and self._patient:
            self._log.info("a child's orders have changed: it is replaced when it has nothing to do", child=child.name)
            await asyncio.gather(*(self._dismiss(name, process) for name, process in outdated))
        elif outdated:
            async with self._replacing:
                if running is None and child.module == self._spare_module:
                    await self._spare_is_warm()
                self._log.info("replacing a child whose orders have changed", child=child.name)
                await asyncio.gather(*(self._dismiss(name, process) for name, process in outdated))
                running = running or self._begin(child)
        failures = 0
        while True:
            began = loop.time()
            looks = _BEGINS_WITHIN
            if running is not None:
                looks = _HANGS_AFTER if self._beats.lasting else sys.maxsize
            process = running or self._begin(child)
            running = None
            await self._watch(child, process, looks)
            self._forget(child.kept_as)
            if process.code == MEND and not self._any_began:
                raise ConfigError(f"{child.name} cannot run: see the line before")
            failures = 0 if loop.time() - began > _HEALTHY_AFTER_S else failures + 1
            wait = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            self.restarts[child.name] += 1
            self._log.error("child died, starting it again", child=child.name, code=process.code, in_s=wait)
            await asyncio.sleep(wait)

    async def _watch(self, child: Child, process: _Process, looks: int) -> None:
        """Returns when it has ended; one that hangs is killed. So many ``looks`` may find its count as it is now."""
        last, still = self._beats.count(child.place), 0
        while not process.gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.gone.wait(), EVERY_S)
                return
            if (count := self._beats.count(child.place)) != last:
                last, still, looks, self._any_began = count, 0, _HANGS_AFTER, True
                continue
            still += 1
            if still == looks:
                self.hung[child.name] += 1
                self._log.error("child hangs, killing it", child=child.name, for_s=still * EVERY_S)
                process.signal(signal.SIGKILL)

    def _begin(self, child: Child) -> _Process:
        process = self._take_spare(child) or _Process.start(child.module, child.fds)
        # Kept before it gets its orders: one that has orders is known to whoever comes after us.
        self._running[child.kept_as] = process
        self._store.keep(child.kept_as, process.pidfd)
        process.order(child.spec)
        return process

    async def _dismiss(self, kept_as: str, process: _Process) -> None:
        if self._patient:
            process.signal(signal.SIGUSR1)
            await process.gone.wait()
        else:
            await process.end()
        self._forget(kept_as)

    def _forget(self, kept_as: str) -> None:
        self._store.drop(kept_as)
        self._running.pop(kept_as).close()

    def _take_spare(self, child: Child) -> _Process | None:
        if child.module != self._spare_module or self._spare is None or self._spare.gone.is_set():
            return None
        spare, self._spare = self._spare, None
        self._spare_gone.set()
        return spare

    async def _spare_is_warm(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WARM_WITHIN_S):
                while self._spare is None or self._spare.name != self._spare_name:  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(0.05)

    async def _keep_spare(self) -> None:
        while True:
            await asyncio.sleep(_SETTLE_S)
            self._spare_gone.clear()
            self._spare = _Process.start(self._spare_module, self._spare_fds)
            died = asyncio.create_task(self._spare.gone.wait())
            taken = asyncio.create_task(self._spare_gone.wait())
            try:
                await asyncio.wait((died, taken), return_when=asyncio.FIRST_COMPLETED)
            finally:
                died.cancel()
                taken.cancel()
            if self._spare is not None:
                self._spare.close()
                self._spare = None
