"""The interface between a talk and the protocol of events that its clients speak.

A protocol is a folder of its own, as ``transceiver.realtime`` is: it has an ``EventProtocol``, which makes the
``Conversation`` of one session. Here its events are only maps and text.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from runtime.tracing.spans import Span
from transceiver.agents import Cue, Item, Response, Settings
from transceiver.parts import Parts

__all__ = ["Conversation", "EventProtocol", "Making", "Partner", "Seat", "Surroundings"]

Event = dict[str, Any]


class Making(Response, Protocol):
    """A response that an agent makes, on the loop of its conversation; its ``span`` is set by whoever has it made."""

    span: Span

    @property
    def settled(self) -> bool:
        """Whether it is made and heard, so that nothing happens to it any more."""

    @property
    def in_events(self) -> bool:
        """Whether its speech goes out in events, which have to be made, and not as media."""


class Partner(Protocol):
    """The agent as a conversation sees it. No method raises, and all return at once."""

    responds: bool  # whether it makes responses
    wants_turns: bool  # whether it cares for what was said in a turn, once that is over
    listens: bool  # whether it cares for events that the protocol does not know
    yields_after_ms: int
    pauses_ms: Sequence[int]  # the lengths of silence within a turn that it wants to know of

    def configured(self, settings: Settings) -> None: ...
    def heard(self, pcm: bytes, speaking: bool) -> None: ...
    def speech_started(self) -> None: ...
    def speech_stopped(self) -> None: ...
    def speech_paused(self, ms: int, items: Sequence[Item]) -> None: ...
    def speech_resumed(self) -> None: ...
    def committed(self, item: Item) -> None: ...
    def respond(self, making: Making) -> None: ...
    def cancelled(self, making: Making) -> None: ...
    def dtmf(self, digit: str) -> None: ...
    def event(self, event: Event) -> None: ...
    def resume(self, state: object, items: Sequence[Item]) -> None: ...


class Seat(Protocol):
    """The agent's seat in a conversation. No event may be sent by ``prepare``."""

    @property
    def busy(self) -> bool:
        """Whether the agent has the floor: a response is made, or heard."""

    def makes(self, partner: Partner) -> bool:
        """Whether it is still making a response."""

    def give_up(self, partner: Partner) -> None:
        """Ends the responses that it is still making, as far as they have come."""

    def prepare(self, partner: Partner, state: object) -> tuple[Settings, list[Item]]:
        """Tells an agent that is to have the seat later what there has been; ``state`` is that of the present one, or
        None. Returns the settings and the items that it was told."""

    def give_to(self, partner: Partner, model: str) -> None:
        """Gives the seat to the agent that was prepared last, which is told what has come since; it finishes no
        response that another one was asked for. Clients know it as ``model``."""


class Surroundings(Protocol):
    """The place of a conversation: what it needs from its session."""

    sent_bytes: int  # by ``emit`` so far

    def emit(self, event: Event) -> None:
        """Sends a server event to the client and to all who watch."""

    def play(self, pcm: bytes) -> None:
        """Sends 20 ms to the caller, now."""

    def media_so_far(self) -> dict[str, Any]:
        """The figures of the call's media so far; asked only where there is media."""


class Conversation(Protocol):
    """The state of one session's conversation. ``now`` is in seconds, monotonic; PCM is mono PCM16 at the agent's rate.
    Nothing that a client sends makes it raise."""

    @property
    def seat(self) -> Seat:
        """The agent's seat."""

    @property
    def created(self) -> Event:
        """The event that greets a client or a watcher."""

    @property
    def answering(self) -> str | None:
        """The id of the client's event that is being handled, where it has one."""

    @property
    def quiet(self) -> bool:
        """Whether neither side speaks, or is about to."""

    @property
    def calm(self) -> Hashable:
        """What it is like while time alone passes: equal for two moments between which nothing happened that ``export``
        should tell, but for the speech that was heard meanwhile. None while something is said or made."""

    @property
    def turn(self) -> str:
        """The id that the turn which is being spoken will have as an item; nothing while nobody speaks."""

    @property
    def weight(self) -> int:
        """About how many bytes ``export`` would give. Asking costs next to nothing."""

    def begin(self) -> None:
        """Tells that the agent is there, which then hears what the session asks for."""

    def resume(self, agent: object) -> None:
        """Tells, in the place of ``begin``, that the agent is there which goes on where another has been; ``agent`` is
        that one's state. No event may be sent yet."""

    def succeed(self, model: str, known: set[str]) -> None:
        """Tells, in the place of ``resume``, that another agent is there than before, which was told what there was
        until then, the items with the ids ``known`` among it. Clients know it as ``model``."""

    def export(self, parts: Parts) -> bytes:
        """All of it as bytes, between two events, with a version of their own; what is large is among the ``parts``. It
        changes nothing."""

    def client_event(self, text: str | bytes, now: float) -> None:
        """Takes an event of a client's, as it came."""

    def hear(self, pcm: bytes, now: float) -> bool:
        """Takes 20 ms of the caller. Returns whether they are voice."""

    def tick(self, now: float) -> bool:
        """Does what the next 20 ms need. Returns whether there is more to do at the next."""

    def pressed(self, digit: str, received_at: int) -> None:
        """Tells that the caller pressed a key, at ``received_at`` in Unix seconds."""

    def cue(self, cue: Cue) -> None:
        """Takes what the agent says of the caller's turns."""

    def transcribed(self, item: str, text: str) -> None:
        """Tells the words in the user's item of that id, as the agent knows them."""

    def transcribing(self, item: str, delta: str) -> None:
        """Tells more of the words in the user's item of that id, which may still be spoken."""

    def pass_over(self, frames: int) -> None:
        """Passes over so many frames of the agent's speech, which another process has sent since ``export``."""

    def hush(self) -> None:
        """Drops the speech that waits, because the agent wants to be silent."""

    def close(self) -> None:
        """Ends it: the response that was being made is dropped, and nobody is told."""


class EventProtocol(Protocol):
    """The protocol of one session, with what was configured for it."""

    @property
    def session(self) -> dict[str, Any]:
        """The session as its clients see it, configured as it is now."""

    def converse(self, partner: Partner, around: Surroundings, *, rate_hz: int, media: bool) -> Conversation:
        """The session's conversation, made once. ``media`` says whether sound travels beside the events."""

    def export(self) -> bytes:
        """The protocol's own state as bytes, with a version of their own."""

    def take_up(
        self,
        conversation: bytes,
        partner: Partner,
        around: Surroundings,
        now: float,
        *,
        rate_hz: int,
        parts: Sequence[bytes],
    ) -> Conversation:
        """The conversation over media that goes on where ``Conversation.export`` left off, in the place of
        ``converse``. Raises ValueError where the bytes are none of this version's, or a part is missing."""

    def told(self, conversation: bytes, *, parts: Sequence[bytes]) -> tuple[Settings, list[Item]]:
        """What an agent is told that is to go on with the conversation of which ``conversation`` is the ``export``.
        Raises ValueError as ``take_up`` does."""

    def write(self, event: Event) -> tuple[Event, str]:
        """The event, with an id of its own where it had none, and its text."""

    def error(self, code: str, message: str) -> Event:
        """The event that tells a client of a fault that is not its own."""

    def fit(self, event: Event, text: str, most_bytes: int, asked: str | None) -> list[str]:
        """``text``, which is ``event`` written, as events of at most ``most_bytes`` each, in order; ``asked`` is the id
        of the client's event that it answers. The result is empty where none of it fits."""
