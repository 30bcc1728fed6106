"""The host of an agent as its call sees it, and an agent as a value. Where it runs is said in ``agent_host``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from runtime import logs
from runtime.tracing.shapes import RESPONSE
from transceiver.agents import Base, Item, Line, Settings
from transceiver.talk.crossing import Crossing, CrossingLine, CrossingResponse
from transceiver.talk.protocol import Making
from transceiver.turns import TURNS

__all__ = ["MOST_CALLS", "MOST_HEARD", "MOST_TASKS", "PORTABLE", "Host", "HostState", "NotReady", "packed", "stateless"]

MOST_HEARD = 100  # frames that wait for an agent
MOST_CALLS = 256  # of anything else
MOST_TASKS = 256  # coroutines of one agent
_MOST_STATE_BYTES = 1 << 20
# What an agent that takes another's place is told of what that one had not been told yet. The rest it learns otherwise:
# the items and settings are there, and what is still to be answered is asked for again.
PORTABLE = ("heard", "heard_opus", "speech_started", "speech_stopped", "dtmf", "event")

Failed = Callable[[str], None]


class HostState(msgspec.Struct, frozen=True, array_like=True):
    """An agent as a value: what its ``state`` gave, as msgpack, or nothing; and calls that it has not taken."""

    state: bytes
    calls: list[tuple[str, list[Any]]]

    @property
    def decoded(self) -> object:
        """What ``resume`` is given. Raises ValueError where it is no msgpack."""
        return msgspec.msgpack.decode(self.state) if self.state else None


class NotReady(Exception):
    """The error that an agent cannot take a session over; the text says why in one line."""


class Host:
    """An agent as its call sees it: no method raises, and all return at once. ``failed`` may be set anew, where who has
    to know of a fault changes. What a ``muted`` one does waits for ``release`` from the first."""

    def __init__(self, kind: type[Base], line: Line, failed: Failed, model: str = "", *, muted: bool = False) -> None:
        self.responds = kind.respond is not Base.respond
        self.pauses_ms: Sequence[int] = kind.pauses_ms if kind.speech_paused is not Base.speech_paused else ()
        self.wants_turns = self.responds or kind.committed is not Base.committed or bool(self.pauses_ms)
        self.listens = kind.event is not Base.event
        self.yields_after_ms = kind.yields_after_ms
        self.failed = failed
        self._kind = kind
        self._model = model
        self._cross = Crossing(asyncio.get_running_loop(), self._failed)
        if muted:
            self._cross.pause()
        self._line = CrossingLine(line, self._cross)
        self._responses: dict[str, CrossingResponse] = {}
        self._state = b""  # the agent's, when it was last asked

    def _failed(self, why: str) -> None:
        self.failed(why)

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

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        self.ask("speech_paused", ms, items)

    def speech_resumed(self) -> None:
        self.ask("speech_resumed")

    def committed(self, item: Item) -> None:
        self.ask("committed", item)

    def respond(self, making: Making) -> None:
        # The agent sees the same object again when it is cancelled.
        for id_ in [id_ for id_, known in self._responses.items() if known.cancelled or known.settled]:
            self._forget(id_)
        while len(self._responses) >= MOST_TASKS:
            self._forget(next(iter(self._responses)))
        making.span = self._line.span.child(RESPONSE, self._model)
        turn = TURNS.asked(self._model, time.monotonic(), making.span)
        making.span.put(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": "firsthop",
                "gen_ai.agent.name": self._model,
                "gen_ai.response.id": making.id,
            }
        )
        self._responses[making.id] = CrossingResponse(making, self._cross, turn)
        self.ask("respond", self._responses[making.id])

    def cancelled(self, making: Making) -> None:
        known = self._forget(making.id)
        self.ask("cancelled", known or CrossingResponse(making, self._cross))

    def _forget(self, id_: str) -> CrossingResponse | None:
        known = self._responses.pop(id_, None)
        if known is not None:
            known.turn.over("cancelled")
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
        for method, args in calls[: MOST_HEARD + MOST_CALLS]:
            if method in PORTABLE:
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

    # --- beside another one

    async def told_state(self) -> object:
        """The agent's state, for another of its kind; it goes on."""
        raise NotImplementedError

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        """Has the agent prepare to take the session over, and waits until it has. Raises NotReady."""
        raise NotImplementedError

    def retire(self) -> None:
        """Lets the agent finish the responses that it makes, and say nothing else: another one has the session."""
        self._line.cut()

    def close(self) -> None:
        """Tells the agent that the session is over."""
        for known in self._responses.values():
            known.turn.over("left")

    async def joined(self) -> None:
        """Waits, for a short while, until nothing of the agent runs any more."""


def packed(state: object) -> bytes:
    """An agent's state as msgpack. Raises TypeError or ValueError where it cannot be one."""
    if state is None:
        return b""
    packed = msgspec.msgpack.encode(state)
    if len(packed) > _MOST_STATE_BYTES:
        raise ValueError(f"its state has {len(packed)} bytes, and {_MOST_STATE_BYTES} are taken")
    return packed


def stateless(kind: type[Base], why: str) -> None:
    """Says in the log that an agent's successor gets no state of it."""
    logs.get().warning("an agent is moved without its state", agent=kind.__module__, why=why)
