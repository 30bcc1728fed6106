"""Signaling's links to transceivers, one DEALER each: requests that have one reply, and messages that need none."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from edge.directory import AT_ONCE, Directory, Transceiver
from edge.links.whereabouts import Whereabouts
from runtime import logs
from runtime.families import edge as families
from runtime.metrics import Tally
from runtime.patience import heard
from wire import link, messages
from wire.control import Control, MessageError, Reader, encode
from wire.frames import OtherVersionError, WireError
from wire.greeting import Greeting
from wire.keys import ClusterKeys
from wire.messages import Message, Request, ToSignaling, reply_type
from wire.versions import OLDEST, Versions

__all__ = ["Lost", "RequestRefused", "Silent", "Transceivers", "Unavailable"]

_PATIENCE_S = 2.0
_UP_WITHIN_S = 0.5  # a link that is made when it is needed: a round trip or two between hosts
_LOST_AFTER_S = 3.0  # a spare takes calls up within a second; a silent host is found after 6 s, and 10 are promised
_LATE_S = 0.05  # that a reply may take from ZeroMQ to here when its link has broken behind it
_COMES_AND_GOES = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
_AT_ONCE = 64  # messages of one transceiver, until others have their turn

_UNASKED = messages.Event, messages.Closed
_MOVED, _MOST_MOVES = "moved", 3  # of one call while it is asked for

Reply = TypeVar("Reply", bound=Message)
Listener = Callable[[int, Message], None]


class Unavailable(Exception):
    """The error that a transceiver is away or silent, or that its answer cannot be used."""


class Silent(Unavailable):
    """The error that a transceiver was asked and has not answered in time: it may be at work on the request, or stand
    still because of it."""


class Lost(Unavailable):
    """The error that a transceiver was asked, and that its link broke before it answered: it may have died of the
    request."""


class RequestRefused(Exception):
    """The error that a transceiver refused: ``code`` is for programs, the text for people, ``param`` is the part of the
    request at fault."""

    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class _Asked:
    transceiver: int
    type: type[Request[Any]]
    reply: asyncio.Future[Any]
    at_once: Callable[[Any], None] | None


def _nothing(transceiver: int, message: Message) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Link:
    endpoint: str
    socket: Any
    greeting: Greeting
    tasks: tuple[asyncio.Task[None], ...]


class Transceivers:
    """A link to transceivers of ``directory``, by id, and to those that left it until ``let_go``: their calls go on.
    The first AT_ONCE have one from the beginning, the others when they are asked something first. Links come up and
    come back by themselves.

    ``unasked(transceiver, message)`` has what no request asked for, ``late(transceiver, reply)`` the replies that came
    when nobody waited any more, ``gone(transceiver)`` is called whenever a link breaks or moves, and ``moved(ufrag,
    transceiver)`` when a call lives at another transceiver from now on. None of them may wait. ``known`` are calls that
    moved in an earlier process's time.
    """

    def __init__(
        self,
        directory: Directory,
        name: bytes,
        keys: ClusterKeys,
        *,
        dealer: Callable[..., Any] = link.dealer,
        unasked: Listener = _nothing,
        late: Listener = _nothing,
        gone: Callable[[int], None] | None = None,
        moved: Callable[[str, int], None] | None = None,
        known: Mapping[str, int] | None = None,
        versions: Versions | None = None,
    ) -> None:
        self._context = link.roomy(zmq.asyncio.Context())
        self._connect: Callable[[str], Any] = lambda endpoint: dealer(self._context, endpoint, name, keys)
        self._versions = versions
        self._reader = Reader[ToSignaling](ToSignaling, versions=versions)
        self._requests = itertools.count(1)
        self.refusals = Tally(families.REFUSALS)
        self._waiting: dict[int, _Asked] = {}
        self._complained: set[int] = set()
        self._unasked, self._late, self._gone, self._moved = unasked, late, gone, moved
        self.whereabouts = Whereabouts(known)
        self._links: dict[int, _Link] = {}
        self._coming: dict[int, float] = {}  # until when new links are waited for
        self._away_since: dict[int, float] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self._directory = directory
        directory.subscribe(self)

    @property
    def directory(self) -> Directory:
        """The directory whose transceivers these are."""
        return self._directory

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all to which new sessions may go, up or not."""
        return tuple(self._directory.present)

    @property
    def sampled(self) -> tuple[int, ...]:
        """Those of them to which there is a link."""
        return tuple(number for number in self._links if number in self._directory.present)

    @property
    def linked(self) -> tuple[int, ...]:
        """The ids of all that have a link, those that left among them."""
        return tuple(self._links)

    def lost(self, transceiver: int) -> bool:
        """Whether the link has been down for so long that nobody has taken the calls up that were there."""
        return time.monotonic() - self._away_since.get(transceiver, inf) >= _LOST_AFTER_S

    def came(self, transceiver: Transceiver) -> None:
        """Makes the link, unless there are many already, or goes on with the one that stands."""
        standing = self._links.get(transceiver.id)
        if standing is None:
            if len(self._links) < AT_ONCE:
                self._links[transceiver.id] = self._link(transceiver)
        elif standing.endpoint != transceiver.endpoint:
            self._end(transceiver.id)
            self._links[transceiver.id] = self._link(transceiver)
            if self._gone is not None:
                self._gone(transceiver.id)

    def changed(self, transceiver: Transceiver) -> None:
        """Moves the link where the endpoint is another one."""
        self.came(transceiver)

    def went(self, transceiver: Transceiver) -> None:
        """Keeps the link for what goes on there; see ``let_go``."""

    def reach(self, numbers: Iterable[int]) -> None:
        """Makes links to those of ``numbers`` that left before this process began."""
        departed = self._directory.departed
        for number in numbers:
            if number not in self._links and number in departed:
                self._links[number] = self._link(departed[number])

    def let_go(self, needed: Container[int]) -> None:
        """Ends the links to those that left, but for the ones ``needed`` and those that are being asked."""
        asked = {waiting.transceiver for waiting in self._waiting.values()}
        for number in self.linked:
            if number not in self._directory.present and number not in needed and number not in asked:
                self._end(number)
                self._complained.discard(number)

    async def ask(
        self,
        transceiver: int,
        request: Request[Reply],
        at_once: Callable[[Reply], None] | None = None,
        *,
        patience_s: float | None = None,
        least: int = OLDEST,
    ) -> Reply:
        """Asks a transceiver, and returns its reply. ``at_once(reply)`` is called before any later message is read. One
        that has handed the call over says where it is, and that one is asked. Raises Unavailable, also for ``least`` as
        ``tell`` does, Silent where it was sent and not answered within ``patience_s``, or RequestRefused."""
        for _ in range(_MOST_MOVES):
            try:
                return await self._ask(transceiver, request, at_once, patience_s, least)
            except RequestRefused as e:
                name = getattr(request, "ufrag", None)
                if (
                    e.code != _MOVED
                    or name is None
                    or not (e.param or "").isdecimal()
                    or int(e.param or 0) == transceiver
                ):
                    raise
                transceiver = int(e.param or 0)
                self._take_move(name, transceiver)
        raise Unavailable("the call moves too often")

    async def _ask(
        self,
        transceiver: int,
        request: Request[Reply],
        at_once: Callable[[Reply], None] | None,
        patience_s: float | None,
        least: int,
    ) -> Reply:
        number = next(self._requests)
        future: asyncio.Future[Reply | messages.Refused] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Asked(transceiver, type(request), future, at_once)
        try:
            await self.tell(transceiver, request, number, least=least)
            reply = await heard(future, _PATIENCE_S if patience_s is None else patience_s)
        except TimeoutError:
            raise Silent(f"transceiver {transceiver} does not answer") from None
        finally:
            del self._waiting[number]
        if isinstance(reply, messages.Refused):
            raise RequestRefused(reply.code, reply.message, reply.param)
        return reply

    async def tell(
        self, transceiver: int, message: Message, request: int | None = None, *, least: int = OLDEST
    ) -> None:
        """Sends a message. Raises Unavailable where the transceiver is away, takes no more now, or speaks no version
        that this side does, or none from ``least`` on."""
        standing = self._links.get(transceiver) or self._needed(transceiver)
        if transceiver in self._coming:
            await self._come(transceiver, standing)
        greeting = standing.greeting
        if greeting.mute:
            raise Unavailable(f"transceiver {transceiver}: {greeting.mute}")
        try:
            if greeting.due:
                await standing.socket.send(greeting.hello(next(self._requests)), zmq.NOBLOCK)
                greeting.due = False
            if greeting.version < least:
                raise Unavailable(f"transceiver {transceiver} is of an older release")
            await standing.socket.send(encode(message, request, greeting.version), zmq.NOBLOCK)
        except zmq.Again:
            raise Unavailable(f"transceiver {transceiver} does not answer") from None

    async def close(self) -> None:
        """Ends all links."""
        for number in self.linked:
            self._end(number)
        await asyncio.gather(*self._ended, return_exceptions=True)
        self._context.destroy(linger=0)

    def _needed(self, transceiver: int) -> _Link:
        """Makes a link that there was no need of before."""
        present = self._directory.present.get(transceiver)
        if present is None:
            raise Unavailable(f"transceiver {transceiver} is not in this edge's directory")
        try:
            made = self._links[transceiver] = self._link(present)
        except zmq.ZMQError as e:  # no more descriptors
            raise Unavailable(f"transceiver {transceiver}: {e.strerror}") from None
        self._coming[transceiver] = time.monotonic() + _UP_WITHIN_S
        return made

    async def _come(self, transceiver: int, standing: _Link) -> None:
        """Waits a moment until a new link is up. Raises Unavailable where it has moved or ended meanwhile."""
        left_s = self._coming[transceiver] - time.monotonic()
        if left_s > 0:
            await standing.socket.poll(max(1, round(1000 * left_s)), zmq.POLLOUT)
        self._coming.pop(transceiver, None)
        if self._links.get(transceiver) is not standing:
            raise Unavailable(f"transceiver {transceiver} is not there any more")

    def _link(self, transceiver: Transceiver) -> _Link:
        socket = self._connect(transceiver.endpoint)
        greeting = Greeting(self._versions)
        work = self._read(transceiver.id, socket), self._watch(transceiver.id, socket, greeting)
        return _Link(transceiver.endpoint, socket, greeting, tuple(asyncio.create_task(each) for each in work))

    def _end(self, number: int) -> None:
        ending = self._links.pop(number)
        self._coming.pop(number, None)
        self._away_since.pop(number, None)
        for task in ending.tasks:
            task.cancel()
            self._ended.add(task)
            task.add_done_callback(self._ended.discard)
        ending.socket.disable_monitor()
        ending.socket.close(linger=0)

    async def _read(self, transceiver: int, socket: Any) -> None:
        for i in itertools.count(1):
            said = await socket.recv()
            if i % _AT_ONCE == 0:
                await asyncio.sleep(0)  # what is there already is received without a pause
            try:
                message = self._reader.read(said)
                if isinstance(message, Control):
                    self._take(transceiver, message)
            except MessageError as e:
                self._unusable(transceiver, e)
            except WireError as e:
                self._complain(transceiver, str(e))
            except Exception:
                # A fault of ours with one message, and no reason to read no more of them.
                logs.get().exception("a transceiver's message failed", transceiver=transceiver)

    def _take(self, transceiver: int, control: Control[ToSignaling]) -> None:
        """Takes a message. Raises WireError where a transceiver may not say it."""
        message, request = control.message, control.request
        named = getattr(message, "ufrag", None)
        if named is not None and not self._has(transceiver, named, control):
            return
        if isinstance(message, messages.HealthReport) and message.report and message.report.id != transceiver:
            raise _error(f"a report of transceiver {message.report.id}", control)
        if request is None:
            if isinstance(message, messages.Moved):
                self._take_moved(transceiver, message, control)
                return
            if not isinstance(message, _UNASKED):
                raise _error("a reply without a request", control)
            self._unasked(transceiver, message)
            if isinstance(message, messages.Closed):
                self.whereabouts.forget(message.ufrag)
            return
        if isinstance(message, (*_UNASKED, messages.Moved)):
            raise _error("no reply to anything", control)
        if self._greeted(transceiver, control):
            return
        asked = self._asked(transceiver, request)
        if asked is None:
            self._late(transceiver, message)
            return
        if not isinstance(message, reply_type(asked.type) | messages.Refused):
            raise _error(f"no reply to {asked.type.__struct_config__.tag!r}", control)
        if isinstance(message, messages.Refused) and message.code == "name_taken":
            self.refusals["name_taken"] += 1
            self._complain(transceiver, "another edge has this edge's name: give each edge.name of its own")
        if isinstance(message, messages.HealthReport) and message.report is not None:
            self._directory.report(message.report, time.monotonic())  # whoever asked, placing goes by the newest
        if asked.at_once is not None and not isinstance(message, messages.Refused):
            asked.at_once(message)
        asked.reply.set_result(message)

    def _has(self, transceiver: int, named: str, control: Control[ToSignaling]) -> bool:
        """Whether the session is at that transceiver. An event of one that is about to be is kept until it is. Raises
        WireError for anything else."""
        if self.whereabouts.home(named) == transceiver:
            return True
        if control.request is not None or not isinstance(control.message, _UNASKED):
            raise _error("a session of another transceiver", control)
        self.whereabouts.early(transceiver, named, control.message, time.monotonic())
        return False

    def _take_moved(self, transceiver: int, moved: messages.Moved, control: Control[ToSignaling]) -> None:
        for name in moved.ufrags:
            if self.whereabouts.home(name) not in (transceiver, moved.to):
                raise _error("a session of another transceiver", control)
        for name in moved.ufrags:
            self._take_move(name, moved.to)

    def _take_move(self, ufrag: str, to: int) -> None:
        self.whereabouts.put(ufrag, to)
        if self._moved is not None:
            self._moved(ufrag, to)
        for message in self.whereabouts.due(ufrag, time.monotonic()):
            self._unasked(to, message)

    def _asked(self, transceiver: int, request: int | None) -> _Asked | None:
        """The request's waiter for that transceiver's reply."""
        asked = None if request is None else self._waiting.get(request)
        return asked if asked and asked.transceiver == transceiver and not asked.reply.done() else None

    def _greeted(self, transceiver: int, control: Control[ToSignaling]) -> bool:
        """Whether this was about versions."""
        standing = self._links.get(transceiver)
        try:
            return standing is not None and standing.greeting.take(control)
        except OtherVersionError as e:
            self.refusals["other_version"] += 1
            self._complain(transceiver, str(e))
            return True

    def _unusable(self, transceiver: int, error: MessageError) -> None:
        """A message could not be used: whoever waits for it waits no longer."""
        asked = self._asked(transceiver, error.request)
        if asked is not None:
            asked.reply.set_exception(Unavailable(f"transceiver {transceiver} gives no usable answer"))
        self._complain(transceiver, str(error))

    def _complain(self, transceiver: int, why: str) -> None:
        if transceiver not in self._complained:  # the next one would say the same
            self._complained.add(transceiver)
            logs.get().error("a transceiver's messages cannot be used", transceiver=transceiver, why=why)

    async def _watch(self, transceiver: int, socket: Any, greeting: Greeting) -> None:
        monitor = socket.get_monitor_socket(_COMES_AND_GOES)
        try:
            while True:
                said, _ = await monitor.recv_multipart()
                event = int.from_bytes(said[:2], sys.byteorder)
                if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._away_since.pop(transceiver, None)
                else:
                    self._away_since.setdefault(transceiver, time.monotonic())
                if event != zmq.EVENT_DISCONNECTED:
                    continue
                greeting.lost()
                asked = [asked for asked in self._waiting.values() if asked.transceiver == transceiver]
                asyncio.get_running_loop().call_later(_LATE_S, _fail, asked)
                if self._gone is not None:
                    self._gone(transceiver)
        finally:
            monitor.close(linger=0)


def _error(why: str, control: Control[ToSignaling]) -> MessageError:
    type_ = control.message.__struct_config__.tag
    return MessageError(f"{why}: {type_!r}", str(type_), control.request)


def _fail(waiting: list[_Asked]) -> None:
    for asked in waiting:
        if not asked.reply.done():
            asked.reply.set_exception(Lost(f"transceiver {asked.transceiver} went away"))
