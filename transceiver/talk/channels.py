"""A call's data channels: which one is for events, and what is sent there.

The first channel that the client opens is for events, or that of its ``dcid``, whatever it is called. When that one is
closed the next takes its place. A client that replaces its channel may open the new one first, so one too many waits a
second before it is closed: none stays open and mute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiortc import RTCDataChannel
from msgspec import Struct

from transceiver.counters import SCTP_ABORTS
from transceiver.talk.talk import Talk

__all__ = ["Channels", "ChannelsState"]

_WHO = "events channel"
_MOST_BACKLOG_BYTES = 1 << 20
_DRAINED_BYTES = 1 << 18
# Of an event that we send: as much as browsers take. A larger one would keep the loop while SCTP cuts it up.
_LARGEST_EVENT_BYTES = 256 << 10
_WAITS_S = 1.0
_MOST_EARLY = 16  # messages on a channel that waits


class ChannelsState(Struct, frozen=True, array_like=True):
    """The channels of a call as a value, by their streams: the one that is for events, those that wait with what came
    on them, and how many events were dropped."""

    events: int | None
    waiting: list[tuple[int, list[bytes]]]
    dropped: int


class Channels:
    """The data channels of one call, for its ``talk``. ``most_bytes`` is what the client takes at once, 0 for any;
    ``failed(error)`` is called where the talk raises."""

    def __init__(
        self,
        talk: Talk,
        *,
        most_bytes: int,
        dcid: int | None,
        failed: Callable[[BaseException], None],
        log: Any,
    ) -> None:
        self._talk = talk
        self._most_bytes = min(most_bytes or _LARGEST_EVENT_BYTES, _LARGEST_EVENT_BYTES)
        self.dcid = dcid
        self._failed = failed
        self._log = log
        self._events: RTCDataChannel | None = None
        self._waiting: dict[RTCDataChannel, tuple[list[str | bytes], asyncio.TimerHandle]] = {}
        self._dropped = 0

    def opened(self, channel: RTCDataChannel) -> None:
        """Takes a channel that the client can use from now on."""
        self._listen(channel)
        if self.dcid is not None and channel.id != self.dcid:
            channel.close()
        elif self._events is None or self._events.readyState != "open":
            self._serve(channel)
        else:
            self._wait(channel, [])

    def export(self) -> ChannelsState:
        """What is known of them."""
        waiting = [(c.id, list(map(_as_bytes, early))) for c, (early, _) in self._waiting.items() if c.id is not None]
        return ChannelsState(None if self._events is None else self._events.id, waiting, self._dropped)

    def take_up(self, state: ChannelsState, channels: Iterable[RTCDataChannel]) -> None:
        """Goes on where ``export`` left off; nobody is greeted again."""
        early = dict(state.waiting)
        for channel in channels:
            self._listen(channel)
            if channel.id == state.events:
                self._use(channel)
                if _WHO not in self._talk.watchers:
                    self._talk.watchers.add(_WHO, self._send)
            else:
                self._wait(channel, list(early.get(channel.id or 0, ())[:_MOST_EARLY]))
        self._dropped = state.dropped

    def aborted(self, reason: str, why: str, error: Exception | None) -> None:
        """Takes note that we ended SCTP for what the client did with it."""
        SCTP_ABORTS[reason] += 1
        if error is None:
            self._log.warning("data channels aborted", reason=reason, why=why)
        else:
            self._log.error("data channels aborted", reason=reason, why=why, exc_info=error)

    def close(self) -> None:
        """Closes the channels: the call is over, or goes on elsewhere."""
        for _, refuse in self._waiting.values():
            refuse.cancel()
        self._waiting.clear()

    def _listen(self, channel: RTCDataChannel) -> None:
        channel.on("message", lambda message: self._message(channel, message))
        channel.on("close", lambda: self._closed(channel))

    def _wait(self, channel: RTCDataChannel, early: list[str | bytes]) -> None:
        self._waiting[channel] = (early, asyncio.get_running_loop().call_later(_WAITS_S, self._refuse, channel))

    def _use(self, channel: RTCDataChannel) -> None:
        self._events = channel
        channel.bufferedAmountLowThreshold = _DRAINED_BYTES
        channel.on("bufferedamountlow", self._drained)

    def _serve(self, channel: RTCDataChannel) -> None:
        self._stop_serving()
        self._use(channel)
        self._dropped = 0
        self._talk.watchers.add(_WHO, self._send)
        early, refuse = self._waiting.pop(channel, ([], None))
        if refuse is not None:
            refuse.cancel()
        self._guarded(self._talk.greet)
        for message in early:
            self._guarded(self._talk.client_event, message)

    def _stop_serving(self) -> None:
        self._events = None
        if _WHO in self._talk.watchers:
            self._talk.watchers.remove(_WHO)

    def _refuse(self, channel: RTCDataChannel) -> None:
        if self._events is None or self._events.readyState != "open":
            self._serve(channel)
        else:
            self._waiting.pop(channel, None)
            channel.close()

    def _closed(self, channel: RTCDataChannel) -> None:
        if channel in self._waiting:
            self._waiting.pop(channel)[1].cancel()
        if channel is not self._events:
            return
        self._stop_serving()
        if waiting := next((c for c in self._waiting if c.readyState == "open"), None):
            self._serve(waiting)

    def _message(self, channel: RTCDataChannel, message: str | bytes) -> None:
        if channel is self._events:
            self._guarded(self._talk.client_event, message)
        elif channel in self._waiting and len(early := self._waiting[channel][0]) < _MOST_EARLY:
            early.append(message)

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as e:
            self._failed(e)

    # --- out

    def _send(self, text: str, event: dict[str, Any], asked: str | None) -> None:
        channel = self._events
        if channel is None or channel.readyState != "open":
            return
        if self._dropped or channel.bufferedAmount > _MOST_BACKLOG_BYTES:
            self._dropped += 1
            return
        fitting = self._talk.protocol.fit(event, text, self._most_bytes, asked)
        for piece in fitting:
            channel.send(piece)
        if not fitting:
            self._log.warning("channel closed: no event fits in its max-message-size", bytes=self._most_bytes)
            channel.close()

    def _drained(self) -> None:
        channel, dropped = self._events, self._dropped
        if channel is not None and channel.readyState == "open" and dropped:
            self._dropped = 0
            protocol, why = self._talk.protocol, f"{dropped} events were not sent: more waited than is kept"
            channel.send(protocol.write(protocol.error("events_dropped", why))[1])


def _as_bytes(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()
