"""The links for events of sessions, between WebSockets and transceivers: they are apart from the links that place
calls, so a flood of events delays no call.

Whoever listens to a session has a ``Feed``. A link's reader never waits for one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

from edge.directory import Directory
from edge.links.feed import Ending, Feed
from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from wire import link, messages
from wire.keys import ClusterKeys
from wire.messages import Message

__all__ = ["Events"]

_PATIENCE_S = 5.0
_RETRY_S = 0.02
MAX_WATCHERS = 8  # of one session, at one edge
_GONE = Ending(1011, "the transceiver that had this session is gone")


class Events:
    """Sessions by ufrag, and the feeds of each. ``name`` is the ZeroMQ identity; ``known`` are sessions that moved in
    an earlier process's time."""

    def __init__(
        self, directory: Directory, name: bytes, keys: ClusterKeys, known: Mapping[str, int] | None = None
    ) -> None:
        self._feeds: dict[str, list[Feed]] = {}
        self._at: dict[str, int] = {}
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
        self._listen(ufrag, transceiver, feed)
        try:
            await self._links.ask(transceiver, messages.Watch(ufrag=ufrag, owner=owner))
        except (RequestRefused, Unavailable):
            self._forget(ufrag, feed)
            raise

    async def send(self, ufrag: str, event: str) -> None:
        """Sends a client's event, as JSON text. It waits while the link is full. Raises Unavailable."""
        for _ in range(round(_PATIENCE_S / _RETRY_S)):
            try:
                return await self._links.tell(self._at[ufrag], messages.Event(ufrag=ufrag, event=event))
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
        """Tells all who listen to a session of that transceiver that it is gone, or hangs."""
        for ufrag in [ufrag for ufrag, at in self._at.items() if at == transceiver]:
            for feed in self._feeds[ufrag]:
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
        for task in self._ends:
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

    def _moved(self, ufrag: str, transceiver: int) -> None:
        if ufrag in self._at:
            self._at[ufrag] = transceiver

    def _unasked(self, transceiver: int, message: Message) -> None:
        if not isinstance(message, messages.Event | messages.Closed) or self._at.get(message.ufrag) != transceiver:
            return
        if isinstance(message, messages.Event):
            for feed in self._feeds[message.ufrag]:
                feed.put(message.event)
            return
        reason = message.reason
        for feed in self._feeds.pop(message.ufrag):
            feed.end(Ending(1012 if reason == "shutdown" else 1001, reason))
        del self._at[message.ufrag]

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
