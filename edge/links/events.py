"""The links for events of sessions, between WebSockets and transceivers: they are apart from the links that place
calls, so a flood of events delays no call.

Whoever listens to a session has a ``Feed``. A link's reader never waits for one of them. A session without media ends
with its transceiver's process. A call may go on in another one, which is asked then, and who watches the call goes on
with it: no event comes twice, and where one may be lost, an ``error`` event says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from edge.directory import Directory
from edge.links.feed import Ending, Feed, error_event
from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from edge.links.watched import Watched
from wire import link, messages
from wire.keys import ClusterKeys
from wire.messages import Message
from wire.versions import MOVES

__all__ = ["Events"]

_PATIENCE_S = 5.0
_RETRY_S = 0.02
MAX_WATCHERS = 8  # of one session, at one edge
_BACK_S = 5.0  # within which a call goes on, or is lost
_ANSWER_S = 1.0
_GONE = Ending(1011, "the transceiver that had this session is gone")
_LOST = "The server that had this session has died, and nothing goes on with it."
_MISSED = "The server that had this call has died. Another goes on with the call; some events before this one are lost."


class Events:
    """Sessions by ufrag, and the feeds of each. ``name`` is the ZeroMQ identity; ``known`` are sessions that moved in
    an earlier process's time."""

    def __init__(
        self, directory: Directory, name: bytes, keys: ClusterKeys, known: Mapping[str, int] | None = None
    ) -> None:
        self._feeds: dict[str, list[Feed]] = {}
        self._at: dict[str, int] = {}
        self._watched: dict[str, Watched] = {}
        self._back: dict[str, asyncio.Task[None]] = {}  # whose transceiver was lost, until it is known who goes on
        self._links = Transceivers(
            directory,
            name,
            keys,
            dealer=link.event_dealer,
            unasked=self._unasked,
            late=self._late,
            gone=self.lost,
            moved=self._moved,
            known=known,
        )
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def listeners(self) -> int:
        """The number of feeds of all sessions."""
        return sum(len(feeds) for feeds in self._feeds.values())

    async def open(self, transceiver: int, feed: Feed, wanted: messages.Open) -> messages.Opened:
        """Begins a session whose events ``feed`` gets from the first on. Raises Unavailable or RequestRefused."""
        return await self._links.ask(transceiver, wanted, lambda opened: self._listen(opened.ufrag, transceiver, feed))

    async def watch(self, transceiver: int, ufrag: str, feed: Feed, owner: str) -> None:
        """Has ``feed`` get the events of a session that exists and is ``owner``'s. Raises Unavailable or
        RequestRefused."""
        if len(self._feeds.get(ufrag, ())) >= MAX_WATCHERS:
            raise RequestRefused("full", f"{MAX_WATCHERS} connections watch this call already", "call_id")
        if (back := self._back.get(ufrag)) is not None:
            await asyncio.wait([back])
        self._listen(ufrag, transceiver, feed)
        watched = self._watched.setdefault(ufrag, Watched())
        wanted = messages.Watch(ufrag=ufrag, owner=owner, sent=watched.sent)
        try:
            await self._links.ask(transceiver, wanted, lambda watching: watched.begins(watching.number))
        except (RequestRefused, Unavailable):
            self._forget(ufrag, feed)
            raise

    async def send(self, ufrag: str, event: str) -> None:
        """Sends a client's event, as JSON text. It waits while the link is full. Raises Unavailable."""
        watched = self._watched.get(ufrag)
        said = watched.say(event, time.monotonic()) if watched is not None else None
        for _ in range(round(_PATIENCE_S / _RETRY_S)):
            if (back := self._back.get(ufrag)) is not None:
                await asyncio.wait([back])
            if watched is not None and said is not None and watched.was_said_again(said):
                return None
            number = said.number if said is not None and watched is not None and watched.numbered else 0
            try:
                return await self._links.tell(self._at[ufrag], messages.Event(ufrag=ufrag, event=event, number=number))
            except KeyError:
                raise Unavailable("the session is over") from None
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
        raise Unavailable("the transceiver takes no events")

    async def leave(self, ufrag: str, feed: Feed, *, end: bool) -> None:
        """Sends nothing more to ``feed``. With ``end`` its session is ended, and nobody waits for the transceiver to
        confirm that."""
        transceiver = self._at.get(ufrag)
        self._forget(ufrag, feed)
        if transceiver is None:
            return
        if end:
            await self._end(transceiver, ufrag)
        elif ufrag not in self._feeds:
            with suppress(Unavailable):
                await self._links.tell(transceiver, messages.Unwatch(ufrag=ufrag))

    def lost(self, transceiver: int) -> None:
        """Takes note that a transceiver is gone, or hangs. Its sessions without media are over, and who watches a call
        goes on with whoever goes on with the call."""
        for ufrag in [ufrag for ufrag, at in self._at.items() if at == transceiver]:
            if ufrag not in self._watched:
                self._is_lost(ufrag)
            elif ufrag not in self._back:
                task = self._back[ufrag] = asyncio.create_task(self._come_back(ufrag, self._watched[ufrag]))
                task.add_done_callback(partial(self._is_back, ufrag))

    def _is_back(self, ufrag: str, task: asyncio.Task[None]) -> None:
        del self._back[ufrag]

    async def _come_back(self, ufrag: str, watched: Watched) -> None:
        """Watches a call again, of the process that goes on with it."""
        until = time.monotonic() + _BACK_S
        while self._watched.get(ufrag) is watched and time.monotonic() < until:
            again = messages.Watch(ufrag=ufrag, after=watched.after, sent=watched.sent)
            try:
                watching = await self._links.ask(self._at[ufrag], again, patience_s=_ANSWER_S, least=MOVES)
                await self._go_on(ufrag, watched, watching)
            except RequestRefused as e:
                if e.code == "call_id_not_found":
                    break
            except Unavailable:
                pass
            else:
                return
            await asyncio.sleep(_RETRY_S)
        if self._watched.get(ufrag) is watched:
            self._is_lost(ufrag)

    async def _go_on(self, ufrag: str, watched: Watched, watching: messages.Watching) -> None:
        """Says again what is not known there. Raises Unavailable where that one is gone as well."""
        unknown, lost = watched.unknown(watching.taken) if watched.numbered else ([], False)
        for said in unknown:
            event = messages.Event(ufrag=ufrag, event=said.text, number=said.number)
            await self._links.tell(self._at.get(ufrag, -1), event)
        if lost or watching.missed:
            for feed in self._feeds.get(ufrag, ()):
                feed.put(error_event("server_error", "events_lost", _MISSED))

    def _is_lost(self, ufrag: str) -> None:
        for feed in self._feeds.get(ufrag, ()):
            if feed.ending is None:
                feed.put(error_event("server_error", "session_lost", _LOST))
                feed.end(_GONE)

    def reach(self, numbers: Iterable[int]) -> None:
        """Makes links to those transceivers that left the directory before this process began."""
        self._links.reach(numbers)

    def let_go(self) -> None:
        """Ends the links to transceivers that left the directory, where nobody listens to a session of theirs."""
        self._links.let_go(set(self._at.values()))

    def end_all(self, ending: Ending) -> None:
        """Cuts every feed off."""
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.cut(ending)

    async def close(self) -> None:
        """Ends all links."""
        for task in (*self._ends, *self._back.values()):
            task.cancel()
        await self._links.close()

    def _listen(self, ufrag: str, transceiver: int, feed: Feed) -> None:
        self._feeds.setdefault(ufrag, []).append(feed)
        self._at[ufrag] = transceiver

    def _forget(self, ufrag: str, feed: Feed) -> None:
        feeds = self._feeds.get(ufrag, [])
        if feed in feeds:
            feeds.remove(feed)
        if not feeds:
            self._feeds.pop(ufrag, None)
            self._at.pop(ufrag, None)
            self._watched.pop(ufrag, None)

    def _moved(self, ufrag: str, transceiver: int) -> None:
        if ufrag in self._at and self._at[ufrag] != transceiver:
            self._at[ufrag] = transceiver
            if ufrag in self._watched:
                self._watched[ufrag].moved()

    def _unasked(self, transceiver: int, message: Message) -> None:
        if not isinstance(message, messages.Event | messages.Closed) or self._at.get(message.ufrag) != transceiver:
            return
        if isinstance(message, messages.Event):
            watched = self._watched.get(message.ufrag)
            if watched is None or watched.came(message.number):
                for feed in self._feeds[message.ufrag]:
                    feed.put(message.event)
            return
        reason = message.reason
        for feed in self._feeds.pop(message.ufrag):
            feed.end(Ending(1012 if reason == "shutdown" else 1001, reason))
        del self._at[message.ufrag]
        self._watched.pop(message.ufrag, None)

    def _late(self, transceiver: int, reply: Message) -> None:
        # A session that nobody waits for any more; one over WebRTC ends by itself when its caller never comes.
        if isinstance(reply, messages.Opened):
            task = asyncio.create_task(self._end(transceiver, reply.ufrag))
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    async def _end(self, transceiver: int, ufrag: str) -> None:
        # Either the session was over before, or it is now.
        with suppress(RequestRefused, Unavailable):
            await self._links.ask(transceiver, messages.End(ufrag=ufrag))
