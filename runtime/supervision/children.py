"""The children of a supervisor, kept alive: one that dies or hangs is started again, after growing delays where it dies
repeatedly.

Importing what a child needs takes a quarter of a second or more, which callers would hear. So there is one process more
than needed, which has imported everything already and waits for its spec. When a child dies, the spare takes its place
in a few milliseconds, and another process becomes the spare.

Children outlive the supervisor. Its successor finds them in the store and goes on watching; those that serve another
spec than it would give (another configuration, other code) are replaced one after the other.

A child hangs when its count (``runtime.supervision.beats``) stands still while this process looked at it several
times, a second apart. Looks are counted and not seconds: where the whole machine stood still, there were no looks
meanwhile.

A child that holds more memory than it may is ended in order, and started again. Its memory is looked at from here,
because no limit of the kernel's means that: RLIMIT_AS and RLIMIT_DATA count what is mapped and never touched, of which
libraries reserve much, and a memory cgroup for each child would need a host that delegates them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime import logs
from runtime.errors import ConfigError
from runtime.families.family import Family
from runtime.metrics import Gauges, Tally
from runtime.supervision.beats import EVERY_S, Beats
from runtime.supervision.child import MEND
from runtime.supervision.pidfd import Process
from runtime.supervision.store import Store

__all__ = ["Child", "Children", "identity"]

_HEALTHY_AFTER_S = 1.0
_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
# A new worker needs the cores more than the next spare does.
_SETTLE_S = 1.0
_WARM_WITHIN_S = 10.0
_KEPT = "child-"
# Looks at a child whose count stands still before it is taken to hang, and at one that has yet to import everything.
_HANGS_AFTER, _BEGINS_WITHIN = 4, 60
_SUCCESSORS = 5  # of one child, while all are to end
_LOOK_S = 0.05
_MEMORY_EVERY = 5  # of these looks the memory is looked at


@dataclass(frozen=True, slots=True)
class Child:
    """The spec of one child. ``module`` is run with ``spec`` on standard input and the descriptors ``fds`` inherited.
    Two children with the same ``identity`` do the same. It counts at ``place``, which is its own."""

    name: str
    module: str
    spec: bytes
    fds: tuple[int, ...]
    identity: str
    place: int

    @property
    def kept_as(self) -> str:
        """The name of its pidfd in the store."""
        return f"{_KEPT}{self.name}@{self.identity}"


def identity(spec: bytes, *packages: str) -> str:
    """A value that is the same for children that would do the same: same spec, and same code in these packages."""
    digest = hashlib.blake2b(spec, digest_size=8)
    for package in packages:
        for file in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


class Children:
    """The running ``children``. Those of ``spare_module`` have a spare, which calls itself ``spare_name`` when it
    is ready; it inherits the descriptors of all of them, and closes those that turn out not to be its own.
    ``families`` are those of ``runtime.families.shared.supervised``. Where ``patient``, those whose spec has
    changed end when they want to: SIGUSR1 tells them. None may hold more than ``most_bytes`` of memory, if that is
    not 0. One that is ended has ``goodbye_s`` to bring to an end what it does."""

    def __init__(
        self,
        children: list[Child],
        spare_module: str,
        spare_name: str,
        store: Store,
        beats: Beats,
        families: tuple[Family, Family, Family, Family],
        *,
        patient: bool = False,
        most_bytes: int = 0,
        goodbye_s: float = 0.0,
    ) -> None:
        names = [child.name for child in children]
        restarts, hung, oversized, memory = families
        self.restarts, self.hung = Tally(restarts, names), Tally(hung, names)
        self.oversized = Tally(oversized, names)
        self.metrics = (self.restarts, self.hung, self.oversized, Gauges(memory, self._memory))
        self._beats = beats
        self._patient = patient
        self._most_bytes = most_bytes
        self._goodbye_s = goodbye_s
        self._any_began = False
        self._children = children
        self._spare_module = spare_module
        self._spare_name = spare_name
        self._spare_fds = tuple({fd for child in children if child.module == spare_module for fd in child.fds})
        self._spare: Process | None = None
        self._spare_gone = asyncio.Event()
        self._store = store
        self._running: dict[str, Process] = {}
        self._down: dict[str, Child] = {}  # that died, and are yet to be started again
        self._replacing = asyncio.Lock()
        self._log = logs.get()

    @property
    def identities(self) -> list[str]:
        """What each of the children does, as ``identity`` tells it."""
        return [child.identity for child in self._children]

    @staticmethod
    def any_in(store: Store) -> bool:
        """Whether an earlier supervisor left children in ``store``."""
        return any(name.startswith(_KEPT) for name in store.names)

    async def run(self) -> None:
        """Keeps the children alive and never returns. It raises what keeps this host from starting processes, such as
        ConfigError where the first child finds that its configuration cannot be. Cancelled, it leaves them running, but
        for the spare."""
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
                # Without a spec it would end by itself, but stay a zombie of whoever takes over by exec.
                self._spare.signal(signal.SIGKILL)
                await self._spare.gone.wait()
                self._spare.close()
        raise next(result for result in results if isinstance(result, Exception))

    async def end(self, hurry: asyncio.Event | None = None) -> None:
        """Ends all children; at ``hurry`` they bring nothing to an end. Call it when ``run`` has ended. Where they have
        something to bring to an end, one that dies meanwhile, or has just died, has a successor for that."""
        if self._goodbye_s:
            for child in list(self._down.values()):
                self._begin(child)
        ours = {child.kept_as: child for child in self._children}
        hurry, until = hurry or asyncio.Event(), asyncio.get_running_loop().time() + self._goodbye_s
        running = list(self._running.items())
        await asyncio.gather(*(self._end(process, ours.get(name), until, hurry) for name, process in running))

    async def _end(self, process: Process, child: Child | None, until: float, hurry: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_SUCCESSORS):
            if child is not None and child.kept_as in self._down:
                del self._down[child.kept_as]
                await self._has_begun(child, process, until, hurry)
            await process.end(max(0.0, until - loop.time()), hurry)
            if child is None or process.code in (None, 0) or hurry.is_set() or loop.time() >= until:
                return
            self._log.error("child died while it was to end, starting it again", child=child.name, code=process.code)
            self._forget(child.kept_as)
            self._down[child.kept_as] = child
            process = self._begin(child)

    async def _has_begun(self, child: Child, process: Process, until: float, hurry: asyncio.Event) -> None:
        """Waits until a child hears signals, which would end it before."""
        loop, before = asyncio.get_running_loop(), self._beats.count(child.place)
        while self._beats.count(child.place) == before and loop.time() < until:  # no event tells
            if process.gone.is_set() or hurry.is_set():
                return
            await asyncio.sleep(_LOOK_S)

    def _adopt(self, kept_as: str) -> Process:
        pidfd = self._store.take(kept_as)
        assert pidfd is not None
        process = self._running[kept_as] = Process(pidfd)
        return process

    async def _keep(self, child: Child, running: Process | None, outdated: list[tuple[str, Process]]) -> None:
        loop = asyncio.get_running_loop()
        if running is not None:
            self._log.info("took a child over", child=child.name)
        if outdated and self._patient:
            self._log.info("a child's spec has changed: it is replaced when it has nothing to do", child=child.name)
            await self._let_go(outdated)
        elif outdated:
            async with self._replacing:
                if running is None and child.module == self._spare_module:
                    await self._spare_is_warm()
                self._log.info("replacing a child whose spec has changed", child=child.name)
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
            self._down.pop(child.kept_as, None)
            await self._watch(child, process, looks)
            self._forget(child.kept_as)
            if process.code == MEND and not self._any_began:
                raise ConfigError(f"{child.name} cannot run: see the line before")
            failures = 0 if loop.time() - began > _HEALTHY_AFTER_S else failures + 1
            wait = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            self.restarts[child.name] += 1
            self._down[child.kept_as] = child
            self._log.error("child died, starting it again", child=child.name, code=process.code, in_s=wait)
            await asyncio.sleep(wait)

    async def _let_go(self, outdated: list[tuple[str, Process]]) -> None:
        """Waits until these have ended by themselves. Children leave one after the other, so that others can take over
        what one does; but none keeps the next waiting for longer than it has to bring that to an end."""
        async with self._replacing:
            leaving = asyncio.gather(*(self._dismiss(name, process) for name, process in outdated))
            try:
                await asyncio.wait([leaving], timeout=self._goodbye_s)
            except asyncio.CancelledError:
                leaving.cancel()
                raise
        await leaving

    async def _watch(self, child: Child, process: Process, looks: int) -> None:
        """Returns when the child has ended; one that hangs is killed, and one that is too large is ended. So many
        ``looks`` may find its count as it is now."""
        last, still, looked = self._beats.count(child.place), 0, 0
        while not process.gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.gone.wait(), EVERY_S)
                return
            looked += 1
            if self._most_bytes and looked % _MEMORY_EVERY == 0:
                await self._bound(child, process)
            if (count := self._beats.count(child.place)) != last:
                last, still, looks, self._any_began = count, 0, _HANGS_AFTER, True
                continue
            still += 1
            if still == looks:
                self.hung[child.name] += 1
                self._log.error("child hangs, killing it", child=child.name, for_s=still * EVERY_S)
                process.signal(signal.SIGKILL)

    async def _bound(self, child: Child, process: Process) -> None:
        """Ends the child where it holds too much memory; but not while another is replaced, and not before another can
        take over."""
        if process.memory_bytes <= self._most_bytes:
            return
        async with self._replacing:
            if child.module == self._spare_module:
                await self._spare_is_warm()
            if (held := process.memory_bytes) <= self._most_bytes:
                return  # it has ended by itself
            self.oversized[child.name] += 1
            self._log.error("child holds too much memory, replacing it", child=child.name, mib=held >> 20)
            await process.end(self._goodbye_s)

    def _memory(self) -> dict[tuple[str, ...], float]:
        running = tuple(self._running.items())
        return {(name.removeprefix(_KEPT).rpartition("@")[0],): process.memory_bytes for name, process in running}

    def _begin(self, child: Child) -> Process:
        process = self._take_spare(child) or Process.start(child.module, child.fds)
        # Kept before it gets its spec: one that has it is known to whoever comes after us.
        self._running[child.kept_as] = process
        self._store.keep(child.kept_as, process.pidfd)
        process.tell(child.spec)
        return process

    async def _dismiss(self, kept_as: str, process: Process) -> None:
        if self._patient:
            process.signal(signal.SIGUSR1)
            await process.gone.wait()
        else:
            await process.end(self._goodbye_s)
        self._forget(kept_as)

    def _forget(self, kept_as: str) -> None:
        self._store.drop(kept_as)
        self._running.pop(kept_as).close()

    def _take_spare(self, child: Child) -> Process | None:
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
            self._spare = Process.start(self._spare_module, self._spare_fds)
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
