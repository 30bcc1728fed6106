"""One process of an edge, as the transceiver's link sees it: its messages, and what waits for it while it is full.

Media waits a moment, and then the oldest goes (``wire.outbox``). Control messages are kept and go first: a path that
the worker knows a little early does no harm, while one that it never hears of costs a call.
"""

from __future__ import annotations

from collections import deque

import zmq

from runtime import logs
from transceiver.counters import CONTROL, TX_DATAGRAMS
from wire.frames import pack_batch
from wire.outbox import Outbox
from wire.versions import OLDEST

__all__ = ["EdgeProcess"]

# More than a full transceiver says until the kernel tells that the other is gone; events may be large.
_MOST_CONTROL, _MOST_CONTROL_BYTES = 4096, 64 << 20
# As plain integers: an operation on pyzmq's enumerations takes a microsecond.
_NOBLOCK, _NAME = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)


class EdgeProcess:
    """The way to the process ``name`` by a ROUTER. It counts what becomes of each datagram."""

    def __init__(self, name: bytes, router: zmq.Socket[bytes]) -> None:
        self._name = name
        self._router = router
        self.version = OLDEST  # of the wire: that of the last message from there
        self.greeted = False  # whether it has said a hello that could be answered
        self._complained = False
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._media = Outbox[tuple[int, bytes]](lambda batch: self._count("edge_full", batch[0]))

    @property
    def waits(self) -> bool:
        """Whether anything waits for room."""
        return bool(self._control or self._media)

    @property
    def there(self) -> bool:
        """Whether a process of that name is connected. Asking sends it a message that says nothing."""
        try:
            self._put(pack_batch([], version=self.version))
        except ConnectionResetError:
            return False
        return True

    def control(self, message: bytes, now: float) -> None:
        """Sends a control message, at once or as soon as there is room."""
        self._control.append(message)
        self._control_bytes += len(message)
        while len(self._control) > _MOST_CONTROL or (
            self._control_bytes > _MOST_CONTROL_BYTES and len(self._control) > 1
        ):
            self._control_bytes -= len(self._control.popleft())
            CONTROL["edge_full"] += 1
        self.flush(now)

    def media(self, count: int, message: bytes, now: float) -> None:
        """Sends a data message of ``count`` datagrams, at once or soon."""
        if self.waits or not self._sent(count, message):
            self._media.put((count, message), len(message), now)
            self.flush(now)

    def _sent(self, count: int, message: bytes) -> bool:
        """Sends a data message past the queue, which is empty. Returns False where it has to wait."""
        try:
            if not self._put(message):
                return False
        except ConnectionResetError:
            self._count("edge_gone", count)
        else:
            self._count("sent", count)
        return True

    def complain(self, why: str) -> None:
        """Logs once that this process cannot be understood; its every message would say the same."""
        if not self._complained:
            self._complained = True
            logs.get().error("an edge's messages cannot be used", edge=self._name.decode(errors="replace"), why=why)

    def flush(self, now: float) -> None:
        """Sends what waits, as far as there is room for it; ``now`` is in seconds, monotonic."""
        try:
            while self._control:
                if not self._put(self._control[0]):
                    break
                self._control_bytes -= len(self._control.popleft())
                CONTROL["sent"] += 1
            self._media.flush(self._give, now)
        except ConnectionResetError:
            CONTROL["edge_gone"] += len(self._control)
            self._control.clear()
            self._control_bytes = 0
            for count, _ in self._media.clear():
                self._count("edge_gone", count)

    def _give(self, batch: tuple[int, bytes]) -> tuple[int, bytes] | None:
        # While a path is not yet known, what is for it would be dropped.
        if self._control or not self._put(batch[1]):
            return batch
        self._count("sent", batch[0])
        return None

    def _put(self, message: bytes) -> bool:
        """Sends a message. Returns False where there is no room. Raises ConnectionResetError where nobody is there."""
        try:
            self._router.send(self._name, _NAME)
            self._router.send(message, _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as e:
            if e.errno != zmq.EHOSTUNREACH:
                raise
            raise ConnectionResetError from None
        return True

    def _count(self, outcome: str, count: int) -> None:
        TX_DATAGRAMS[outcome] += count
