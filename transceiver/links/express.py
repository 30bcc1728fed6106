"""The transceiver's side of the express path: it finds the edges of its host, and has the media of their callers come
to it, past the workers.

An edge has a door, a Unix socket in the folder that both run in (``wire/express.py``). As long as the edge's supervisor
is away, the sockets that it handed over serve on, because XDP serves on as well; its successor hands over the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Never

from runtime import logs
from runtime.batch import ROOM_BYTES
from runtime.process import instance
from transceiver.links.expressway import Batch, Clock, Expressway, Take
from wire import address, express
from wire.express import MOST_BYTES, SUFFIX, Challenge, ExpressError, Off, Proofs, Reads, Sockets, Took
from wire.keys import ClusterKeys

__all__ = ["Express"]

_LOOK_S = 0.25
_REFUSED_S = 5.0  # until an edge is asked again that said no
_GREETS_WITHIN_S, _PROBED_S = 4.0, 2.0
_SAYS_EVERY_S = 1.0
_MOST_EDGES = 16
_MOST_WAITED = 512


class Express:
    """The express paths of the transceiver ``number`` to the edges that have a door in ``run``. ``ways`` has them by
    the edge's name. ``take`` is given what comes; ``waits()`` says whether the media of every call waits for ``clock``.
    """

    def __init__(
        self,
        run: Path,
        number: int,
        keys: Callable[[], ClusterKeys],
        take: Take,
        waits: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self.ways: dict[bytes, Expressway] = {}
        self._run, self._number, self._keys, self._take = run, number, keys, take
        self._waits, self._clock = waits, clock
        self._doors: dict[Path, asyncio.Task[None]] = {}

    @property
    def dropped(self) -> int:
        """The number of datagrams for which the kernel had no room."""
        return sum(way.dropped for way in list(self.ways.values()))

    async def run(self) -> Never:
        """Looks for edges, and speaks with each."""
        while True:
            for path in self._found():
                if path not in self._doors:
                    self._doors[path] = asyncio.create_task(self._speak(path))
            by_clock = self._waits()
            for way in self.ways.values():
                way.look_by_clock(by_clock)
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """Ends them all. The edges have media go by their workers then."""
        for task in self._doors.values():
            task.cancel()
        for way in self.ways.values():
            way.close()
        self.ways.clear()

    def _found(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(self._run.glob(f"*{SUFFIX}"))[:_MOST_EDGES]
        return []

    async def _speak(self, path: Path) -> None:
        """Speaks with the edge at that door until the connection ends; later ``run`` comes again."""
        pause_s = 0.0
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as connection:
                await asyncio.get_running_loop().sock_connect(connection, str(path))
                # An edge that begins has its door before it can speak, and one that ends has it for a moment more.
                said, _ = await _received(connection)
                if said:
                    async with asyncio.timeout(_GREETS_WITHIN_S):
                        edge = await self._greet(connection, path, said)
                    while edge and await self._hear(connection, edge):
                        pass
                    pause_s = 0.0 if edge else _REFUSED_S
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            pass  # it is away, or the file is what one left that was killed
        except (OSError, ExpressError, TimeoutError) as e:
            pause_s = _REFUSED_S
            logs.get().warning("no express path to an edge", door=str(path), why=str(e) or "it said nothing")
        except Exception:
            pause_s = _REFUSED_S
            logs.get().exception("the express path to an edge failed", door=str(path))
        await asyncio.sleep(pause_s)
        del self._doors[path]

    async def _greet(self, connection: socket.socket, path: Path, said: bytes) -> bytes:
        """Answers the edge's first words. Returns the name of the edge that handed sockets over; empty where it did
        not. Raises OSError and ExpressError."""
        challenge = express.read(said)
        if not isinstance(challenge, Challenge):
            raise ExpressError("the edge does not say who it is")
        proofs = Proofs(self._keys(), challenge)
        claim = proofs.claim(self._number, instance(path.parent))
        connection.send(claim.dump())
        said, sockets = await _received(connection)
        try:
            answer = express.read(said)
            if not isinstance(answer, Sockets | Off) or not proofs.believes_edge(claim, answer.proof):
                raise ExpressError("it does not hold the keys of this cluster")
            edge = challenge.edge.encode()
            if isinstance(answer, Off):
                if answer.why != "held":  # by a process of this number that is yet to end
                    self._end(edge, answer.why)
                return b""
            if len(sockets) != 2:
                raise ExpressError(f"it handed {len(sockets)} sockets over")
            waited = [] if self._has(edge, *sockets) else await _until(answer.probe, sockets[0])
            if waited is None:
                return b""
            self._use(edge, *sockets)
            sockets = []
            if waited:
                self._take(edge, waited, [time.monotonic()] * len(waited))
        finally:
            for sock in sockets:
                sock.close()
        connection.send(Reads().dump())
        return edge

    async def _hear(self, connection: socket.socket, edge: bytes) -> bool:
        """Whether the edge goes on, when it has said something, or nothing for a while: then it is told that this
        transceiver reads."""
        try:
            async with asyncio.timeout(_SAYS_EVERY_S):
                said, sockets = await _received(connection)
        except TimeoutError:
            if edge in self.ways:
                with contextlib.suppress(
                    OSError
                ):  # an edge that has ended is noticed at once, and one that stands still
                    connection.send(Took(self.ways[edge].taken).dump())
            return True
        for sock in sockets:
            sock.close()
        if said and isinstance(answer := express.read(said), Off):
            self._end(edge, answer.why)
            return False
        return bool(said)

    def _has(self, edge: bytes, *sockets: socket.socket) -> bool:
        """Whether these are the sockets by which media comes already."""
        way = self.ways.get(edge)
        return way is not None and way.identities == tuple(os.fstat(sock.fileno()).st_ino for sock in sockets)

    def _use(self, edge: bytes, reading: socket.socket, sending: socket.socket) -> None:
        way = Expressway(edge, reading, sending, self._take, self._clock)
        former = self.ways.get(edge)
        if former is not None and former.identities == way.identities:
            way.close()
            return
        if former is not None:
            former.close()
        self.ways[edge] = way
        logs.get().info("media of an edge comes past its workers", edge=edge.decode())

    def _end(self, edge: bytes, why: str) -> None:
        way = self.ways.pop(edge, None)
        if way is not None:
            way.close()
            logs.get().info("media of an edge comes by its workers", edge=edge.decode(), why=why)


async def _until(probe: bytes, reading: socket.socket) -> Batch | None:
    """The last of what comes before that datagram: a process that died may have left it. None where the datagram does
    not come."""
    loop, waited = asyncio.get_running_loop(), deque[tuple[bytes, bytes]](maxlen=_MOST_WAITED)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PROBED_S):
            while True:
                datagram, sender = await loop.sock_recvfrom(reading, ROOM_BYTES)
                if datagram == probe:
                    return list(waited)
                if datagram:
                    waited.append((address.pack(*sender[:2]), datagram))
    return None


async def _received(connection: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """A message, empty at the end, and the sockets that came with it. Raises OSError."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    said, fds, _, _ = socket.recv_fds(connection, MOST_BYTES, 2)
    return said, [socket.socket(fileno=fd) for fd in fds]
