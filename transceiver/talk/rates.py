"""The adaptation of an agent to a session whose PCM has another rate: what it hears, says and is told is resampled, on
the thread where the agent runs.

A session keeps the rate that it began with, because what was said and waits has it, and so do its items, its turns and
its encoder. An agent of the same rate is used as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rtc.codecs.rate import Resampler
from transceiver.agents import Base, Item, Line, Response, Settings
from transceiver.talk.host import MOST_TASKS

__all__ = ["adapted"]


def adapted(kind: type[Base], line: Line, rate_hz: int) -> Any:
    """An agent of that kind, made by this, for a session whose PCM has ``rate_hz``. Raises whatever the agent does."""
    if kind.rate_hz == rate_hz:
        return kind(line)
    return _Adapted(kind, line, rate_hz)


class _Adapted:
    """The agent as its host calls it; what is not about sound is the agent's own."""

    def __init__(self, kind: type[Base], line: Line, rate_hz: int) -> None:
        self._session_hz, self._agent_hz = rate_hz, kind.rate_hz
        self._hears = _Stream(rate_hz, kind.rate_hz)
        self._items = _Items(rate_hz, kind.rate_hz)
        self._responses: dict[str, _Response] = {}  # those that may be cancelled yet
        self._agent = kind(_Line(line, kind.rate_hz, rate_hz))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def heard(self, pcm: bytes, speaking: bool) -> Any:
        return self._agent.heard(self._hears.push(pcm), speaking)

    def committed(self, item: Item) -> Any:
        self._items.forget()  # of agents that make no responses nobody else would
        return self._agent.committed(self._items.one(item))

    def speech_paused(self, ms: int, items: Sequence[Item]) -> Any:
        return self._agent.speech_paused(ms, self._items.all(items))

    def resume(self, state: object, items: Sequence[Item]) -> Any:
        return self._agent.resume(state, self._items.all(items))

    def warm(self, settings: Settings, items: Sequence[Item]) -> Any:
        return self._agent.warm(settings, self._items.all(items))

    def respond(self, response: Response) -> Any:
        for id_ in [id_ for id_, known in self._responses.items() if known.cancelled or known.settled]:
            del self._responses[id_]
        while len(self._responses) >= MOST_TASKS:
            del self._responses[next(iter(self._responses))]
        made = self._responses[response.id] = self._response(response)
        return self._agent.respond(made)

    def cancelled(self, response: Response) -> Any:
        # The agent sees the same object again.
        known = self._responses.pop(response.id) if response.id in self._responses else self._response(response)
        return self._agent.cancelled(known)

    def _response(self, response: Response) -> _Response:
        return _Response(response, self._items, self._agent_hz, self._session_hz)


class _Stream:
    """Sound that is resampled as it comes. A filter keeps the first samples to itself: so much silence comes before
    them, and as many samples come as are due."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = Resampler(from_hz, to_hz)
        self._from_hz, self._to_hz = from_hz, to_hz
        self._begun = False

    def push(self, pcm: bytes) -> bytes:
        """The samples that are ready with these."""
        found = self._resampler.push(pcm)
        if self._begun:
            return found
        self._begun = bool(pcm)
        return found.rjust(2 * (len(pcm) // 2 * self._to_hz // self._from_hz), b"\0")

    def rest(self) -> bytes:
        """The last samples; nothing may follow."""
        return self._resampler.rest()


class _Items:
    """Items as the agent sees them: those of the last view are made once."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz, self._to_hz = from_hz, to_hz
        self._made: dict[str, tuple[bytes, bytes]] = {}  # by id: what it was, and what it is

    def one(self, item: Item) -> Item:
        if not item.pcm:
            return item
        was, pcm = self._made.get(item.id, (b"", b""))
        if was is not item.pcm:
            pcm = Resampler(self._from_hz, self._to_hz).whole(item.pcm)
            self._made[item.id] = item.pcm, pcm
        return replace(item, pcm=pcm)

    def forget(self) -> None:
        self._made.clear()

    def all(self, items: Sequence[Item]) -> list[Item]:
        found = [self.one(item) for item in items]
        spoken = {item.id for item in found if item.pcm}
        self._made = {id_: made for id_, made in self._made.items() if id_ in spoken}
        return found


class _Said:
    """What is said, which may come from any thread; the end of it is due when nothing follows."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._rates = from_hz, to_hz
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def push(self, pcm: bytes) -> bytes:
        with self._lock:
            self._stream = self._stream or _Stream(*self._rates)
            return self._stream.push(bytes(pcm))

    def rest(self) -> bytes:
        """The last of it."""
        with self._lock:
            stream, self._stream = self._stream, None
            return stream.rest() if stream is not None else b""


class _Line:
    """The agent's line."""

    def __init__(self, line: Line, from_hz: int, to_hz: int) -> None:
        self._line, self._said = line, _Said(from_hz, to_hz)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    def say(self, pcm: bytes) -> None:
        self._line.say(self._said.push(pcm))

    def stop(self) -> None:
        self._said.rest()
        self._line.stop()


class _Response:
    """A response as the agent makes it."""

    def __init__(self, response: Response, items: _Items, from_hz: int, to_hz: int) -> None:
        self._response, self._items = response, items
        self._said = _Said(from_hz, to_hz)
        self._seen: list[Item] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    @property
    def items(self) -> Sequence[Item]:
        if self._seen is None:
            self._seen = self._items.all(self._response.items)
        return self._seen

    def audio(self, pcm: bytes) -> None:
        self._response.audio(self._said.push(pcm))

    def done(self, usage: dict[str, Any] | None = None) -> None:
        self._response.audio(self._said.rest())
        self._response.done(usage)
