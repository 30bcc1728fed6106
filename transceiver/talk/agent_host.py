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
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from runtime import logs
from runtime.process import step_back
from transceiver.agents import Base, Item, Line, Settings
from transceiver.talk.crossing import Crossing, CrossingLine, CrossingResponse
from transceiver.talk.protocol import Making
from transceiver.turns import TURNS

__all__ = ["Host", "HostState", "LoopHost", "ThreadHost", "host"]

_MOST_HEARD = 100  # frames that wait for an agent
_MOST_CALLS = 256  # of anything else
_MOST_TASKS = 256  # coroutines of one agent
_HANGS_S = 30.0
_JOIN_S = 5.0
_STATE_S = 1.0
_MOST_STATE_BYTES = 1 << 20
# What an agent that takes another's place is told of what that one had not been told yet. The rest it learns otherwise:
# the items and settings are there, and what is still to be answered is asked for again.
_PORTABLE = ("heard", "heard_opus", "speech_started", "speech_stopped", "dtmf", "event")

Failed = Callable[[str], None]


class HostState(msgspec.Struct, frozen=True, array_like=True):
    """An agent as a value: what its ``state`` gave, as msgpack, or nothing; and calls that it has not taken."""

    state: bytes
    calls: list[tuple[str, list[Any]]]

    @property
    def decoded(self) -> object:
        """What ``resume`` is given. Raises ValueError where it is no msgpack."""
        return msgspec.msgpack.decode(self.state) if self.state else None


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
        self._state = b""  # the agent's, when it was last asked

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

    # --- as a value

    async def hold(self) -> None:
        """Asks the agent for its state, so that ``export`` may follow; it is told nothing more until ``release``."""

    def export(self) -> HostState:
        """All of it; the agent's state is that when it was last asked."""
        raise NotImplementedError

    def resume(self, state: object, items: Sequence[Item]) -> None:
        """Tells a new agent what there was before it."""
        self.ask("resume", state, items)

    def take_up(self, calls: Sequence[tuple[str, list[Any]]]) -> None:
        """Makes the calls that another's agent has not taken."""
        for method, args in calls[: _MOST_HEARD + _MOST_CALLS]:
            if method in _PORTABLE:
                self.ask(method, *args)

    def mute(self) -> None:
        """Lets what the agent does wait for ``release``."""
        self._cross.pause()

    def pause(self) -> None:
        """Lets what the agent does from now on wait for ``release``; what it has done is done."""
        self.mute()
        self._cross.flush()

    def release(self) -> None:
        """Goes on: after ``hold``, ``mute`` or ``pause``."""
        self._cross.resume()

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

    def pause(self) -> None:
        super().pause()
        try:
            self._state = _packed(self._agent.state())
        except Exception as e:
            self._state = b""
            _stateless(self._kind, repr(e))

    def export(self) -> HostState:
        return HostState(self._state, [])

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
        self._due = self._over = self._held = False
        self._answer: asyncio.Future[bytes] | None = None  # to the question for the agent's state
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

    async def hold(self) -> None:
        answer = self._answer = self._home.create_future()
        self.ask("state")
        try:
            async with asyncio.timeout(_STATE_S):
                self._state = await answer
        except TimeoutError:
            self._state = b""
            _stateless(self._kind, f"it does not answer within {_STATE_S:g} s")
        with self._lock:
            self._held = True

    def export(self) -> HostState:
        with self._lock:
            calls = [(method, list(args)) for method, args in self._calls if method in _PORTABLE]
        return HostState(self._state, calls)

    def release(self) -> None:
        super().release()
        with self._lock:
            self._held = False
            self._calls = deque(call for call in self._calls if call[0] != "state")
            if self._calls and not self._loop.is_closed():
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
            if not self._calls or self._held:
                self._due = False
                return
            method, args = self._calls.popleft()
            self._heard -= method == "heard"
            self._held = method == "state"
        self._busy_since = time.monotonic()
        try:
            result = self._tell_state() if method == "state" else getattr(self._agent, method)(*args)
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

    async def _tell_state(self) -> None:
        packed = b""
        try:
            assert self._agent is not None
            state: Any = self._agent.state()
            packed = _packed(await state if asyncio.iscoroutine(state) else state)
        except Exception as e:
            _stateless(self._kind, repr(e))
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(self._answered, packed)

    def _answered(self, packed: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(packed)

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


def _packed(state: object) -> bytes:
    """The state as msgpack. Raises TypeError or ValueError where it cannot be one."""
    if state is None:
        return b""
    packed = msgspec.msgpack.encode(state)
    if len(packed) > _MOST_STATE_BYTES:
        raise ValueError(f"its state has {len(packed)} bytes, and {_MOST_STATE_BYTES} are taken")
    return packed


def _stateless(kind: type[Base], why: str) -> None:
    logs.get().warning("an agent is moved without its state", agent=kind.__module__, why=why)


def host(kind: type[Base], line: Line, failed: Failed, model: str = "") -> Host:
    """Makes the host that the agent asks for, which clients know as ``model``."""
    return ThreadHost(kind, line, failed, model) if kind.runs == "thread" else LoopHost(kind, line, failed, model)
