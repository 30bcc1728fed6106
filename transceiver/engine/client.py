"""The client of the engine: one connection, over which any number of requests are made at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from runtime import config
from runtime.tracing.spans import NOTHING, Span
from transceiver.counters import ENGINE_REQUESTS, ENGINE_TIME, ENGINE_WAITING
from transceiver.engine import EngineError, Message, frames, spans
from transceiver.engine.frames import Done, FromEngine, Hello, Piece, Pong, Refused
from transceiver.engine.sound import LEAST_HZ, MOST_HZ
from transceiver.engine.starting import Connection, connected

__all__ = ["Client"]

_PATIENCE_S = 20.0
_PONG_S = 2.0
_TRIES, _PAUSE_S = 5, 0.1


class Client:
    """See ``transceiver.engine.Engine``. ``command`` starts the engine, which may say nothing for ``patience_s``.
    Requests have spans under that which ``under`` gives when they are made."""

    def __init__(
        self,
        about: config.Engine,
        *,
        command: Sequence[str] | None = None,
        patience_s: float = _PATIENCE_S,
        under: Callable[[], Span] = lambda: NOTHING,
    ) -> None:
        self._run = about.run
        self._command = command or (sys.executable, "-m", "transceiver.engine", about.model_dump_json())
        self._patience_s = patience_s
        self._under = under
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._closed = False

    async def start(self) -> None:
        """See Engine."""
        await self._connected()

    async def transcribe(self, pcm: bytes, rate: int, *, draft: bool = False) -> str:
        """See Engine."""
        pcm = _last(pcm, rate, 60)
        return (await self._asked("ears", lambda id: frames.Transcribe(id, pcm, rate, draft), draft=draft)).text

    async def ended(self, pcm: bytes, rate: int) -> float:
        """See Engine."""
        pcm = _last(pcm, rate, 8)
        return (await self._asked("turn", lambda id: frames.Ended(id, pcm, rate))).probability

    async def answer(self, call: int, messages: Sequence[Message], *, most_tokens: int) -> AsyncGenerator[str, None]:
        """See Engine."""
        stream = self._stream("mind", lambda id: frames.Answer(id, call, _turns(messages), most_tokens))
        async with aclosing(stream):
            async for frame in stream:
                if isinstance(frame, Piece):
                    yield frame.text

    async def read(self, call: int, messages: Sequence[Message]) -> None:
        """See Engine."""
        await self._asked("mind", lambda id: frames.Read(id, call, _turns(messages)), draft=True)

    async def speak(self, text: str) -> AsyncGenerator[bytes, None]:
        """See Engine."""
        stream = self._stream("voice", lambda id: frames.Speak(id, text))
        async with aclosing(stream):
            async for frame in stream:
                if isinstance(frame, Piece):
                    yield frame.pcm

    def forget(self, call: int) -> None:
        """See Engine."""
        if self._link is not None:
            self._link.send(frames.Forget(call))

    async def close(self) -> None:
        """See Engine."""
        self._closed = True
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _asked(self, part: str, request: Callable[[int], frames.FromClient], *, draft: bool = False) -> Done:
        stream = self._stream(part, request, draft=draft)
        async with aclosing(stream):
            async for frame in stream:
                if isinstance(frame, Done):
                    return frame
        raise EngineError("the engine said nothing")

    async def _stream(
        self, part: str, request: Callable[[int], frames.FromClient], *, draft: bool = False
    ) -> AsyncGenerator[FromEngine, None]:
        """What the engine answers, its end included, and counts how that was."""
        span = spans.asked(part, self._under(), draft=draft)
        began: float | None = time.monotonic()
        outcome = "broken"
        ENGINE_WAITING.add(part, 1)
        try:
            link = await self._connected()
            id = next(self._numbers)
            stream = link.stream(id, request(id), self._patience_s)
            async with aclosing(stream):
                async for frame in stream:
                    if began is not None:
                        took_s = time.monotonic() - began
                        ENGINE_TIME.add(took_s, part)
                        span.put({"gen_ai.response.time_to_first_chunk": took_s})
                        began = None
                    if isinstance(frame, Refused):
                        outcome = "busy" if frame.busy else "refused"
                        raise EngineError(frame.why, busy=frame.busy)
                    if isinstance(frame, Done):
                        outcome = "answered"
                    yield frame
        except (asyncio.CancelledError, GeneratorExit):
            outcome = outcome if outcome == "answered" else "cancelled"
            raise
        finally:
            ENGINE_WAITING.add(part, -1)
            ENGINE_REQUESTS.add(part, outcome)
            spans.ended(span, outcome)

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self._closed:
                raise EngineError("the client is closed")
            if self._link is None or self._link.gone:
                self._link = await self._linked()
            return self._link

    async def _linked(self) -> _Link:
        for _ in range(_TRIES):
            link = _Link(await connected(self._run, self._command))
            try:
                if await link.begin(self._patience_s):
                    return link
            except BaseException:
                await link.close()
                raise
            await link.close()  # it was about to end
            await asyncio.sleep(_PAUSE_S)
        raise EngineError("the engine did not say hello")


class _Link:
    """One connection, until it is ``gone``."""

    def __init__(self, connection: Connection) -> None:
        self._reader, self._writer = connection
        self.gone = False
        self._asked: dict[int, asyncio.Queue[FromEngine | None]] = {}
        self._pid = _pid_of(self._writer)
        self._pongs: asyncio.Queue[None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None
        self._pinging: asyncio.Task[None] | None = None

    async def begin(self, patience_s: float) -> bool:
        """Waits for the engine's first frame; whether it came."""
        try:
            async with asyncio.timeout(patience_s):
                first = await self._frame()
        except TimeoutError:
            await self._ping()
            return False
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return False
        if not isinstance(first, Hello):
            return False
        self._reading = asyncio.create_task(self._read())
        return True

    async def stream(self, id: int, request: frames.FromClient, patience_s: float) -> AsyncGenerator[FromEngine, None]:
        """The frames that answer the request ``id``, up to its end."""
        came = self._asked[id] = asyncio.Queue()
        over = False
        try:
            self.send(request)
            while not over:
                try:
                    async with asyncio.timeout(patience_s):
                        frame = None if self.gone and came.empty() else await came.get()
                except TimeoutError:
                    self._doubt()
                    raise EngineError(f"the models said nothing for {patience_s:g} s") from None
                if frame is None:
                    over = True
                    raise EngineError("the engine ended")
                over = isinstance(frame, Done | Refused)
                yield frame
        finally:
            del self._asked[id]
            if not over:
                self.send(frames.Cancel(id))

    def send(self, frame: frames.FromClient) -> None:
        """Sends it, unless the engine is gone."""
        if not self.gone:
            self._writer.write(frames.packed(frame))

    async def close(self) -> None:
        """Disconnects."""
        for task in (self._reading, self._pinging):
            if task is not None:
                task.cancel()
        self._end()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._frame()
                if isinstance(frame, Pong):
                    self._pongs.put_nowait(None)
                elif not isinstance(frame, Hello) and (queue := self._asked.get(frame.id)) is not None:
                    queue.put_nowait(frame)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self._writer.close()
        finally:
            self._end()

    def _end(self) -> None:
        self.gone = True
        for queue in self._asked.values():
            queue.put_nowait(None)
        if self._pid is not None:
            os.close(self._pid)
            self._pid = None

    async def _frame(self) -> FromEngine:
        size = frames.size_of(await self._reader.readexactly(frames.HEAD_BYTES))
        return frames.engine_frame(await self._reader.readexactly(size))

    def _doubt(self) -> None:
        """Has an engine killed that does not answer at all; one that is only slow is left alone."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        while not self._pongs.empty():
            self._pongs.get_nowait()
        self.send(frames.Ping(0))
        try:
            async with asyncio.timeout(_PONG_S):
                await self._pongs.get()
        except TimeoutError:
            if self._pid is not None:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._pid, signal.SIGKILL)


def _turns(messages: Sequence[Message]) -> tuple[frames.Turn, ...]:
    return tuple(frames.Turn(message["role"], message["content"]) for message in messages)


def _last(pcm: bytes, rate: int, seconds: int) -> bytes:
    """The end of the sound, in whole samples. Raises EngineError for a rate that no model knows."""
    if not LEAST_HZ <= rate <= MOST_HZ:
        raise EngineError(f"sound at {rate} Hz is not heard, only from {LEAST_HZ} to {MOST_HZ}")
    whole = len(pcm) & ~1
    return pcm[max(0, whole - rate * 2 * seconds) : whole]


def _pid_of(writer: asyncio.StreamWriter) -> int | None:
    """A descriptor of the process at the other end, whose number may be another process's by the time it is needed."""
    end: socket.socket = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
