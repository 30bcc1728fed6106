"""The agent interface, version 2: what is asked of an agent, and what it may do.

An agent is the model's side of one session. It is a class ``Agent``, a subclass of ``Base``, in a file of its own in
this folder; the file's name is the agent's name, which clients ask for as their model. Each session has an object of
it, made when the session can be heard (a call's media is up, a WebSocket is open) and closed when it ends. This one, a
whole file, says back the last turn that was spoken::

    from transceiver.agents import Base, Response

    class Agent(Base):
        version = 2

        def respond(self, response: Response) -> None:
            turns = [item.pcm for item in response.items if item.pcm]
            response.transcript("(your own words)")
            response.audio(turns[-1] if turns else b"")
            response.done()

**Two interfaces.** ``Base`` is what the session asks of its agent: a subclass overrides what it cares about. ``Line``
and ``Response`` are what the agent may ask of the session. ``self.line`` is there from the beginning to the end: it
says something at any time, falls silent, sends an event. A ``Response`` is one turn of the agent's: ``respond`` is
called with it when it is the agent's turn, and the agent streams text and speech into it, then or later, until it is
``done``. When the caller speaks over it, the conversation has stopped and truncated what was being said before the
agent hears of it (``cancelled``).

**Version.** Both interfaces have the number ``VERSION``. It changes when an agent written for one would go wrong with
the other; what is merely added changes nothing. An agent says with ``version`` which it was written for, and one of
another version is not loaded: calls that ask for it are refused, and the log has a line that names both numbers. One
that says nothing is taken to be of the present version.

**Threads.** Methods are called on the loop that carries the media of all calls, and return at once. An agent that
computes or waits says ``runs = "thread"``: then it is made and called in a thread of its own, with an asyncio loop that
runs between calls, and its methods may be coroutines. Wherever it runs, any thread may call its line and its responses.

**What is guaranteed.**

* One object serves one session. Its methods are called one after the other, in the order in which things happened:
  ``configured`` first, ``committed`` with an item before a response that answers it, ``close`` last and once.
* A method of the line or of a response returns at once, and does nothing after the end of either.
* An agent harms itself alone. One that raises, calls more than can be passed on, or, in its thread, has not returned
  after 30 s ends its own session, whose client is told (``agent_failed``). A response that fails costs that response.
* What waits is bounded. Of 20 ms frames that an agent in a thread has not taken, the newest 100 are kept; with 256
  other calls waiting it has failed.

**Agents of other packages** come by entry points of the group ``firsthop.agents``; those of this folder go before
others of the same name::

    [project.entry-points."firsthop.agents"]
    oracle = "oracle.firsthop:Agent"
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, ClassVar, Literal, Protocol

from runtime.config import Agents
from runtime.tracing.spans import Span

__all__ = ["VERSION", "Base", "Cue", "Item", "Line", "Response", "Settings", "find", "names", "versions"]

VERSION = 2

Cue = Literal["mine", "yours", "began", "ended", "answer"]


@dataclass(slots=True)
class Item:
    """One item of a conversation, as far as a model cares.

    ``kind`` "message": ``role`` ("user", "assistant", "system") with ``text`` (what was said, as far as it is known),
    ``pcm`` (a user's speech, mono PCM16 at the agent's rate) and ``images`` (data URLs). "function_call": ``name``,
    ``arguments`` (JSON text) and ``call_id``. "function_call_output": ``call_id`` and ``text``.
    """

    id: str
    kind: Literal["message", "function_call", "function_call_output"] = "message"
    role: str = ""
    text: str = ""
    pcm: bytes = b""
    images: tuple[str, ...] = ()
    name: str = ""
    arguments: str = ""
    call_id: str = ""


@dataclass(slots=True)
class Settings:
    """The session's wishes to its agent. ``tools`` are OpenAI's function definitions as they came; ``more`` is all of
    the session's configuration. None of it may be changed: it is the session's own."""

    instructions: str = ""
    modality: Literal["audio", "text"] = "audio"
    voice: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: Any = "auto"
    more: dict[str, Any] = field(default_factory=dict)


class Response(Protocol):
    """One turn of the agent's. Any thread may call it; after ``done``, ``fail`` or a cancel, all calls are dropped."""

    @property
    def id(self) -> str: ...

    @property
    def items(self) -> Sequence[Item]:
        """The conversation that it answers, oldest first."""

    @property
    def settings(self) -> Settings:
        """The session's settings, with those that this response asks for otherwise."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more."""

    @property
    def span(self) -> Span:
        """Its span, under which the agent's own may stand; its ``headers`` are for requests to other servers."""

    @property
    def heard_ms(self) -> int | None:
        """How much of its speech was played where the rest was dropped, in ms; None where nothing was dropped, or
        nobody here knows."""

    def audio(self, pcm: bytes) -> None:
        """Adds speech, mono PCM16 at the agent's rate, of any length, faster than real time or not."""

    def transcript(self, delta: str) -> None:
        """Adds to the words of that speech."""

    def text(self, delta: str) -> None:
        """Adds to a written answer."""

    def call(self, name: str, arguments: str, call_id: str = "") -> None:
        """Calls a function of the client's; its output comes as an item, and with it the next response."""

    def done(self, usage: dict[str, Any] | None = None) -> None:
        """Tells that all has been handed over; it may still be spoken for a while."""

    def fail(self, message: str, code: str = "agent_failed") -> None:
        """Tells that it cannot be finished; the call goes on."""


class Line(Protocol):
    """The agent's end of the call. Any thread may use it."""

    @property
    def config(self) -> Agents:
        """Section ``[agents]`` of the host's configuration."""

    @property
    def span(self) -> Span:
        """The span of the present turn, for what the agent does besides responses."""

    def say(self, pcm: bytes) -> None:
        """Queues speech, mono PCM16 at the agent's rate, any length; it is paced at 20 ms a frame. Past 60 s it is
        dropped."""

    def stop(self) -> None:
        """Drops at once what has not been said yet."""

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        """Sends one packet now; ``timestamp`` in the caller's RTP clock. For agents that hear Opus."""

    def emit(self, event: dict[str, Any]) -> None:
        """Sends a JSON event to the client; dropped while there is none."""

    @property
    def turn(self) -> str:
        """The id that what the caller is saying now will have as an item; nothing while the caller is silent."""

    def cue(self, cue: Cue) -> None:
        """Takes part in the finding of turns, for an agent that knows better than the session when the caller has
        finished. After "mine" the agent says when the caller "began" to speak, which interrupts as ever, and when the
        turn has "ended", which commits it and asks for no response; after "yours" the session finds turns again, as at
        first. "answer" asks for a response at any time: ``respond`` is called as soon as none is being made."""

    def transcribing(self, item: str, delta: str) -> None:
        """Tells more of the words in the user's item of that id, which may still be spoken. What was told cannot be
        taken back, until ``transcribed`` tells all."""

    def transcribed(self, item: str, text: str) -> None:
        """Tells the words in the user's item of that id, once the agent knows them."""


class Base:
    """An agent that hears and says nothing.

    ``hears`` is "pcm" (mono PCM16 in 20 ms frames, with turn detection) or "opus" (packets as they come, nothing
    decoded; a paced stream is not sent either). A caller that has no Opus sends G.711 instead; as PCM that makes no
    difference, as packets they are what they are.

    ``runs`` is "loop", or "thread": then all methods below are called in a thread of the agent's own, one after the
    other, with an asyncio loop that runs between them; what waits for it is bounded, and audio is what goes first. So
    it may take its time and stalls nobody's media. Methods may be coroutines too: each is started in order, and the
    next does not wait for it. A method that raises ends the call, wherever it runs, and so does one that has not
    returned after 30 s.

    ``yields_after_ms`` is how long the caller must have spoken before the agent that is speaking falls silent: 0 is at
    once. With 300, say, a cough or an "mm-hm" interrupts nothing, and is no turn either.

    ``pauses_ms`` are the lengths of silence within a turn at which ``speech_paused`` is called. Where that is not
    overridden, nobody looks for pauses.

    ``rate_hz`` is that of the PCM, heard and said: 8000, 16000, 24000 or 48000. ``version`` is that of the interface
    for which the agent was written.
    """

    version: ClassVar[int] = VERSION
    hears: ClassVar[Literal["pcm", "opus"]] = "pcm"
    runs: ClassVar[Literal["loop", "thread"]] = "loop"
    rate_hz: ClassVar[Literal[8000, 16000, 24000, 48000]] = 24000
    yields_after_ms: ClassVar[int] = 0
    pauses_ms: ClassVar[tuple[int, ...]] = (200,)

    def __init__(self, line: Line) -> None:
        self.line = line

    @classmethod
    def unfit(cls) -> str:
        """The reason why this host cannot run it, in one line that says what to do; empty where it can. Such an agent
        is offered to nobody."""
        return ""

    @property
    def config(self) -> Agents:
        """Section ``[agents]`` of the host's configuration."""
        return self.line.config

    def heard(self, pcm: bytes, speaking: bool) -> None:
        """Called with 20 ms of the caller's voice (960 bytes at 24 kHz); ``speaking`` is what turn detection thinks."""

    def heard_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        """Called with one packet of the caller's voice."""

    def speech_started(self) -> None:
        """Called when the caller begins to speak, perhaps over the agent."""

    def speech_stopped(self) -> None:
        """Called when the caller's turn has ended."""

    def speech_paused(self, ms: int, items: Sequence[Item]) -> None:
        """Called when the caller has been silent for ``ms`` within a turn, one of ``pauses_ms``. ``items`` is the
        conversation as it would be if the turn ended now: the last is the turn so far, with the id that it is to be
        committed with. So the answer may be begun before anybody knows whether the turn has ended. What is begun is of
        use once ``committed`` has come with that id and no ``speech_resumed`` before it; a turn may also end and never
        be committed."""

    def speech_resumed(self) -> None:
        """Called when the caller speaks on after a pause: what was begun in it is worth nothing."""

    def configured(self, settings: Settings) -> None:
        """Called with the session's settings: at its beginning, and whenever they change."""

    def committed(self, item: Item) -> None:
        """Called when a turn of the user's is in the conversation."""

    def respond(self, response: Response) -> None:
        """Called when it is the agent's turn."""

    def cancelled(self, response: Response) -> None:
        """Called when nobody wants this response any more: the caller spoke over it, or the client cancelled it."""

    def dtmf(self, digit: str) -> None:
        """Called when the caller pressed a key: "0" to "9", "*", "#" or "A" to "D". It is called once for each press,
        as soon as that is known, while the key may still be held. It interrupts nothing."""

    def event(self, event: dict[str, Any]) -> None:
        """Called with a JSON event of the client's that the protocol does not know."""

    def state(self) -> object:
        """What an agent that takes this one's place has to know beside the items, as ``resume`` is to get it: of maps,
        lists, text, bytes and numbers, 1 MiB at most as msgpack. Called when the session is about to go on in another
        process, or another agent of this kind is warmed for it; nothing else is called after it unless the session
        stays. May be a coroutine; what has not answered after a second is moved without a state."""
        return None

    def resume(self, state: object, items: Sequence[Item]) -> None:
        """Called after ``configured`` and before anything else where the session was served elsewhere before. ``items``
        is the conversation, oldest first, with all that is in it; ``state`` is what ``state()`` gave there, or None.
        What is not overridden takes the user's items as if they had just been committed."""
        for item in items:
            if item.role == "user":
                self.committed(item)

    def warm(self, settings: Settings, items: Sequence[Item]) -> None:
        """Called after ``configured`` and ``resume`` where this agent is to take a live session over from another one,
        which goes on meanwhile. What takes time, such as a connection or a long prompt, is best done now; ``items`` is
        the conversation so far, in which nothing is still being said. May be a coroutine. The agent has the session
        soon after this has returned, and what it says before is heard then. One that raises, or has not returned after
        30 s, does not get it."""

    def close(self) -> None:
        """Called when the session is over, or another agent has it."""


def names() -> list[str]:
    """The names of all agents that can be asked for."""
    return sorted({*_own(), *_others()})


@cache
def versions() -> dict[str, str]:
    """The names of all agents that can be loaded, each with the version of the distribution that brings it. They are
    loaded by this, if they were not before."""
    return {name: _version(name) for name in names() if _loads(name)}


def _loads(name: str) -> bool:
    try:
        return find(name) is not None
    except Exception:  # whatever the import of another package raises
        return False


def _version(name: str) -> str:
    if name not in _own():
        distribution = _others()[name].dist
        return distribution.version if distribution else ""
    try:
        return version("firsthop")
    except PackageNotFoundError:  # a source tree that is not installed
        return ""


def find(name: str) -> type[Base] | None:
    """The agent called ``name``, or None where there is none. Raises whatever the import of another package's raises,
    TypeError where that is no agent, or one of another version of the interface, and ImportError where this host cannot
    run it."""
    agent = _named(name)
    if agent is not None and (why := agent.unfit()):
        raise ImportError(f"agent {name} cannot run here: {why}")
    return agent


def _named(name: str) -> type[Base] | None:
    if name in _own():
        agent: type[Base] = import_module(f"{__name__}.{name}").Agent
        return agent
    if name not in _others():
        return None
    agent = _others()[name].load()
    if not (isinstance(agent, type) and issubclass(agent, Base)):
        raise TypeError(f"entry point {name} = {_others()[name].value} is no agent")
    if agent.version != VERSION:
        why = f"is for version {agent.version} of transceiver.agents, and this is version {VERSION}"
        raise TypeError(f"entry point {name} = {_others()[name].value} {why}")
    return agent


@cache
def _own() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]


@cache
def _others() -> dict[str, EntryPoint]:
    """Agents of other packages. They are looked for once, because that reads the metadata of all that is installed."""
    return {entry.name: entry for entry in entry_points(group="firsthop.agents")}
