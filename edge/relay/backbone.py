"""The backbone end of an edge: what edges of other clusters pass on for calls of this one comes in here, and answers go
back.

It is a worker's socket (``runtime/batch.py``) whose datagrams come by ZeroMQ from other clusters' workers instead of
from the network. The worker behind it, the gateway, treats them as it treats any client's: it opens the ufrag with this
cluster's keys, limits strangers, and passes on to the transceiver. To another cluster's worker it is what a transceiver
is: it answers its hello, and says which client has proved itself.

Whoever connects holds what this cluster shares (``ClusterKeys.shared``), and may still be wrong or hostile. It can make
the gateway see clients' addresses that it invented, which the open network can as well; and nothing is believed because
it came by here. Nothing that came by here leaves by the backbone again, so a datagram makes one hop.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zmq

from edge.relay.flowtable import words
from edge.relay.ways import Ways
from runtime.batch import BATCH, ROOM_BYTES, Words
from runtime.errors import ConfigError
from runtime.families import edge as families
from runtime.metrics import Tally
from wire import frames, greeting, link
from wire.control import Control, Reader, encode
from wire.frames import Data, WireError
from wire.keys import ClusterKeys
from wire.messages import Hello, Message, Refused
from wire.versions import OLDEST, spoken

__all__ = ["Backbone"]

_MESSAGES_A_READ = 64  # of which none need have a datagram
_MOST_WORKERS = 4096
_MOST_CONTROL_BYTES = 1024

Bytes = npt.NDArray[np.uint8]


@dataclass(slots=True)
class _Worker:
    """A worker of another cluster: the wire's version that it speaks, and its last stamp (``wire.frames``), with the
    time at which that was seen, until it is given back."""

    version: int = OLDEST
    stamp_ns: int = 0
    seen_ns: int = 0


class Backbone:
    """The end bound at ``endpoint``, in the form of a ``BatchSocket``; ``keys`` are the cluster's. Raises ConfigError
    where the endpoint is taken."""

    dropped = 0  # nothing is: ZeroMQ tells the other end to wait

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: ClusterKeys) -> None:
        try:
            self.pollable = link.router(context, endpoint, keys.shared())
        except zmq.ZMQError as e:
            raise ConfigError(f"edge.backbone {endpoint}: {e.strerror}") from None
        self.refused = Tally(families.BACKBONE_REFUSED)
        self._reader = Reader[Hello | Refused](Hello | Refused, most_control_bytes=_MOST_CONTROL_BYTES)
        self._workers: dict[bytes, _Worker] = {}
        self._ways = Ways()
        self._parts: deque[tuple[bytes, Data]] = deque()  # of one message
        self.data: Bytes = np.zeros((2 * BATCH, ROOM_BYTES), np.uint8)  # a batch that is nearly full, and a part
        self.lengths = np.zeros(0, np.uint16)
        self.addresses: Bytes = np.zeros((0, 18), np.uint8)
        self.came_ns = 0

    @property
    def words(self) -> Words:
        """See BatchSocket."""
        return words(self.addresses)

    def receive(self) -> int:
        """Receives a batch. Returns the number of datagrams, BATCH and more where others wait; 0 when there are
        none."""
        taken: list[tuple[bytes, Data]] = []
        count = 0
        for _ in range(_MESSAGES_A_READ):
            while self._parts and count < BATCH:
                taken.append(self._parts.popleft())
                count += len(taken[-1][1])
            if count >= BATCH or not self._read_one():
                break
        if taken:
            self._take(taken, count)
        return count

    def send(self, addresses: Bytes, lengths: npt.NDArray[np.uint16], body: bytes) -> tuple[int, int]:
        """See BatchSocket. What a worker has no room for, or whose worker is gone, is lost."""
        sent, total = 0, len(lengths)
        for worker, its_own in self._ways.split(addresses):
            if its_own.all():
                sent += self._pass(worker, addresses, lengths, body)
                break
            part = np.frombuffer(body, np.uint8)[np.repeat(its_own, lengths)].tobytes()
            sent += self._pass(worker, addresses[its_own], lengths[its_own], part)
        return sent, total

    def tell(self, address: bytes, message: Message) -> None:
        """Says something about a client to the worker by which it comes."""
        worker = self._ways.back(address)
        if worker is not None:
            self._give(worker, encode(message, None, self._known(worker).version))

    def _read_one(self) -> bool:
        """Reads a message, good or not. Returns whether there was one."""
        try:
            worker, *rest = self.pollable.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return False
        try:
            self._read(worker, rest)
        except WireError:
            self.refused["refused"] += 1
        return True

    def _read(self, worker: bytes, rest: list[bytes]) -> None:
        """Takes a message. Raises WireError where it cannot be used."""
        if len(rest) != 1:
            raise WireError(f"a message of {len(rest)} parts")
        said = self._reader.read(rest[0])
        known = self._known(worker)
        if isinstance(said, Control):
            self._greet(worker, said)
            return
        if not len(said) or int(said.lengths.max()) > ROOM_BYTES or not said.lengths.all():
            raise WireError("a datagram that no network carries")
        known.version = rest[0][1]
        if said.stamp_ns:
            known.stamp_ns, known.seen_ns = said.stamp_ns, time.monotonic_ns()
        self._parts.extend((worker, part) for part in said.parts(BATCH))

    def _greet(self, worker: bytes, said: Control[Hello | Refused]) -> None:
        """Replies to who says which versions it speaks. Raises OtherVersionError where this side speaks none."""
        if isinstance(said.message, Hello):
            self._give(worker, encode(greeting.hello(spoken()), said.request, OLDEST))
            greeting.agreed(spoken(), said.message)

    def _take(self, taken: list[tuple[bytes, Data]], count: int) -> None:
        """Makes these ``count`` datagrams what the last ``receive`` has received."""
        self.lengths = np.concatenate([part.lengths for _, part in taken]).astype(np.uint16)
        self.addresses = np.frombuffer(b"".join(part.addresses for _, part in taken), np.uint8).reshape(-1, 18)
        longest = int(self.lengths.max())
        there = np.arange(longest) < self.lengths[:, None]
        self.data[:count, :longest][there] = np.frombuffer(b"".join(part.body for _, part in taken), np.uint8)
        for worker, part in taken:
            self._ways.came(np.frombuffer(part.addresses, np.uint8).reshape(-1, 18), worker)
        self.came_ns = time.time_ns()

    def _pass(self, worker: bytes, addresses: Bytes, lengths: npt.NDArray[np.uint16], body: bytes) -> int:
        """Sends a batch to one worker. Returns how many of its datagrams have left."""
        known = self._known(worker)
        held_ns = time.monotonic_ns() - known.seen_ns if known.stamp_ns else 0
        message = frames.data(addresses.tobytes(), lengths, body, known.stamp_ns, held_ns, known.version)
        if not self._give(worker, message):
            return 0
        known.stamp_ns = 0
        return len(lengths)

    def _give(self, worker: bytes, message: bytes) -> bool:
        try:
            self.pollable.send_multipart([worker, message], zmq.NOBLOCK)
        except zmq.ZMQError:  # full (EAGAIN), or gone (EHOSTUNREACH)
            return False
        return True

    def _known(self, worker: bytes) -> _Worker:
        known = self._workers.get(worker)
        if known is None:
            known = self._workers[worker] = _Worker()
            if len(self._workers) > _MOST_WORKERS:
                del self._workers[next(iter(self._workers))]
        return known
