"""A draft of a response: it is made before anybody has asked for it, and becomes part of the response that is asked for
later, or is thrown away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from transceiver.agents import Response
from transceiver.speech.tasks import background

__all__ = ["Draft"]


class Draft:
    """What ``make`` says into it, which waits until there is a response and goes there at once from then on. Its
    methods are those of ``transceiver.agents.Response`` that add something."""

    def __init__(self, make: Callable[[Draft], Awaitable[None]]) -> None:
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._response: Response | None = None
        self.said = ""
        """The words so far, spoken or written."""
        self._making = background(make(self))

    @property
    def failed(self) -> bool:
        """Whether it has come to nothing, so that another one is to be made."""
        return self._making.done() and (self._making.cancelled() or self._making.exception() is not None)

    def drop(self) -> None:
        """Ends it, as soon as that can be."""
        self._making.cancel()

    async def pour(self, response: Response) -> None:
        """Puts it into ``response``, and waits for the end of it. Raises whatever its making does; whoever cancels this
        ends that too."""
        for method, args in self._waiting:
            getattr(response, method)(*args)
        self._waiting.clear()
        self._response = response
        try:
            await self._making
        finally:
            self._making.cancel()

    def audio(self, pcm: bytes) -> None:
        self._put("audio", pcm)

    def transcript(self, delta: str) -> None:
        self.said += delta
        self._put("transcript", delta)

    def text(self, delta: str) -> None:
        self.said += delta
        self._put("text", delta)

    def call(self, name: str, arguments: str) -> None:
        self._put("call", name, arguments)

    def _put(self, method: str, *args: Any) -> None:
        if self._response is None:
            self._waiting.append((method, args))
        else:
            getattr(self._response, method)(*args)
