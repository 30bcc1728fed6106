"""The place where an agent runs: on the media loop, or in a thread of its own.

An agent that says ``runs = "thread"`` has a thread and an asyncio loop to itself, so that an agent which computes or
waits delays neither media nor another call's agent; sharing a thread would only move the harm from one to the other.
What waits on either side is bounded. A fault of the agent's is told once, by ``failed(why)``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from runtime import logs
from runtime.process import step_back
from transceiver.agents import Base, Item, Line, Settings
from transceiver.talk.host import (
    MOST_CALLS,
    MOST_HEARD,
    MOST_TASKS,
    PORTABLE,
    Failed,
    Host,
    HostState,
    NotReady,
    packed,
    stateless,
)
from transceiver.talk.rates import adapted

__all__ = ["Host", "HostState", "LoopHost", "NotReady", "ThreadHost", "host"]

_HANGS_S = 30.0
_JOIN_S = 5.0
_STATE_S = 1.0
_WARM = "warm"


class LoopHost(Host):
    """A host that calls the agent at once. It makes the agent, which may raise."""

    def __init__(
        self,
        kind: type[Base],
        line: Line,
        failed: Failed,
        model: str = "",
        *,
        muted: bool = False,
        rate_hz: int | None = None,
    ) -> None:
        super().__init__(kind, line, failed, model, muted=muted)
        self._agent = adapted(kind, self._line, rate_hz or kind.rate_hz)
        self._over = False

    def ask(self, method: str, *args: Any) -> None:
        if self._over:
            return
        try:
            getattr(self._agent, method)(*args)
        except Exception as e:
            self._raised(method, e)

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        # As ``ask`` does; each packet of a call that is passed on comes by here.
        if not self._over:
            try:
                self._agent.heard_opus(payload, timestamp, marker)
            except Exception as e:
                self._raised("heard_opus", e)

    def _raised(self, method: str, error: Exception) -> None:
        logs.get().exception("agent raised", method=method)
        self._failed(repr(error))

    def pause(self) -> None:
        super().pause()
        self._take_state()

    def _take_state(self) -> None:
        try:
            self._state = packed(self._agent.state())
        except Exception as e:
            self._state = b""
            stateless(self._kind, repr(e))

    async def told_state(self) -> object:
        self._take_state()
        return self.export().decoded

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        try:
            self._agent.warm(settings, items)
        except Exception as e:
            raise NotReady(str(e) or repr(e)) from e

    def export(self) -> HostState:
        return HostState(self._state, [])

    def close(self) -> None:
        super().close()
        self.ask("close")
        self._over = True
        self._line.end()


class ThreadHost(Host):
    """A host that calls the agent in a thread of the agent's own."""

    def __init__(
        self,
        kind: type[Base],
        line: Line,
        failed: Failed,
        model: str = "",
        *,
        muted: bool = False,
        rate_hz: int | None = None,
        hangs_s: float = _HANGS_S,
    ) -> None:
        super().__init__(kind, line, failed, model, muted=muted)
        self._rate_hz = rate_hz or kind.rate_hz
        self._home = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._lock = threading.Lock()
        self._calls: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._heard = 0
        self._due = self._over = self._held = False
        self._answer: asyncio.Future[bytes] | None = None  # to the question for the agent's state
        self._warming: asyncio.Future[str] | None = None  # why it cannot take over, or nothing
        self._busy_since: float | None = time.monotonic()
        self._hangs_s = hangs_s
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._agent: Any = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._thread.start()

    # --- on the media loop

    def ask(self, method: str, *args: Any) -> None:
        with self._lock:
            if self._over:
                return
            if method == "heard":
                self._heard += 1
                if self._heard > MOST_HEARD:
                    self._forget_oldest()
            elif len(self._calls) - self._heard >= MOST_CALLS:
                self._over = True
                self._home.call_soon(self._failed, "it does not keep up")
                return
            elif method in ("speech_paused", "speech_resumed"):
                self._forget_pause()
            self._calls.append((method, args))
            self._wake()

    async def hold(self) -> None:
        answer = self._answer = self._home.create_future()
        self.ask("state")
        try:
            async with asyncio.timeout(_STATE_S):
                self._state = await answer
        except TimeoutError:
            self._state = b""
            stateless(self._kind, f"it does not answer within {_STATE_S:g} s")
        with self._lock:
            self._held = True

    def export(self) -> HostState:
        with self._lock:
            calls = [(method, list(args)) for method, args in self._calls if method in PORTABLE]
        return HostState(self._state, calls)

    def release(self) -> None:
        super().release()
        with self._lock:
            self._held = False
            self._calls = deque(call for call in self._calls if call[0] != "state")
            if self._calls and not self._loop.is_closed():
                self._wake()

    async def told_state(self) -> object:
        await self.hold()
        try:
            return self.export().decoded
        finally:
            self.release()

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        self._warming = self._home.create_future()
        self.ask(_WARM, settings, items)
        if why := await self._warming:
            raise NotReady(why)

    def _wake(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon_threadsafe(self._next)

    def _forget_pause(self) -> None:
        """Takes back a pause that the agent has not been told of yet: it is over or longer by now, and holds all that
        was said in the turn."""
        at = next((i for i, (method, _) in enumerate(self._calls) if method == "speech_paused"), None)
        if at is not None:
            del self._calls[at]

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
        self._line.end()
        with self._lock:
            self._over = True
            self._held = False
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
            self._agent = adapted(self._kind, self._line, self._rate_hz)
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
            if not self._calls or self._held:
                self._due = False
                return
            method, args = self._calls.popleft()
            self._heard -= method == "heard"
            self._held = method == "state"
        self._busy_since = time.monotonic()
        try:
            result = self._asked(method)(*args)
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

    def _asked(self, method: str) -> Callable[..., Any]:
        if method == "state":
            return self._tell_state
        found: Callable[..., Any] = self._warm if method == _WARM else getattr(self._agent, method)
        return found

    async def _warm(self, settings: Settings, items: Sequence[Item]) -> None:
        why = ""
        try:
            assert self._agent is not None
            # What it was told before may be coroutines that are not done.
            before = [task for task in self._tasks if task.get_name() in ("configured", "resume")]
            if before:
                await asyncio.wait(before)
            warm: Callable[..., Any] = self._agent.warm
            result = warm(settings, items)
            if asyncio.iscoroutine(result):
                await result
        except Exception as e:
            why = str(e) or repr(e)
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(self._warmed, why)

    def _warmed(self, why: str) -> None:
        if self._warming is not None and not self._warming.done():
            self._warming.set_result(why)

    async def _tell_state(self) -> None:
        answer = b""
        try:
            assert self._agent is not None
            state: Any = self._agent.state()
            answer = packed(await state if asyncio.iscoroutine(state) else state)
        except Exception as e:
            stateless(self._kind, repr(e))
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(self._answered, answer)

    def _answered(self, packed: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(packed)

    def _start(self, coroutine: Coroutine[Any, Any, Any], method: str) -> None:
        if len(self._tasks) >= MOST_TASKS and method != "close":
            coroutine.close()
            if method != "heard":
                raise RuntimeError(f"{MOST_TASKS} of its methods are waiting")
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


def host(
    kind: type[Base],
    line: Line,
    failed: Failed,
    model: str = "",
    *,
    muted: bool = False,
    rate_hz: int | None = None,
) -> Host:
    """Makes the host that the agent asks for, which clients know as ``model``. ``rate_hz`` is that of the session's
    PCM, where it may be another than the agent's."""
    made = ThreadHost if kind.runs == "thread" else LoopHost
    return made(kind, line, failed, model, muted=muted, rate_hz=rate_hz)
