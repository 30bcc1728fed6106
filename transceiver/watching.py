"""The processes of edges that watch sessions: they get a session's events, and send their clients' to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from transceiver.links.link import Link
from transceiver.refusing import RequestError
from transceiver.session import Session
from transceiver.socket_session import SocketSession
from transceiver.talk.telling import Telling
from wire import messages
from wire.messages import Message
from wire.naming import seen_through

__all__ = ["Watching", "not_found"]

AnySession = Session | SocketSession


def not_found() -> RequestError:
    """The error that there is no such session, for whoever asks."""
    return RequestError("no such call", "call_id_not_found", "call_id")


class Watching:
    """The messages about watching, of all sessions; ``live(ufrag, owner)`` is one that has not ended. What another
    transceiver passes on counts as the edge's own."""

    def __init__(self, link: Link, live: Callable[[str, str], AnySession | None]) -> None:
        self._link, self._live = link, live
        self.handlers: dict[type[Message], Callable[..., None]] = {
            messages.Watch: self._watch,
            messages.Unwatch: self._unwatch,
            messages.Event: self._event,
        }

    def way_to(self, peer: bytes, ufrag: str) -> Telling:
        """Sends each event that it is given to a process that watches."""
        return Telling(partial(self._send, peer, ufrag))

    def closed(self, session: AnySession) -> None:
        """Tells all who watch that the session is over."""
        for who in session.talk.watchers:
            if isinstance(who, bytes):
                self._link.control(who, messages.Closed(ufrag=session.ufrag, reason=session.ended))

    def _send(self, peer: bytes, ufrag: str, text: str, number: int) -> None:
        session = self._live(ufrag, "")
        kept = session.transport.kept if isinstance(session, Session) else None
        if kept is None:
            self._say(peer, ufrag, text, number)
        else:  # nobody is told what the process after this one may not know
            kept.after(partial(self._say, peer, ufrag, text, number))

    def _say(self, peer: bytes, ufrag: str, text: str, number: int) -> None:
        self._link.control(peer, messages.Event(ufrag=ufrag, event=text, number=number))

    def _watch(self, peer: bytes, request: int, watch: messages.Watch) -> None:
        session = self._live(watch.ufrag, watch.owner)
        if session is None:
            raise not_found()
        watchers = session.talk.watchers
        telling = watchers.get(peer)
        if not isinstance(telling, Telling):
            telling = self.way_to(peer, watch.ufrag)
            watchers.add(peer, telling)
        number = telling.number
        due, missed = telling.goes_on(watch.after, watch.sent)
        counts = {"number": number, "taken": telling.taken}
        watching = messages.Watching(session=session.talk.protocol.session, missed=missed, **counts)
        self._link.control(peer, watching, request)
        for text, n in due:
            telling.again(text, n)

    def _unwatch(self, peer: bytes, unwatch: messages.Unwatch) -> None:
        session, who = self._live(unwatch.ufrag, ""), seen_through(peer) or peer
        if session is not None and who in session.talk.watchers:
            session.talk.watchers.remove(who)

    def _event(self, peer: bytes, event: messages.Event) -> None:
        session = self._live(event.ufrag, "")
        if session is None:
            return
        telling = session.talk.watchers.get(seen_through(peer) or peer)
        if telling is not None:
            if isinstance(telling, Telling):
                telling.took(event.number)
            session.talk.client_event(event.event)
