"""The engine's server: it listens on a Unix socket, queues what clients ask for, and ends when nobody needs it.

It also ends when a model hangs. Its clients start another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Protocol

from runtime import logs
from transceiver.engine import EngineError, Message
from transceiver.engine.frames import (
    HEAD_BYTES,
    Answer,
    Cancel,
    Done,
    Ended,
    Forget,
    FrameError,
    FromClient,
    FromEngine,
    Hello,
    Piece,
    Ping,
    Pong,
    Read,
    Refused,
    Speak,
    Transcribe,
    Turn,
    client_frame,
    packed,
    size_of,
)
from transceiver.engine.workers import Job, Worker

__all__ = ["Models", "Server"]

_MOST_CLIENTS = 1024
_MOST_REQUESTS = 32  # of one client
_MOST_UNREAD_BYTES = 16 << 20
_MOST_WAITING = 16
_HANGS_S = 30.0
_LOOK_S = 0.5


class Models(Protocol):
    """The models, called in threads. What streams says so piece by piece, until it is told that nobody wants more."""

    cuda: tuple[str, ...]
    calls: int
    """Answers that may be made at once."""

    def transcribe(self, pcm: bytes, rate: int) -> str: ...

    def answer(
        self, call: tuple[int, int], messages: list[Message], most_tokens: int, piece: Callable[[str], bool]
    ) -> None: ...

    def read(self, call: tuple[int, int], messages: list[Message]) -> None: ...

    def speak(self, text: str, piece: Callable[[bytes], bool]) -> None: ...

    def ended(self, pcm: bytes, rate: int) -> float: ...

    def forget(self, call: tuple[int, int]) -> None: ...


class Server:
    """The server of ``models``. It ends after ``idle_s`` without a client, or at once if its ``parent`` is gone too.
    A model that has not got on for ``hangs_s`` ends it at once."""

    def __init__(self, models: Models, *, idle_s: float, parent: int | None = None, hangs_s: float = _HANGS_S) -> None:
        self._models, self._hangs_s = models, hangs_s
        self._idle_s, self._parent = idle_s, os.getppid() if parent is None else parent
        self._clients: set[_Client] = set()
        self._numbers = 0
        self._last = time.monotonic()
        self.workers = {
            "ears": Worker("ears", 1, _MOST_WAITING),
            "mind": Worker("mind", models.calls, _MOST_WAITING),
            "voice": Worker("voice", 1, _MOST_WAITING),
        }

    async def serve(self, socket: Path, ready: Callable[[], object] = lambda: None) -> None:
        """Serves at ``socket`` until nobody needs it; ``ready`` is called when it listens."""
        server = await asyncio.start_unix_server(self._connected, socket)
        ready()
        try:
            while not self._needless(time.monotonic()):
                self._look(time.monotonic())
                await asyncio.sleep(_LOOK_S)
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket)
            for client in list(self._clients):
                client.close()

    def _needless(self, now: float) -> bool:
        if self._clients:
            self._last = now
            return False
        return now - self._last > self._idle_s or os.getppid() != self._parent

    def _look(self, now: float) -> None:
        for part, worker in self.workers.items():
            if (stuck := worker.stuck_for(now)) > self._hangs_s:
                logs.get().error("a model hangs, and the engine ends", part=part, seconds=round(stuck))
                os._exit(70)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= _MOST_CLIENTS:
            writer.close()
            return
        self._numbers += 1
        client = _Client(self._numbers, self._models, self.workers, writer)
        self._clients.add(client)
        client.send(Hello(os.getpid(), self._models.cuda))
        try:
            while True:
                size = size_of(await reader.readexactly(HEAD_BYTES))
                client.take(client_frame(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except FrameError as e:
            logs.get().warning("a client of the engine sent nonsense, and was disconnected", why=str(e))
        finally:
            self._clients.discard(client)
            client.close()


class _Client:
    """One connection."""

    def __init__(self, number: int, models: Models, workers: dict[str, Worker], writer: asyncio.StreamWriter) -> None:
        self._number, self._models, self._workers, self._writer = number, models, workers, writer
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._calls: set[int] = set()

    def send(self, frame: FromEngine) -> None:
        """Sends it, unless the client has left. One that does not read is disconnected."""
        if self._writer.is_closing():
            return
        self._writer.write(packed(frame))
        if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self._writer.transport.abort()

    def take(self, frame: FromClient) -> None:
        """Does what the client asks for, or begins to."""
        match frame:
            case Cancel():
                if task := self._tasks.get(frame.id):
                    task.cancel()
            case Forget():
                self._forget(frame.call)
            case Ping():
                self.send(Pong(frame.id, {part: worker.waiting for part, worker in self._workers.items()}))
            case _ if frame.id in self._tasks:
                raise FrameError(f"request {frame.id} is there already")
            case _ if len(self._tasks) >= _MOST_REQUESTS:
                self.send(Refused(frame.id, "too many requests of one client", busy=True))
            case _:
                task = self._tasks[frame.id] = self._loop.create_task(self._run(frame.id, self._work(frame)))
                task.add_done_callback(lambda _: self._tasks.pop(frame.id, None))

    def close(self) -> None:
        """Ends all that it asked for, and the connection."""
        for task in list(self._tasks.values()):
            task.cancel()
        for call in list(self._calls):
            self._forget(call)
        self._writer.close()

    def _forget(self, call: int) -> None:
        self._calls.discard(call)
        self._models.forget((self._number, call))

    async def _run(self, number: int, work: Coroutine[Any, Any, Done]) -> None:
        try:
            self.send(await work)
        except EngineError as e:
            self.send(Refused(number, str(e), e.busy))
        except Exception as e:  # of a model: it costs this request alone
            logs.get().error("a model failed", why=repr(e)[:500])
            self.send(Refused(number, f"a model failed: {type(e).__name__}"))

    async def _work(self, frame: Transcribe | Answer | Read | Speak | Ended) -> Done:
        models, id = self._models, frame.id

        def streamed(job: Job, frame: Callable[[Any], Piece]) -> Callable[[Any], bool]:
            def piece(data: str | bytes) -> bool:
                if data and not job.cancelled:
                    self._loop.call_soon_threadsafe(self.send, frame(data))
                return job.beat()

            return piece

        match frame:
            case Transcribe(_, pcm, rate, draft):
                ears = self._workers["ears"]
                text = await ears.run(lambda job: models.transcribe(pcm, rate), yielding=draft)
                return Done(id, text=text)
            case Ended(_, pcm, rate):
                found = await self._workers["voice"].run(lambda job: models.ended(pcm, rate))
                return Done(id, probability=found)
            case Speak(_, text):
                await self._workers["voice"].run(
                    lambda job: models.speak(text, streamed(job, lambda pcm: Piece(id, pcm=pcm)))
                )
                return Done(id)
            case Answer(_, call, turns, most):
                about, messages = self._known(call), _messages(turns)
                await self._workers["mind"].run(
                    lambda job: models.answer(about, messages, most, streamed(job, lambda text: Piece(id, text=text)))
                )
                return Done(id)
            case Read(_, call, turns):
                about, messages = self._known(call), _messages(turns)
                await self._workers["mind"].run_last(lambda job: models.read(about, messages))
                return Done(id)

    def _known(self, call: int) -> tuple[int, int]:
        """The call by the name that it has among all clients' calls; of too many of one client some are forgotten."""
        self._calls.add(call)
        if len(self._calls) > 2 * _MOST_REQUESTS:
            self._forget(next(iter(self._calls - {call})))
        return self._number, call


def _messages(turns: Iterable[Turn]) -> list[Message]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]
