"""The queue of a client's events: they wait here and are handled in order, within the session's share of the media
loop. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from msgspec import Struct

from transceiver.realtime.config import InvalidRequest
from transceiver.realtime.reading import count_values, event_id_in, read
from transceiver.realtime.shapes import event_id_of

__all__ = ["Inbox", "InboxState", "Steps"]

_MOST_WAITING = 256
_MOST_WAITING_BYTES = 24 << 20
# What a session may take of the media loop in each 20 ms, and what its events are taken to cost, in microseconds. They
# are measured (2026, one core of 2.4 GHz) and rounded up; what was too much in one tick is made up for in the next.
_TICK_US = 1000
_MOST_OWED_US = 5 * _TICK_US
_EVENT_US = 40
_READ_BYTES_A_US = 2500
_VALUES_A_US = 5
_SENT_BYTES_A_US = 64  # encoded, encrypted and packed

Steps = Generator[float, None, None]  # that say what they took, in microseconds


class InboxState(Struct, frozen=True, array_like=True):
    """A queue of events as a value."""

    waiting: list[bytes]
    left_us: float


class Inbox:
    """The queue. ``handle(event)`` does what an event says, or gives the steps in which that is done; it may raise
    InvalidRequest, and so may each step. ``refuse(why, event_id)`` tells the client; ``sent_bytes()`` is how much it
    has been sent so far."""

    def __init__(
        self,
        handle: Callable[[dict[str, Any]], Steps | None],
        refuse: Callable[[InvalidRequest, str | None], None],
        sent_bytes: Callable[[], int],
    ) -> None:
        self._handle, self._refuse, self._sent_bytes = handle, refuse, sent_bytes
        self._waiting: deque[str | bytes] = deque()
        self.waiting_bytes = 0
        self._flooded = False
        # Of the event that is being handled: its id, and itself.
        self._steps: tuple[str | None, Steps] | None = None
        self._handled: str | bytes = b""
        self._left_us = float(_TICK_US)
        self.answering: str | None = None  # the ``event_id`` of the event that something is done about just now

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being handled."""
        return bool(self._waiting) or self._steps is not None

    def put(self, text: str | bytes) -> None:
        """Takes an event as it came. Past a bound it is refused, and the client is told once."""
        if len(self._waiting) >= _MOST_WAITING or self.waiting_bytes + len(text) > _MOST_WAITING_BYTES:
            if not self._flooded:
                self._flooded = True
                why = InvalidRequest("events come faster than they can be handled", "rate_limit_exceeded")
                self._refuse(why, event_id_in(text))
            return
        self._waiting.append(text)
        self.waiting_bytes += len(text)

    def tick(self) -> None:
        """Gives the session its share of another 20 ms, and handles what waited for that."""
        if self._left_us < _TICK_US:
            self._left_us = min(self._left_us + _TICK_US, _TICK_US)
        if self._waiting or self._steps is not None or self._flooded:
            self.work()

    def work(self) -> None:
        """Handles as much as may be done in this tick."""
        while self._left_us > 0:
            if not self._waiting and self._steps is None:
                self._flooded = False
                return
            sent = self._sent_bytes()
            if self._steps is not None:
                self._step(*self._steps)
            else:
                text = self._waiting.popleft()
                self.waiting_bytes -= len(text)
                self._begin(text)
            self._left_us -= (self._sent_bytes() - sent) / _SENT_BYTES_A_US
        self._left_us = max(self._left_us, -_MOST_OWED_US)

    def export(self) -> InboxState:
        """What waits. What is being handled in steps is begun anew: none but the last of them changes anything."""
        texts = [self._handled, *self._waiting] if self._steps is not None else self._waiting
        return InboxState([text if isinstance(text, bytes) else text.encode() for text in texts], self._left_us)

    def take_up(self, state: InboxState) -> None:
        """Goes on where ``export`` left off."""
        for text in state.waiting:
            self.put(text)
        self._left_us = min(state.left_us, _TICK_US)

    def close(self) -> None:
        """Forgets everything."""
        self._waiting.clear()
        self._steps = None

    def _begin(self, text: str | bytes) -> None:
        values = count_values(text)
        self._left_us -= _EVENT_US + len(text) / _READ_BYTES_A_US + values / _VALUES_A_US
        try:
            event = read(text, values)
            self.answering = event_id_of(event)
            steps = self._handle(event)
            if steps is not None:
                self._steps, self._handled = (self.answering, steps), text
        except InvalidRequest as e:
            self._refuse(e, self.answering or event_id_in(text))
        finally:
            self.answering = None

    def _step(self, event_id: str | None, steps: Steps) -> None:
        self.answering = event_id
        try:
            self._left_us -= next(steps)
        except StopIteration:
            self._steps, self._handled = None, b""
        except InvalidRequest as e:
            self._steps, self._handled = None, b""
            self._refuse(e, event_id)
        finally:
            self.answering = None
