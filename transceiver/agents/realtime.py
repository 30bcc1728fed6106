"""The agent ``realtime``: it relays the call to another server of the Realtime protocol, over a WebSocket
(``[agents.realtime]``).

Who finds the caller's turns is agreed at the beginning of a connection (``transceiver/upstreams/agreement.py``).

*The session here does*: turn detection upstream is off, and only we know what the caller has really been told. Every
turn is sent whole when an answer is wanted, a response is asked for, and what comes back is streamed into ours. A
response that was cancelled, or of which the caller has not heard all, takes its connection along, since upstream would
believe that it has been heard. The next turn makes another one and tells it the conversation so far, in which
transcribed speech is text.

*Upstream does* (``transceiver/upstreams/live.py``): it hears all as it comes, says when the caller speaks, which cuts
what is being said here, and begins responses, for which we ask for one of ours each. What was heard of a response that
was cut it is told. Without a connection turns are found here as ever, and the next one makes another connection.

A connection that breaks costs the response that was being made, and whatever goes wrong the client is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Literal

import aiohttp

from transceiver.agents import Item, Line, Response, Settings
from transceiver.speech.tasks import Answering, Failure
from transceiver.speech.upstream import asked
from transceiver.upstreams import events
from transceiver.upstreams.agreement import Agreement
from transceiver.upstreams.live import Live
from transceiver.upstreams.made import Made

_MOST_MESSAGE = 1 << 22  # bytes
_MOST_EVENTS = 256  # that wait for a response to take them
_MOST_KNOWN = 4096
_MOST_UNSENT = 48000 * 2  # bytes of the caller's voice: two seconds
_MOST_COMPLAINTS = 16  # between two responses
_AGREE_S = 2.0  # after which what was asked for is taken to hold
_SILENCE = bytes(48000)  # a second, in which upstream finds the end of a turn that it is told at once
_COMMITTED = "input_audio_buffer.committed"
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"

Event = dict[str, Any]
_Socket = aiohttp.ClientWebSocketResponse[Literal[False]]  # what is no UTF-8 does not end the connection


class Agent(Answering):
    """One call's connection to it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._http: aiohttp.ClientSession | None = None
        self._socket: _Socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(_MOST_EVENTS)
        self._known: dict[str, None] = {}
        self._made = Made()
        # Our ids of the speech that upstream has not named yet, oldest first; ours by upstream's afterwards.
        self._unnamed: deque[str] = deque(maxlen=_MOST_KNOWN)
        self._named: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()
        self._settings = Settings()
        self._past: Sequence[Item] = ()
        self._live: Live | None = None  # where upstream finds the turns
        self._leads = False  # the session has been told so
        self._unsent = bytearray()
        self._sounds = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None  # which sends the caller's voice
        self._beside: set[asyncio.Task[None]] = set()
        self._complaints = 0  # that the client was told since the last response began
        self._waits: asyncio.TimerHandle | None = None  # for upstream's answer to a turn

    async def close(self) -> None:  # type: ignore[override]
        await super().close()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self._hang_up()
        if self._http:
            await self._http.close()

    # --- what the session tells

    def configured(self, settings: Settings) -> None:
        self._settings = settings
        if self._live:
            self._live.interrupts = events.turns_of(self._settings).get("interrupt_response", True)
            self._aside(self._tell_session(settings))
        elif not self._connected and self.config.realtime.turns != "session":
            self._aside(self._connect_early())

    def resume(self, state: object, items: Sequence[Item]) -> None:
        self._past = list(items)

    def heard(self, pcm: bytes, speaking: bool) -> None:
        live = self._live
        if live is None or live.told_whole:
            return
        if not self._leads:
            # A turn that is being spoken is the session's, and one that the client commits is as well.
            if speaking or events.turn_detection(self._settings) is None:
                return
            self._leads = True
            self.line.cue("mine")
        self._unsent += pcm
        if len(self._unsent) > _MOST_UNSENT:
            del self._unsent[: len(self._unsent) - _MOST_UNSENT]
        self._sounds.set()

    def committed(self, item: Item) -> None:
        if self._live is None:
            return
        if item.pcm and self._live.committed(item.id):
            self._known[item.id] = None
        elif not events.is_speech(item):
            self._aside(self._tell([item]))

    def cancelled(self, response: Response) -> None:
        taken = response.id in self._tasks
        super().cancelled(response)
        if self._live:
            self._made.cut()
            for event in self._live.cancelled(response.id, response.heard_ms, taken=taken):
                self._aside(self._send(event))

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        """Connects, and tells upstream the conversation so far."""
        async with self._upstream() as timeout_s, asyncio.timeout(timeout_s):
            self._settings = settings
            await self._reach_for(items)
            await self._tell_session(settings)
            await self._tell(items)

    # --- responses

    async def _answer(self, response: Response) -> None:
        try:
            await self._relay(response)
        except Failure as error:
            self._complain(str(error))
            raise

    async def _relay(self, response: Response) -> None:
        self._complaints = 0
        async with self._upstream() as timeout_s:
            config = self.config.realtime
            with asked("realtime", response.span, model=config.model, url=config.url) as request:
                async with asyncio.timeout(timeout_s):
                    await self._reach_for(response.items, request.headers)
                    if not await self._ask(response):
                        response.done()
                        return
                while True:
                    async with asyncio.timeout(timeout_s):
                        event = await self._events.get()
                    if event is None:
                        raise Failure("upstream: the connection broke")
                    request.began()
                    if event.get("type") == "response.done":
                        request.span.put(events.used(event))
                    if self._take(event, response):
                        break
        if self._live:
            for cue in self._live.again():
                self.line.cue(cue)

    async def _ask(self, response: Response) -> bool:
        """Has upstream begin what the response is for. Returns whether there is anything."""
        live = self._live
        offer = live.accept() if live else "none"
        if offer != "none":
            return offer == "begun"
        await self._tell_session(response.settings)
        while not self._events.empty():  # of no response that anybody wants
            if self._events.get_nowait() is None:
                raise Failure("upstream: the connection broke")
        if live is None:
            await self._tell(response.items)
            await self._send({"type": "response.create"})
            return True
        last = response.items[-1] if response.items else None
        if last and last.id not in self._known and events.is_speech(last):
            await self._tell(response.items[:-1])
            self._known[last.id] = None
            live.ask(last.id)
            for event in events.appends(last.pcm + _SILENCE):
                await self._send(event)
        else:
            await self._tell(response.items)
            live.ask()
            await self._send({"type": "response.create"})
        return True

    def _take(self, event: Event, response: Response) -> bool:
        """Streams one of upstream's events into the response. Returns True where it was the last. Raises Failure."""
        live = self._live
        if live is None:
            if event.get("type") == "error":
                raise Failure(f"upstream: {events.message(event.get('error'))}")
            self._made.take(event)
            return events.take(event, response)
        if not live.wanted(event):
            return False
        if event.get("type") == "error":
            why = f"upstream: {events.message(event.get('error'))}"
            if live.asked:
                raise Failure(why)
            self._complain(why)  # of the response itself ``response.done`` tells
            return False
        self._made.take(event)
        live.streamed(response.id, event)
        if event.get("type") == "response.done" and live.speaking and events.ended(event)[0]:
            response.done(events.ended(event)[1])  # the caller has spoken over it
            return True
        return events.take(event, response)

    def _complain(self, why: str) -> None:
        self._complaints += 1
        if self._complaints <= _MOST_COMPLAINTS:
            self.line.emit(events.complaint(why))

    # --- the connection

    @property
    def _connected(self) -> bool:
        return bool(self._socket and not self._socket.closed and self._reading and not self._reading.done())

    async def _connect_early(self) -> None:
        """Connects before the first answer is wanted: upstream may have to hear what leads to it."""
        with contextlib.suppress(Failure):  # the first answer tells why
            async with self._upstream() as timeout_s, asyncio.timeout(timeout_s):
                await self._reach()
                if self._live:
                    await self._tell(self._past)

    @contextlib.asynccontextmanager
    async def _upstream(self) -> AsyncIterator[float]:
        """Gives the time that upstream has for each step, in seconds, to one at a time. What goes wrong is a Failure,
        and ends the connection, unless upstream has more to do with it than this response."""
        timeout_s = self.config.realtime.timeout_s
        async with self._one_at_a_time:
            try:
                yield timeout_s
            except TimeoutError:
                await self._hang_up()
                raise Failure(f"upstream: nothing came for {timeout_s:g} s") from None
            except (aiohttp.ClientError, OSError) as error:
                await self._hang_up()
                raise Failure(f"upstream: {error or type(error).__name__}"[:300]) from None
            except (Failure, asyncio.CancelledError):
                if not (self._live and self._connected):
                    # What upstream still says belongs to nobody, and it would believe that it has been heard.
                    await self._hang_up()
                raise

    async def _reach_for(self, items: Sequence[Item], more: Mapping[str, str] | None = None) -> None:
        """Sees to a connection that believes no more of its answers to be in the conversation than ``items`` have."""
        if self._live is None and self._made.cut_short(item for item in items if item.id not in self._known):
            await self._hang_up()
        await self._reach(more)

    async def _reach(self, more: Mapping[str, str] | None = None) -> None:
        """Sees to a connection: the one that there is, or another, which is asked for with these headers as well."""
        if self._connected:
            return
        await self._hang_up()
        config = self.config.realtime
        try:
            key = config.key_file.read_text().strip() if config.key_file else ""
        except OSError as error:
            raise Failure(f"agents.realtime.key_file: {error.strerror}") from None
        self._http = self._http or aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(
            config.url,
            params={"model": config.model},
            headers={**({"Authorization": f"Bearer {key}"} if key else {}), **(more or {})},
            max_msg_size=_MOST_MESSAGE,
            decode_text=False,
            heartbeat=config.timeout_s,
        )
        self._events = asyncio.Queue(_MOST_EVENTS)
        self._known.clear()
        self._made = Made()
        self._unnamed.clear()
        self._named.clear()
        if config.turns != "session":
            await self._agree(self._socket)
        self._reading = asyncio.get_running_loop().create_task(self._read(self._socket, self._events))

    async def _agree(self, socket: _Socket) -> None:
        """Settles who finds the turns."""
        agreement = Agreement(self.config.realtime.turns, self._settings)
        for event in agreement.send:
            await socket.send_json(event)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGREE_S):
                while agreement.who is None and not agreement.refused:
                    message = await socket.receive()
                    if socket.closed or message.type is aiohttp.WSMsgType.ERROR:
                        raise Failure(f"upstream: {agreement.complaint}")
                    for event in agreement.take(_event(message) or {}):
                        await socket.send_json(event)
        if agreement.refused:
            raise Failure(f"upstream: {agreement.refused}")
        agreement.expire()
        if agreement.who == "upstream":
            self._live = Live(self.line.transcribed)
            self._live.interrupts = events.turns_of(self._settings).get("interrupt_response", True)
            self._speaking = asyncio.get_running_loop().create_task(self._speak(socket))

    async def _hang_up(self) -> None:
        self._forget_live()
        reading, self._reading = self._reading, None
        if reading:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await socket.close()

    def _forget_live(self) -> None:
        self._live = None
        self._unsent.clear()
        if self._speaking:
            self._speaking.cancel()
        if self._waits:
            self._waits.cancel()
        if self._leads:
            self._leads = False
            self.line.cue("yours")

    async def _read(self, socket: _Socket, queue: asyncio.Queue[Event | None]) -> None:
        """Reads events; nonsense is passed over. Those of a response wait for it, and upstream waits where they are too
        many; where it finds the turns it is left instead, since it has to be heard."""
        async for message in socket:
            event = _event(message)
            if event is None:
                continue
            if self._live:
                if not self._heed(self._live, event, queue):
                    self._complain("upstream: it says more than can be passed on")
                    break
                continue
            item = str(event.get("item_id"))
            if event.get("type") == _COMMITTED and self._unnamed:
                self._named[item] = self._unnamed.popleft()
            elif event.get("type") == _TRANSCRIBED:
                if item in self._named and isinstance(text := event.get("transcript"), str):
                    self.line.transcribed(self._named.pop(item), text)
            elif str(event.get("type")).startswith("response.") or event.get("type") == "error":
                await queue.put(event)
        if self._live:
            self._forget_live()
            while queue.full():
                queue.get_nowait()
        await queue.put(None)

    def _heed(self, live: Live, event: Event, queue: asyncio.Queue[Event | None]) -> bool:
        """Takes one of the events of an upstream that finds the turns. Returns whether there was room for it."""
        error = event.get("error")
        if event.get("type") == "error" and isinstance(error, dict):
            if str(error.get("event_id")).startswith(events.OWN):
                return True
            if not self._tasks:
                self._complain(f"upstream: {events.message(error)}")
                return True
        cues, kept = live.take(event)
        for cue in cues:
            self.line.cue(cue)
            self._await_answer(live, cue == "ended")
        if kept:
            if queue.full():
                return False
            queue.put_nowait(event)
        return True

    def _await_answer(self, live: Live, waits: bool) -> None:
        """Has the client be told where upstream says nothing to a turn that it is to answer."""
        if self._waits:
            self._waits.cancel()
        if waits and events.turns_of(self._settings).get("create_response", True):
            timeout_s, answers = self.config.realtime.timeout_s, live.answers
            self._waits = asyncio.get_running_loop().call_later(timeout_s, self._unanswered, live, answers)

    def _unanswered(self, live: Live, answers: int) -> None:
        if live is self._live and live.answers == answers:
            self._complain(f"upstream: nothing came for {self.config.realtime.timeout_s:g} s")

    async def _speak(self, socket: _Socket) -> None:
        """Sends the caller's voice as it comes, as much at once as there is."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while not socket.closed:
                await self._sounds.wait()
                self._sounds.clear()
                pcm = bytes(self._unsent)
                self._unsent.clear()
                for event in events.appends(pcm):
                    await socket.send_json(event)

    def _aside(self, doing: Coroutine[Any, Any, None]) -> None:
        """Does something that nobody waits for; a connection that breaks over it is noticed where it is read."""
        task = asyncio.get_running_loop().create_task(_quietly(doing))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    # --- what upstream is told

    async def _send(self, event: Event) -> None:
        if self._socket is None:
            raise Failure("upstream: the connection broke")
        await self._socket.send_json(event)

    async def _tell_session(self, settings: Settings) -> None:
        """Tells upstream the settings of the session, or of a response that we ask for."""
        await self._send(events.session(settings, events.turns_of(self._settings) if self._live else None))

    async def _tell(self, items: Sequence[Item]) -> None:
        """Tells upstream the items that it does not know yet. Where it finds the turns, speech of which nobody knows
        the words cannot be told any more: it would be taken for a turn."""
        for item in items:
            if item.id in self._known:
                continue
            self._known[item.id] = None
            unheard = item.kind == "message" and item.role == "assistant" and not item.text
            if self._made.has(item, cut=self._live is not None) or unheard:
                continue
            if not events.is_speech(item):
                await self._send(events.item_event(item))
            elif self._live is None:
                for event in events.appends(item.pcm):
                    await self._send(event)
                self._unnamed.append(item.id)
                await self._send({"type": "input_audio_buffer.commit"})
        while len(self._known) > _MOST_KNOWN:
            self._known.pop(next(iter(self._known)))


async def _quietly(doing: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(Failure, aiohttp.ClientError, OSError):
        await doing


def _event(message: Any) -> Event | None:
    return events.decoded(message.data) if message.type is aiohttp.WSMsgType.TEXT else None
