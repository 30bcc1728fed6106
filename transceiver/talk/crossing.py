"""The crossing of an agent's calls from its own thread to the media loop, in order and within bounds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from runtime.config import Agents
from runtime.tracing.spans import Span
from transceiver.agents import Cue, Item, Line, Settings
from transceiver.speech.words import Words, whole
from transceiver.talk.protocol import Making
from transceiver.turns import Turn

__all__ = ["Crossing", "CrossingLine", "CrossingResponse"]

_MOST_SAID = 4096  # calls of an agent that wait for the media loop
_MOST_SAID_BYTES = 16 << 20
_SAID_AT_ONCE = 16
_PIECE_BYTES = 48000  # of audio that cross together: a second at 24 kHz

Failed = Callable[[str], None]


class Crossing:
    """The way of an agent's calls to the media loop: at once from the loop, in order from any other thread. Where audio
    is too much, the oldest goes; an agent that floods with anything else has failed. Of a long piece of audio that goes
    out in events, a second passes in each turn of the loop, wherever it comes from."""

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Failed) -> None:
        self._loop = loop
        self._home = threading.get_ident()
        self._failed = failed
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...], int]] = deque()
        self._bytes = 0
        self._due = False
        self._paused = False
        self.closed = False

    def pause(self) -> None:
        """Lets nothing across until ``resume``: it waits, within the same bounds."""
        self._paused = True

    def flush(self) -> None:
        """Lets across all that waits, now."""
        while True:
            with self._lock:
                if not self._calls or self.closed:
                    return
                method, args, size = self._calls.popleft()
                self._bytes -= size
            self._called(method, args)

    def _called(self, method: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            method(*args)
        except Exception as e:
            self._failed(repr(e))

    def close(self) -> None:
        """Lets nothing across any more, and tells nobody of a fault."""
        with self._lock:
            self.closed = True
            self._calls.clear()
            self._failed = _tell_nobody

    def resume(self) -> None:
        """Lets across what waits, in order, and what comes."""
        with self._lock:
            self._paused = False
            if self._calls and not self._due:
                self._due = True
                self._loop.call_soon_threadsafe(self._drain)

    @property
    def is_open(self) -> bool:
        """Whether the caller is on the loop, and what it has to say may cross now, with nothing before it."""
        return not (self._calls or self._paused or self.closed) and threading.get_ident() == self._home

    def __call__(self, method: Callable[..., object], *args: Any, size: int = 0, later: bool = False) -> None:
        """Has ``method(*args)`` called, ``later`` in another turn of the loop; ``size`` is that of audio, in bytes."""
        if threading.get_ident() == self._home and not later and not self._calls and not self._paused:
            if not self.closed:
                method(*args)
            return
        with self._lock:
            if self.closed:
                return
            if not size and len(self._calls) >= _MOST_SAID:
                self.closed = True
                self._calls.clear()
                self._loop.call_soon_threadsafe(self._failed, "it says more than can be passed on")
                return
            self._calls.append((method, args, size))
            self._bytes += size
            while self._bytes > _MOST_SAID_BYTES or len(self._calls) > _MOST_SAID:
                self._drop_audio()
            if not self._due and not self._paused:
                self._due = True
                self._loop.call_soon_threadsafe(self._drain)

    def _drop_audio(self) -> None:
        for i, (_, _, size) in enumerate(self._calls):
            if size:
                del self._calls[i]
                self._bytes -= size
                return

    def _drain(self) -> None:
        taken = 0
        for _ in range(_SAID_AT_ONCE):
            if taken >= _PIECE_BYTES:
                break
            with self._lock:
                if not self._calls or self.closed or self._paused:
                    self._due = False
                    return
                method, args, size = self._calls.popleft()
                self._bytes -= size
            taken += size
            self._called(method, args)
        self._loop.call_soon(self._drain)


def _tell_nobody(why: str) -> None:
    pass


class _Over:
    """The line of a session that is over: it says nothing, and knows what was known at the end."""

    def __init__(self, line: Line) -> None:
        self.config, self.span, self.turn = line.config, line.span, ""

    def _dropped(self, *_: object, **__: object) -> None:
        pass

    say = stop = send_opus = emit = cue = transcribed = transcribing = _dropped


class CrossingLine:
    """A Line that any thread may use. After ``cut`` it says nothing more to the caller; what the agent has understood
    of a turn is still told. After ``end`` it says nothing to anybody, and asks the session for nothing, which may be
    taken apart while a thread of the agent's still runs."""

    def __init__(self, line: Line, cross: Crossing) -> None:
        self._line, self._cross = line, cross
        self._cut = False

    def end(self) -> None:
        """Lets nothing of the agent's across any more: the session is over."""
        self._cross.close()
        self._line = _Over(self._line)

    def cut(self) -> None:
        """Has the agent say no more: another one has the call."""
        self._cut = True

    @property
    def config(self) -> Agents:
        return self._line.config

    @property
    def span(self) -> Span:
        return self._line.span

    @property
    def turn(self) -> str:
        return self._line.turn

    def say(self, pcm: bytes) -> None:
        if not self._cut:
            self._cross(self._line.say, bytes(pcm), size=len(pcm))

    def stop(self) -> None:
        if not self._cut:
            self._cross(self._line.stop)

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        if self._cut:
            return
        if self._cross.is_open:
            self._line.send_opus(bytes(payload), timestamp, marker)
        else:
            self._cross(self._line.send_opus, bytes(payload), timestamp, marker, size=len(payload))

    def emit(self, event: dict[str, Any]) -> None:
        if not self._cut:
            self._cross(self._line.emit, event)

    def cue(self, cue: Cue) -> None:
        if not self._cut:
            self._cross(self._line.cue, cue)

    def transcribed(self, item: str, text: str) -> None:
        self._cross(self._line.transcribed, item, whole(text))

    def transcribing(self, item: str, delta: str) -> None:
        if not self._cut:
            self._cross(self._line.transcribing, item, whole(delta))


class CrossingResponse:
    """A response as the agent holds it, which any thread may use. ``turn`` hears when it begins to sound."""

    def __init__(self, making: Making, cross: Crossing, turn: Turn | None = None) -> None:
        self._making, self._cross = making, cross
        self.turn = turn or Turn.nobodys()
        self._spoken, self._written = Words(), Words()

    @property
    def id(self) -> str:
        return self._making.id

    @property
    def items(self) -> Sequence[Item]:
        return self._making.items

    @property
    def settings(self) -> Settings:
        return self._making.settings

    @property
    def cancelled(self) -> bool:
        return self._making.cancelled

    @property
    def settled(self) -> bool:
        return self._making.settled

    @property
    def span(self) -> Span:
        return self._making.span

    @property
    def heard_ms(self) -> int | None:
        return self._making.heard_ms

    def audio(self, pcm: bytes) -> None:
        if pcm:
            self.turn.heard(time.monotonic())
        # A long answer in one piece would hold up the loop for as long as it takes to make events of it.
        for at in range(0, len(pcm), _PIECE_BYTES):
            piece = bytes(pcm[at : at + _PIECE_BYTES])
            self._cross(self._making.audio, piece, size=len(piece), later=at > 0 and self._making.in_events)

    def transcript(self, delta: str) -> None:
        words = self._spoken.push(str(delta))
        if words or not delta:
            self._cross(self._making.transcript, words)

    def text(self, delta: str) -> None:
        self.turn.heard(time.monotonic())
        words = self._written.push(str(delta))
        if words or not delta:
            self._cross(self._making.text, words)

    def call(self, name: str, arguments: str, call_id: str = "") -> None:
        self._cross(self._making.call, whole(str(name)), whole(str(arguments)), whole(str(call_id or "")))

    def done(self, usage: dict[str, Any] | None = None) -> None:
        self.turn.over("completed", usage=usage)
        self._cross(self._making.done, usage)

    def fail(self, message: str, code: str = "agent_failed") -> None:
        self.turn.over("failed", error=str(code))
        self._cross(self._making.fail, whole(str(message)), whole(str(code)))
