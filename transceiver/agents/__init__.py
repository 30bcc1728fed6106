"""The agent interface: the model side of one call.

An agent is a class in a file of its own in this folder; the file's name is the agent's name, which a call asks for
as its model, and the class is called ``Agent``. It is made when the call's media is up and closed when the call
ends. All methods are called on the media loop and must return at once.

A subclass overrides what it cares about::

    class Agent(Base):
        def heard(self, pcm, speaking): ...

``self.line`` is what it may do to the call.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

__all__ = ["Base", "Line", "find", "names"]


class Line(Protocol):
    """The agent's end of the call."""

    def say(self, pcm: bytes) -> None:
        """Queues speech, mono PCM16 at the agent's rate, any length; it is paced at 20 ms a frame. Past 60 s it is
        dropped."""

    def stop(self) -> None:
        """Drops at once what has not been said yet."""

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        """Sends one packet now; ``timestamp`` in the caller's RTP clock. For agents that hear Opus."""

    def emit(self, event: dict[str, Any]) -> None:
        """Sends a JSON event to the caller's data channel; dropped while there is none."""


class Base:
    """An agent that hears and says nothing.

    ``hears`` is "pcm" (mono PCM16 in 20 ms frames, with turn detection) or "opus" (packets as they come, nothing
    decoded; a paced stream is not sent either). A caller that has no Opus sends G.711 instead; as PCM that makes no
    difference, as packets they are what they are.

    ``rate_hz`` is that of the PCM, heard and said: 8000, 16000, 24000 or 48000.
    """

    hears: ClassVar[Literal["pcm", "opus"]] = "pcm"
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 24000

    def __init__(self, line: Line) -> None:
        self.line = line

    def heard(self, pcm: bytes, speaking: bool) -> None:
        """20 ms of the caller's voice (960 bytes at 24 kHz); ``speaking`` is what turn detection thinks."""

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        """One packet of the caller's voice."""

    def speech_started(self) -> None:
        """The caller began to speak, perhaps over the agent."""

    def speech_stopped(self) -> None:
        """The caller's turn ended."""

    def event(self, event: dict[str, Any]) -> None:
        """A JSON event from the caller's data channel."""

    def close(self) -> None:
        """The call is over."""


def names() -> list[str]:
    """Every agent that can be asked for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type[Base] | None:
    """The agent called ``name``, or None where there is none."""
    if name not in names():
        return None
    agent: type[Base] = import_module(f"{__name__}.{name}").Agent
    return agent
