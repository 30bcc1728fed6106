"""The transceiver's end of the links to all edges: one ROUTER socket on the event loop.

The raw socket is drained without blocking when its descriptor says so; asyncio's own ZeroMQ integration costs
twelve times as much a message. Outgoing datagrams gather per worker until the loop has run everything that was
due, then leave as one message. Each edge process is a ``EdgeProcess``: one that is full keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import zmq

from transceiver.counters import WIRE_ERRORS
from transceiver.links.edge_process import EdgeProcess
from transceiver.links.edges import Edges
from wire import frames, greeting, opening
from wire.control import Control, MessageError, Reader, encode
from wire.frames import Data, OtherVersionError, WireError
from wire.messages import Hello, Message, Refused, Request, ToTransceiver
from wire.naming import seen_through
from wire.versions import GREETING, OLDEST, Versions, spoken

__all__ = ["MOST_PEERS", "Link"]

MOST_PEERS = 4096  # names of processes; whoever is gone makes room first
_LOOKED_AT = 16  # of them, when there is a new one

_MESSAGES_A_TURN = 64
# What comes in a flood is read a millisecond at a time, in pieces of half a millisecond: frames are due in between.
_TURN_S = 0.001
_DATAGRAMS_A_PIECE = 32
_FULL_S = 0.004  # until a peer that was full is tried again
# As plain integers: an operation on pyzmq's enumerations takes a microsecond.
_NOBLOCK, _EVENTS, _POLLIN = int(zmq.NOBLOCK), int(zmq.EVENTS), int(zmq.POLLIN)


class Link:
    """The links. It calls ``on_data(worker, batch)`` and ``on_control(peer, message)``, and answers each peer in the
    version of the wire that the peer speaks; ``versions`` are those that it knows itself."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_data: Callable[[bytes, Data], None],
        on_control: Callable[[bytes, Control[ToTransceiver]], None],
        versions: Versions | None = None,
    ) -> None:
        self._socket = socket
        self._on_data = on_data
        self._on_control = on_control
        self._versions = spoken() if versions is None else versions
        self._reader = Reader[ToTransceiver](ToTransceiver, versions=self._versions)
        self._outbox: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self._peers: dict[bytes, EdgeProcess] = {}
        self._edges = Edges(lambda name: self._peer(name).there)
        self._stamps: dict[bytes, tuple[int, int]] = {}  # by worker: its last stamp, and when that was seen
        self._full: dict[bytes, EdgeProcess] = {}
        self._retry: asyncio.Handle | None = None
        self._draining = False
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.Handle | None = None
        self._pieces: deque[tuple[bytes, Data]] = deque()  # of a batch that was begun
        self._loop.add_reader(socket.fileno(), self._drain)
        self._look_again()

    @property
    def peers(self) -> int:
        """The number of processes that are known, ``MOST_PEERS`` at most, whether they are still there or not."""
        return len(self._peers)

    def send(self, worker: bytes, address: bytes, datagram: bytes) -> None:
        """Queues a datagram; it leaves before the loop waits again."""
        if not self._outbox and not self._draining:
            self._loop.call_soon(self._flush)
        self._outbox.setdefault(worker, []).append((address, datagram))

    def control(self, peer: bytes, message: Message, request: int | None = None) -> None:
        """Sends a control message, or the reply to that request, after the datagrams queued so far: a goodbye leaves
        before its path goes down. Only where the peer is full it goes ahead of them."""
        self._flush()
        there = self._peer(peer)
        there.control(encode(message, request, there.version), time.monotonic())
        self._waits(peer, there)
        self._look_again()

    def listeners(self, least: int) -> list[bytes]:
        """The processes of edges that have spoken in version ``least`` or a later one, whether they are still there or
        not."""
        return [
            name
            for name, peer in self._peers.items()
            if peer.version >= least and b"/" in name and not seen_through(name)
        ]

    def close(self) -> None:
        """Sends what is queued and ends."""
        self._flush()
        self._loop.remove_reader(self._socket.fileno())
        for handle in (self._again, self._retry):
            if handle is not None:
                handle.cancel()
        # What was just said (goodbyes) may still be in ZeroMQ's hands.
        self._socket.close(linger=200)

    def _flush(self) -> None:
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, {}
        for worker, batch in outbox.items():
            peer = self._peer(worker)
            for at in range(0, len(batch), frames.MAX_DATAGRAMS):
                part = batch[at : at + frames.MAX_DATAGRAMS]
                stamp_ns, seen_ns = self._stamps.pop(worker, (0, 0))
                held_ns = time.monotonic_ns() - seen_ns if stamp_ns else 0
                peer.media(len(part), frames.pack_batch(part, stamp_ns, held_ns, peer.version), time.monotonic())
            self._waits(worker, peer)
        # Sending may swallow the edge that the descriptor shows only once.
        self._look_again()

    def _read(self, peer: bytes, said: bytes) -> Data | Control[ToTransceiver]:
        try:
            return self._reader.read(said)
        except OtherVersionError:
            renewed = opening.renewed(said) if self._peer(peer).greeted else None
            if renewed is None:
                raise
            return self._reader.read(renewed)

    def _greet(self, peer: bytes, hello: Hello, request: int | None) -> None:
        """Replies to who says which versions it speaks. Raises OtherVersionError where this side speaks none."""
        self.control(peer, greeting.hello(self._versions), request)
        greeting.agreed(self._versions, hello)
        self._peer(peer).greeted = True

    def _turn_away(self, peer: bytes, message: Data | Control[ToTransceiver]) -> None:
        """Tells the second edge of a name why nobody listens to it; a message of media gets no answer."""
        if isinstance(message, Control) and isinstance(message.message, Request):
            why = Refused(code="name_taken", message="another edge has this edge's name")
            self.control(peer, why, message.request)

    def _peer(self, name: bytes) -> EdgeProcess:
        return self._peers.get(name) or self._add(name)

    def _add(self, name: bytes) -> EdgeProcess:
        if len(self._peers) >= MOST_PEERS:
            self._forget_one()
        peer = self._peers[name] = EdgeProcess(name, self._socket)
        return peer

    def _forget_one(self) -> None:
        """Forgets one of those that came first: one that is gone, or that nothing waits for. Those that stay come later
        to be looked at again."""
        forgotten = b""
        for _ in range(_LOOKED_AT):
            name = next(iter(self._peers))
            peer = self._peers[name] = self._peers.pop(name)
            if not peer.there:
                forgotten = name
                break
            if not (forgotten or peer.waits):
                forgotten = name
        forgotten = forgotten or next(iter(self._peers))
        del self._peers[forgotten]
        self._stamps.pop(forgotten, None)
        self._full.pop(forgotten, None)

    def _waits(self, name: bytes, peer: EdgeProcess) -> None:
        """Sees to it that what could not be sent is tried again."""
        if peer.waits:
            self._full[name] = peer
            if self._retry is None:
                self._retry = self._loop.call_later(_FULL_S, self._flush_full)

    def _flush_full(self) -> None:
        self._retry = None
        full, self._full = self._full, {}
        for name, peer in full.items():
            peer.flush(time.monotonic())
            self._waits(name, peer)
        self._look_again()

    @property
    def _readable(self) -> bool:
        return bool(int(self._socket.get(_EVENTS)) & _POLLIN)

    def _look_again(self) -> None:
        if self._again is None and (self._pieces or self._readable):
            self._again = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Reads for a turn. What is answered at once leaves with the end of it, and not in another turn of the loop."""
        self._again = None
        self._draining = True
        try:
            self._drain_messages()
        finally:
            self._draining = False
            self._flush()

    def _drain_messages(self) -> None:
        until = time.monotonic() + _TURN_S
        for taken in range(_MESSAGES_A_TURN):
            if time.monotonic() >= until:
                break
            if self._pieces:
                self._take(*self._pieces.popleft())
                continue
            if taken and not self._readable:  # three times as quick as an exception that says so
                return
            try:
                peer = self._socket.recv(_NOBLOCK)
            except zmq.Again:
                return
            try:
                said = self._rest_of_message()
                message = self._read(peer, said)
                if isinstance(message, Control) and isinstance(message.message, Hello):
                    self._greet(peer, message.message, message.request)
                    continue
                self._peer(peer).version = said[1] if said[1] > GREETING else OLDEST
                if not self._edges.admits(peer, time.monotonic()):
                    WIRE_ERRORS["name_taken"] += 1
                    self._turn_away(peer, message)
                elif isinstance(message, Data):
                    if message.stamp_ns:
                        self._stamps[peer] = message.stamp_ns, time.monotonic_ns()
                    first, *others = message.parts(_DATAGRAMS_A_PIECE)
                    self._pieces.extend((peer, part) for part in others)
                    self._take(peer, first)
                else:
                    self._on_control(peer, message)
            except OtherVersionError as e:
                WIRE_ERRORS["other_version"] += 1
                there = self._peer(peer)
                there.complain(str(e))
                if e.request is not None:
                    why = Refused(code="invalid_request", message=str(e))
                    there.control(encode(why, e.request, GREETING), time.monotonic())
                    self._waits(peer, there)
            except WireError as e:
                WIRE_ERRORS["refused"] += 1
                self._peer(peer).complain(str(e))
                if isinstance(e, MessageError) and e.request is not None:
                    self.control(peer, Refused(code="invalid_request", message=str(e)), e.request)
            except Exception as e:
                # A fault of ours with one message; the descriptor would not tell again of those behind it.
                self._failed(e)
        self._look_again()

    def _rest_of_message(self) -> bytes:
        """What comes behind the name of the peer. Raises WireError where that is not one part."""
        part = self._socket.recv(_NOBLOCK, copy=False)
        if not part.more:
            return part.bytes
        parts = 1 + len(self._socket.recv_multipart(_NOBLOCK))
        raise WireError(f"a message of {parts} parts")

    def _take(self, peer: bytes, batch: Data) -> None:
        try:
            self._on_data(peer, batch)
        except Exception as e:
            self._failed(e)

    def _failed(self, error: Exception) -> None:
        WIRE_ERRORS["failed"] += 1
        self._loop.call_exception_handler({"message": "a message from an edge failed", "exception": error})
