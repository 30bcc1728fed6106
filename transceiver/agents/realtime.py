"""The agent ``realtime``: it relays the call to another server of the Realtime protocol, over a WebSocket
(``[agents.realtime]``).

Turn detection there is off: ours decides, because only ours knows what the caller has really been told. So every turn
is sent whole when an answer is wanted (``input_audio_buffer.append`` and ``commit``), a response is asked for, and what
comes back is streamed into ours. A connection that breaks costs the response that was being made. A response that was
cancelled, or of which the caller has not heard all, takes its connection along, since upstream would believe that it
has been heard. The next turn makes another connection and tells it the settings and the conversation so far, in which
transcribed speech is text.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from runtime.tracing.spans import Value
from transceiver.agents import Item, Line, Response, Settings
from transceiver.speech.tasks import Answering, Failure
from transceiver.speech.upstream import asked
from transceiver.turns import tokens

_MOST_MESSAGE = 1 << 22  # bytes
_MOST_EVENTS = 256  # that wait for a response to take them
_PIECE = 24000 * 2  # a second
_MOST_KNOWN = 4096
_MOST_MADE = 128  # items of upstream's that we were not told of: those of one response
_MOST_SAID = 1 << 20  # characters of one of them
_COMMITTED = "input_audio_buffer.committed"
_CALLED = "response.function_call_arguments.done"
_WORDS = "response.output_audio_transcript.delta", "response.output_text.delta"
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class Agent(Answering):
    """One call's connection to it."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MOST_EVENTS)
        self._known: dict[str, None] = {}
        self._made = _Made()
        # Our ids of the speech that upstream has not named yet, oldest first; ours by upstream's afterwards.
        self._unnamed: deque[str] = deque(maxlen=_MOST_KNOWN)
        self._named: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()

    async def close(self) -> None:  # type: ignore[override]
        await super().close()
        await self._hang_up()
        if self._http:
            await self._http.close()

    async def warm(self, settings: Settings, items: Sequence[Item]) -> None:  # type: ignore[override]
        """Connects, and tells upstream the conversation so far."""
        async with self._upstream() as timeout_s, asyncio.timeout(timeout_s):
            await self._tell(await self._reach_for(items), settings, items)

    async def _answer(self, response: Response) -> None:
        async with self._upstream() as timeout_s:
            config = self.config.realtime
            with asked("realtime", response.span, model=config.model, url=config.url) as request:
                async with asyncio.timeout(timeout_s):
                    socket = await self._reach_for(response.items, request.headers)
                    await self._tell(socket, response.settings, response.items)
                    while not self._events.empty():  # of no response that anybody wants
                        if self._events.get_nowait() is None:
                            raise Failure("upstream: the connection broke")
                    await socket.send_json({"type": "response.create"})
                while True:
                    async with asyncio.timeout(timeout_s):
                        event = await self._events.get()
                    if event is None:
                        raise Failure("upstream: the connection broke")
                    request.began()
                    if event.get("type") == "response.done":
                        request.span.put(_tokens(event))
                    self._made.take(event)
                    if _take(event, response):
                        return

    @contextlib.asynccontextmanager
    async def _upstream(self) -> AsyncIterator[float]:
        """Gives the time that upstream has for each step, in seconds, to one at a time. What goes wrong is a Failure,
        and ends the connection."""
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
                # What upstream still says belongs to nobody, and it would believe that it has been heard.
                await self._hang_up()
                raise

    async def _reach_for(
        self, items: Sequence[Item], more: Mapping[str, str] | None = None
    ) -> aiohttp.ClientWebSocketResponse:
        """A connection that believes no more of its answers to be in the conversation than ``items`` have."""
        if self._made.cut_short(item for item in items if item.id not in self._known):
            await self._hang_up()
        return await self._reach(more)

    async def _reach(self, more: Mapping[str, str] | None = None) -> aiohttp.ClientWebSocketResponse:
        """The connection: the one that there is, or another, which is asked for with these headers as well."""
        if self._socket and not self._socket.closed and self._reading and not self._reading.done():
            return self._socket
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
            heartbeat=config.timeout_s,
        )
        self._events = asyncio.Queue(_MOST_EVENTS)
        self._known.clear()
        self._made = _Made()
        self._unnamed.clear()
        self._named.clear()
        self._reading = asyncio.get_running_loop().create_task(self._read(self._socket, self._events))
        return self._socket

    async def _hang_up(self) -> None:
        reading, self._reading = self._reading, None
        if reading:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await socket.close()

    async def _read(
        self, socket: aiohttp.ClientWebSocketResponse, events: asyncio.Queue[dict[str, Any] | None]
    ) -> None:
        """Reads events. Those of a response wait for it, and upstream waits where they are too many; nonsense is passed
        over."""
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                event = msgspec.json.decode(message.data)  # strict: what is passed on has to be JSON again
            except (ValueError, RecursionError):
                continue
            if not isinstance(event, dict):
                continue
            item = str(event.get("item_id"))
            if event.get("type") == _COMMITTED and self._unnamed:
                self._named[item] = self._unnamed.popleft()
            elif event.get("type") == _TRANSCRIBED:
                if item in self._named and isinstance(text := event.get("transcript"), str):
                    self.line.transcribed(self._named.pop(item), text)
            elif str(event.get("type")).startswith("response.") or event.get("type") == "error":
                await events.put(event)
        await events.put(None)

    async def _tell(self, socket: aiohttp.ClientWebSocketResponse, settings: Settings, items: Sequence[Item]) -> None:
        """Tells upstream the settings, and the items that it does not know yet."""
        await socket.send_json({"type": "session.update", "session": _session(settings)})
        for item in items:
            if item.id in self._known:
                continue
            self._known[item.id] = None
            if self._made.has(item):
                continue
            if item.kind == "message" and item.role == "assistant" and not item.text:
                continue
            for at in range(0, len(item.pcm) if _is_speech(item) else 0, _PIECE):
                audio = b64encode(item.pcm[at : at + _PIECE]).decode()
                await socket.send_json({"type": "input_audio_buffer.append", "audio": audio})
            if _is_speech(item):
                self._unnamed.append(item.id)
                await socket.send_json({"type": "input_audio_buffer.commit"})
            else:
                await socket.send_json({"type": "conversation.item.create", "item": _item(item)})
        while len(self._known) > _MOST_KNOWN:
            self._known.pop(next(iter(self._known)))


class _Made:
    """What upstream itself has made over one connection, and is not in the conversation's items yet as far as we were
    told. Our ids of these items are not known to whoever makes them: messages are told by their words, function calls
    by the ids that upstream gave them."""

    def __init__(self) -> None:
        self._messages: deque[str] = deque(maxlen=_MOST_MADE)
        self._calls: deque[str] = deque(maxlen=_MOST_MADE)
        self._saying = ""

    def take(self, event: dict[str, Any]) -> None:
        """Takes one of upstream's events. A message of ours ends where upstream calls a function, or is done."""
        kind, delta = event.get("type"), event.get("delta")
        if kind in _WORDS and isinstance(delta, str):
            self._saying = (self._saying + delta)[:_MOST_SAID]
        elif kind in (_CALLED, "response.done"):
            if self._saying:
                self._messages.append(self._saying)
            self._saying = ""
            if kind == _CALLED and isinstance(event.get("call_id"), str):
                self._calls.append(event["call_id"])

    def has(self, item: Item) -> bool:
        """Whether upstream made that item; each is asked for once."""
        made, name = (self._calls, item.call_id) if item.kind == "function_call" else (self._messages, item.text)
        if (item.kind != "function_call" and not _is_answer(item)) or name not in made:
            return False
        made.remove(name)
        return True

    def cut_short(self, items: Iterable[Item]) -> bool:
        """Whether one of these is less than upstream said: the rest was not heard."""
        left = list(self._messages)
        for item in filter(_is_answer, items):
            if item.text in left:
                left.remove(item.text)
            elif any(made.startswith(item.text) for made in left):
                return True
        return False


def _is_answer(item: Item) -> bool:
    return item.kind == "message" and item.role == "assistant"


def _take(event: dict[str, Any], response: Response) -> bool:
    """Streams one of upstream's events into the response. Returns True where it was the last. Raises Failure."""
    kind, delta = event.get("type"), event.get("delta")
    if kind == "error":
        raise Failure(f"upstream: {_message(event.get('error'))}")
    if kind == "response.done":
        done = event.get("response")
        done = done if isinstance(done, dict) else {}
        if done.get("status") == "failed":
            details = done.get("status_details")
            raise Failure(f"upstream: {_message(details.get('error') if isinstance(details, dict) else None)}")
        usage = done.get("usage")
        response.done(usage if isinstance(usage, dict) else None)
        return True
    if kind == _CALLED:
        name, arguments = event.get("name"), event.get("arguments")
        if isinstance(name, str) and isinstance(arguments, str):
            response.call(name, arguments, str(event.get("call_id") or ""))
    elif isinstance(delta, str):
        if kind == "response.output_audio.delta":
            with contextlib.suppress(binascii.Error, ValueError):
                pcm = b64decode(delta, validate=True)
                response.audio(pcm[: len(pcm) & ~1])
        elif kind == "response.output_audio_transcript.delta":
            response.transcript(delta)
        elif kind == "response.output_text.delta":
            response.text(delta)
    return False


def _tokens(event: dict[str, Any]) -> dict[str, Value | None]:
    done = event.get("response")
    usage = done.get("usage") if isinstance(done, dict) else None
    return tokens(usage if isinstance(usage, dict) else None)


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or "it failed and did not say why")[:200]


def _is_speech(item: Item) -> bool:
    return item.role == "user" and bool(item.pcm) and not item.text


def _session(settings: Settings) -> dict[str, Any]:
    pcm = {"type": "audio/pcm", "rate": 24000}
    voice = {"voice": settings.voice} if settings.voice else {}
    return {
        "type": "realtime",
        "instructions": settings.instructions,
        "output_modalities": [settings.modality],
        "tools": list(settings.tools),
        "tool_choice": settings.tool_choice,
        "audio": {
            "input": {"format": pcm, "turn_detection": None, "transcription": _transcription(settings.more)},
            "output": {"format": pcm, **voice},
        },
    }


def _transcription(session: dict[str, Any]) -> Any:
    """The transcription settings of the client's session."""
    for key in ("audio", "input", "transcription"):
        session = session.get(key) if isinstance(session, dict) else None  # type: ignore[assignment]
    return session


def _item(item: Item) -> dict[str, Any]:
    if item.kind == "function_call":
        return {"type": item.kind, "name": item.name, "arguments": item.arguments, "call_id": item.call_id}
    if item.kind == "function_call_output":
        return {"type": item.kind, "call_id": item.call_id, "output": item.text}
    kind = "output_text" if item.role == "assistant" else "input_text"
    content: list[dict[str, str]] = [{"type": kind, "text": item.text}]
    content += [{"type": "input_image", "image_url": url} for url in item.images]
    return {"type": "message", "role": item.role or "user", "content": content}
