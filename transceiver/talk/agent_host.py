"""The host of an agent: it runs on the media loop, or in a thread of its own.

An agent that says ``runs = "thread"`` has a thread and an asyncio loop to itself, so that an agent which computes or
waits delays neither media nor another call's agent; sharing a thread would only move the harm from one to the other.
What waits on either side is bounded. A fault of the agent's is told once, by ``failed(why)``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from runtime import logs
from runtime.process import step_back
from transceiver.agents import Base, Item, Line, Settings
from transceiver.talk.crossing import Crossing, CrossingLine, CrossingResponse
from transceiver.talk.protocol import Making
from transceiver.turns import TURNS

__all__ = ["Host", "LoopHost", "ThreadHost", "host"]

_MOST_HEARD = 100  # frames that wait for an agent
_MOST_CALLS = 256  # of anything else
_MOST_TASKS = 256  # coroutines of one agent
_HANGS_S = 30.0
_JOIN_S = 5.0

Failed = Callable[[str], None]


class Host:
    """An agent as its call sees it: no method raises, and all return at once."""

    def __init__(self, kind: type[Base], line: Line, failed: Failed, model: str = "") -> None:
        self.responds = kind.respond is not Base.respond
        self.wants_turns = self.responds or kind.committed is not Base.committed
        self.listens = kind.event is not Base.event
        self.yields_after_ms = kind.yields_after_ms
        self._kind = kind
        self._failed = failed
        self._model = model
        self._cross = Crossing(asyncio.get_running_loop(), failed)
        self._line: Line = CrossingLine(line, self._cross)
        self._responses: dict[str, CrossingResponse] = {}

    def ask(self, method: str, *args: Any) -> None:
        """Has the agent's method called."""
        raise NotImplementedError

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        self.ask("heard_opus", payload, timestamp, marker)

    def configured(self, settings: Settings) -> None:
        self.ask("configured", settings)

    def heard(self, pcm: bytes, speaking: bool) -> None:
        self.ask("heard", pcm, speaking)

    def speech_started(self) -> None:
        self.ask("speech_started")

    def speech_stopped(self) -> None:
        self.ask("speech_stopped")

    def committed(self, item: Item) -> None:
        self.ask("committed", item)

    def respond(self, making: Making) -> None:
        # The agent sees the same object again when it is cancelled.
        for id_ in [id_ for id_, known in self._responses.items() if known.cancelled or known.settled]:
            self._forget(id_)
        while len(self._responses) >= _MOST_TASKS:
            self._forget(next(iter(self._responses)))
        turn = TURNS.asked(self._model, time.monotonic())
        self._responses[making.id] = CrossingResponse(making, self._cross, turn)
        self.ask("respond", self._responses[making.id])

    def cancelled(self, making: Making) -> None:
        known = self._forget(making.id)
        self.ask("cancelled", known or CrossingResponse(making, self._cross))

    def _forget(self, id_: str) -> CrossingResponse | None:
        known = self._responses.pop(id_, None)
        if known is not None:
            known.turn.over()
        return known

    def dtmf(self, digit: str) -> None:
        self.ask("dtmf", digit)

    def event(self, event: dict[str, Any]) -> None:
        self.ask("event", event)

    def check(self, now: float) -> None:
        """Looks for an agent that hangs; called about once a second, with ``now`` in seconds, monotonic."""

    def close(self) -> None:
        """Tells the agent that the session is over."""
        for known in self._responses.values():
            known.turn.over()

    async def joined(self) -> None:
        """Waits, for a short while, until nothing of the agent runs any more."""


class LoopHost(Host):
    """A host that calls the agent at once. It makes the agent, which may raise."""

    def __init__(self, kind: type[Base], line: Line, failed: Failed, model: str = "") -> None:
        super().__init__(kind, line, failed, model)
        self._agent = kind(self._line)
        self._over = False

    def ask(self, method: str, *args: Any) -> None:
        if self._over:
            return
        try:
            getattr(self._agent, method)(*args)
        except Exception as e:
            logs.get().exception("agent raised", method=method)
            self._failed(repr(e))

    def close(self) -> None:
        super().close()
        self.ask("close")
        self._over = self._cross.closed = True


class ThreadHost(Host):
    """A host that calls the agent in a thread of the agent's own."""

    def __init__(
        self, kind: type[Base], line: Line, failed: Failed, model: str = "", *, hangs_s: float = _HANGS_S
    ) -> None:
        super().__init__(kind, line, failed, model)
        self._home = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._lock = threading.Lock()
        self._calls: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._heard = 0
        self._due = self._over = False
        self._busy_since: float | None = time.monotonic()
        self._hangs_s = hangs_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._agent: Base | None = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._thread.start()

    # --- on the media loop

    def ask(self, method: str, *args: Any) -> None:
        with self._lock:
            if self._over:
                return
            if method == "heard":
                self._heard += 1
                if self._heard > _MOST_HEARD:
                    self._forget_oldest()
            elif len(self._calls) - self._heard >= _MOST_CALLS:
                self._over = True
                self._home.call_soon(self._failed, "it does not keep up")
                return
            self._calls.append((method, args))
            self._wake()

    def _wake(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon_threadsafe(self._next)

    def _forget_oldest(self) -> None:
        at = next(i for i, (method, _) in enumerate(self._calls) if method == "heard")
        del self._calls[at]
        self._heard -= 1

    def check(self, now: float) -> None:
        since = self._busy_since
        if since is not None and now - since > self._hangs_s and not self._over:
            self._over = True
            self._failed(f"it has not returned for {self._hangs_s:.0f} s")

    def close(self) -> None:
        super().close()
        self._cross.closed = True
        with self._lock:
            self._over = True
            self._calls.clear()
            self._heard = 0
            self._calls.append(("close", ()))
            if not self._loop.is_closed():
                self._wake()

    async def joined(self) -> None:
        try:
            await asyncio.wait_for(self._ended.wait(), _JOIN_S)
        except TimeoutError:
            logs.get().error("an agent's thread does not end", agent=self._kind.__module__)

    # --- in the thread

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        step_back()
        try:
            self._agent = self._kind(self._line)
            self._busy_since = None
            loop.run_forever()
            self._finish()
        except Exception as e:
            self._trouble(e)
        finally:
            with self._lock:
                self._over = True
                loop.close()
            # The media loop may be gone when the process ends.
            if not self._home.is_closed():
                self._home.call_soon_threadsafe(self._ended.set)

    def _next(self) -> None:
        """The next call, after what else is due before it."""
        with self._lock:
            if not self._calls:
                self._due = False
                return
            method, args = self._calls.popleft()
            self._heard -= method == "heard"
        self._busy_since = time.monotonic()
        try:
            result = getattr(self._agent, method)(*args)
            if asyncio.iscoroutine(result):
                self._start(result, method)
        except Exception as e:
            self._trouble(e)
        finally:
            self._busy_since = None
        if method == "close":
            self._loop.call_soon(self._loop.stop)
        else:
            self._loop.call_soon(self._next)

    def _start(self, coroutine: Coroutine[Any, Any, Any], method: str) -> None:
        if len(self._tasks) >= _MOST_TASKS and method != "close":
            coroutine.close()
            if method != "heard":
                raise RuntimeError(f"{_MOST_TASKS} of its methods are waiting")
            return
        task = self._loop.create_task(coroutine, name=method)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble(error)

    def _finish(self) -> None:
        """Lets ``close`` come to its end, and nothing else."""
        closing = {task for task in self._tasks if task.get_name() == "close"}
        for task in asyncio.all_tasks(self._loop) - closing:
            task.cancel()
        everything = asyncio.all_tasks(self._loop)
        if everything:
            self._loop.run_until_complete(asyncio.wait(everything, timeout=_JOIN_S / 2))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _trouble(self, error: BaseException) -> None:
        logs.get().error("agent raised", agent=self._kind.__module__, error=repr(error), exc_info=error)
        if not self._over and not self._home.is_closed():
            self._home.call_soon_threadsafe(self._failed, repr(error))


def host(kind: type[Base], line: Line, failed: Failed, model: str = "") -> Host:
    """Makes the host that the agent asks for, which clients know as ``model``."""
    return ThreadHost(kind, line, failed, model) if kind.runs == "thread" else LoopHost(kind, line, failed, model)
