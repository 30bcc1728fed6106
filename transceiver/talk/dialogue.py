"""An agent and its conversation in a call, whatever way leads to the client; and all who see its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

from transceiver.agents import Base
from transceiver.media.voice import Voice
from transceiver.realtime.config import Config
from transceiver.realtime.conversation import Conversation
from transceiver.realtime.items import new_id
from transceiver.realtime.reading import write
from transceiver.records.files import Record
from transceiver.talk.agency import Host, host

__all__ = ["Dialogue", "Watchers"]


# An event as JSON and as it was, and the ``event_id`` of the client's that it answers.
Send = Callable[[str, dict[str, Any], str | None], None]

# What a client is told of the end that it did not ask for, by reason: code and message.
_LAST_WORDS = {
    "consent_expired": ("consent_expired", "No consent check came for too long (RFC 7675): the call is over."),
    "expired": ("session_expired", "The session has reached its longest duration."),
    "shutdown": ("shutdown", "The server shuts down: call again."),
    "agent_failed": ("agent_failed", "the agent failed"),
    "session_failed": ("session_failed", "The server failed: the call is over."),
}


class Watchers:
    """Who gets a call's events, as JSON. One that is there twice gets them once."""

    def __init__(self) -> None:
        self._sends: dict[Hashable, Send] = {}
        self._times: dict[Hashable, int] = {}

    def add(self, who: Hashable, send: Send) -> None:
        self._sends[who] = send
        self._times[who] = self._times.get(who, 0) + 1

    def remove(self, who: Hashable) -> None:
        self._times[who] = self._times.get(who, 0) - 1
        if self._times[who] <= 0:
            self._times.pop(who)
            self._sends.pop(who, None)

    def __contains__(self, who: Hashable) -> bool:
        return who in self._sends

    def __iter__(self) -> Any:
        return iter(tuple(self._sends))

    def tell(self, text: str, event: dict[str, Any], asked: str | None = None) -> None:
        """``asked`` is the ``event_id`` of the client's event that this answers."""
        for send in tuple(self._sends.values()):
            send(text, event, asked)


class Dialogue:
    """What an agent may do to a call, and what a conversation needs. ``voice`` is None where there is no media;
    ``failed(why)`` is called when the agent did; ``record`` gets all events, where there is one; ``media()`` says how
    media has come and gone. Making it makes the agent, which may raise."""

    def __init__(
        self,
        config: Config,
        kind: type[Base],
        voice: Voice | None,
        watchers: Watchers,
        failed: Callable[[str], None],
        record: Record | None = None,
        media: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.media_so_far = media
        self.sent_bytes = 0
        self._record = record
        self._voice = voice
        self._watchers = watchers
        self._answering: Callable[[], str | None] = lambda: None  # an agent may have something to say while it is made
        self.host: Host = host(kind, self, failed)
        self.conversation = Conversation(
            config,
            self.host,
            self,
            rate_hz=kind.rate_hz,
            media=voice is not None,
            pictures=kind.config.image_urls,
        )
        self._answering = lambda: self.conversation.answering

    def begin(self) -> None:
        """Tells the agent what the session asks for."""
        self.conversation.begin()

    def greet(self) -> None:
        """Begins the stream of events."""
        self.emit(self.conversation.created)

    def tell_end(self, reason: str) -> None:
        """Tells the client why the call ends, where that is neither its own doing nor its server's."""
        if reason in _LAST_WORDS:
            code, message = _LAST_WORDS[reason]
            what = {"type": "server_error", "code": code, "message": message, "param": None, "event_id": None}
            self.emit({"type": "error", "error": what})

    def close(self) -> None:
        """The call is over."""
        self.conversation.close()
        self.host.close()

    # --- Surroundings and Line

    def emit(self, event: dict[str, Any]) -> None:
        # An agent's own events need an id as well: clients pass over those that have none.
        event = {"event_id": new_id("event"), **event}
        text = write(event)
        self.sent_bytes += len(text)
        self._watchers.tell(text, event, self._answering())
        if self._record is not None:
            self._record.event("server", text)

    def play(self, pcm: bytes) -> None:
        if self._voice is not None:
            self._voice.say(pcm)

    def say(self, pcm: bytes) -> None:
        if self._voice is not None:
            self._voice.say(pcm)

    def stop(self) -> None:
        if self._voice is not None:
            self._voice.stop()
            self.conversation.hush()

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        if self._voice is not None:
            self._voice.pass_on(payload, timestamp, marker)

    def transcribed(self, item: str, text: str) -> None:
        self.conversation.transcribed(item, text)

    def client_event(self, text: str | bytes) -> None:
        """What the client, or who watches, says."""
        if self._record is not None:
            self._record.event("client", text)
        self.conversation.client_event(text, time.monotonic())
