"""The agent's side of a conversation: its responses, the one that is being made, and the one that is still heard."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from msgspec import Struct

from transceiver.agents import Item, Settings
from transceiver.parts import Parts
from transceiver.realtime.config import InvalidRequest, ResponseParams
from transceiver.realtime.formats import Writer
from transceiver.realtime.items import Items, said_bytes
from transceiver.realtime.playback import Playback, PlaybackState
from transceiver.realtime.response import Making, MakingState, Stage

__all__ = ["Speaking", "SpeakingState"]

_MOST_AT_ONCE = 8  # responses that are made, of which one at most is in the conversation
_MOST_KEPT = 32  # with those that are still heard
_MOST_KEPT_BYTES = 64 << 20  # of what they answer, which each keeps


class SpeakingState(Struct, frozen=True, array_like=True):
    """The agent's side as a value; ``quiet_s`` is how long nothing has been made or heard, if that is so."""

    makings: list[MakingState]
    active: str | None
    wanted: bool
    quiet_s: float | None
    playback: PlaybackState


class Speaking:
    """``respond`` and ``cancelled`` reach the agent; ``settings`` are the session's. ``playback`` is None where audio
    goes out in events. ``now`` is in seconds, and set by whoever drives this."""

    def __init__(
        self,
        emit: Callable[[dict[str, Any]], None],
        items: Items,
        playback: Playback | None,
        *,
        rate_hz: int,
        writer: Callable[[], Writer],
        settings: Callable[[], Settings],
        respond: Callable[[Making], None],
        cancelled: Callable[[Making], None],
    ) -> None:
        self.now = 0.0
        self.active: Making | None = None  # the one that is being made in the conversation
        self.quiet_since: float | None = None  # when the last was heard to its end, and none is made
        self._emit = emit
        self._items = items
        self._playback = playback
        self._stage = Stage(emit, items, playback, writer, rate_hz, self._finished)
        self._settings, self._ask, self._tell = settings, respond, cancelled
        self._makings: dict[str, Making] = {}  # those that are being made, or heard
        self._wanted = False
        self._left_over: list[Making] = []  # of an agent that is not there any more
        self._audible_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether the agent has the floor: something is being made in the conversation, or heard."""
        return self.active is not None or self._played

    @property
    def calm(self) -> Hashable:
        """What it is like while nothing is made, and speech that was made is heard; None while something is made."""
        heard = self._playback.response if self._playback is not None else ""
        return None if self.active is not None else (heard, len(self._makings))

    @property
    def _played(self) -> bool:
        return self._playback is not None and self._playback.busy

    def want(self) -> None:
        """Notes that there is something to answer: now, or when the present response is over."""
        if self.active is not None:
            self._wanted = True
        else:
            self.respond(ResponseParams(), self._settings(), self._items.view())

    def respond(self, params: ResponseParams, settings: Settings, items: list[Item]) -> None:
        """Begins a response to ``items``. Raises InvalidRequest where one is active or too many are made."""
        if params.conversation != "none" and self.active is not None:
            why = f"Conversation already has an active response in progress: {self.active.id}."
            raise InvalidRequest(why, "conversation_already_has_active_response")
        if sum(not making.over for making in self._makings.values()) >= _MOST_AT_ONCE:
            raise InvalidRequest(f"{_MOST_AT_ONCE} responses are being made.", "rate_limit_exceeded")
        kept = self._makings.values()
        answers_bytes = self._items.said_bytes if params.input is None else sum(map(said_bytes, items))
        if len(kept) >= _MOST_KEPT or sum(making.answers_bytes for making in kept) + answers_bytes > _MOST_KEPT_BYTES:
            raise InvalidRequest("Too many responses wait to be heard.", "rate_limit_exceeded")
        making = Making(self._stage, params, settings, items)
        making.answers_bytes = answers_bytes
        self._makings[making.id] = making
        if making.in_conversation:
            self.active, self._wanted = making, False
        self.quiet_since = None
        self._emit({"type": "response.created", "response": making.event()})
        self._emit({"type": "rate_limits.updated", "rate_limits": []})
        self._ask(making)

    def cancel(self, response: str | None) -> None:
        """Cancels a response because the client asks; what was handed over is still heard, until the client clears it.
        Raises InvalidRequest where nothing is being made."""
        making = self.active if response is None else self._makings.get(response)
        if making is None or making.over:
            raise InvalidRequest("Cancellation failed: no active response found.", "response_cancel_not_active")
        self._wanted = False
        making.finish("cancelled", "client_cancelled")
        self._tell(making)

    def interrupt(self) -> None:
        """Gives the caller the floor: nothing more is heard, and what was being made is cancelled."""
        lost = self.clear() if self._played else []
        if self.active is not None:
            self._wanted = False
            if self.active not in lost:
                lost.append(self.active)
            self.active.finish("cancelled", "turn_detected")
        for making in lost:
            making.cancelled = True
            self._tell(making)

    def clear(self) -> list[Making]:
        """Drops the speech that was not played, and truncates the items that it was part of. Returns the responses that
        lose by it."""
        assert self._playback is not None
        speaking = self._playback.response
        cuts = self._playback.hush()
        responses = list(dict.fromkeys([*([speaking] if speaking else []), *(cut.response for cut in cuts)]))
        for response in responses:
            self._emit({"type": "output_audio_buffer.cleared", "response_id": response})
        for cut in cuts:
            entry = self._items.get(cut.item)
            if entry is not None:
                self._emit(entry.truncated(cut.played_ms))
        lost = [self._makings[response] for response in responses if response in self._makings]
        for making in lost:
            making.muted = True
            making.heard_ms = making.spoken_ms - sum(cut.dropped_ms for cut in cuts if cut.response == making.id)
        self._settle()
        return lost

    def pass_over(self, frames: int) -> None:
        """Passes over so many frames of speech, over a path that is paced, because another process has sent them."""
        if self._playback is not None:
            self._playback.pass_over(frames)

    def frame(self) -> bytes:
        """The next 20 ms of speech, over a path that is paced; nothing where there are none."""
        if self._playback is None or not self._playback.busy:
            return b""
        frame = self._playback.frame()
        for response in frame.stopped:
            self._emit({"type": "output_audio_buffer.stopped", "response_id": response})
        if frame.started:
            self._emit({"type": "output_audio_buffer.started", "response_id": frame.started})
        if frame.stopped:
            self._settle()
        return frame.pcm

    def close(self) -> None:
        """Cancels all responses and tells nobody."""
        for making in self._makings.values():
            making.abandon()
        self._makings.clear()
        self.active = None
        self._stage.finished = lambda making: None  # a circle less: see runtime.letting_go

    def _finished(self, making: Making) -> None:
        if self.active is making:
            self.active = None
        if self._playback is None:
            self._audible_until = max(self._audible_until, self.now) + making.spoken_ms / 1000
        self._settle()
        if self._wanted and self.active is None:
            self.want()

    def _settle(self) -> None:
        """Forgets responses that are made and were heard."""
        for making in tuple(self._makings.values()):
            if making.over and not (self._playback is not None and self._playback.holds(making.id)):
                making.settled = True
                del self._makings[making.id]
        if not self._makings:
            self.quiet_since = max(self.now, self._audible_until)

    # --- as a value

    def export(self, parts: Parts) -> SpeakingState:
        """All of it, over a path that is paced."""
        assert self._playback is not None
        return SpeakingState(
            [making.export(parts) for making in self._makings.values()],
            None if self.active is None else self.active.id,
            self._wanted,
            None if self.quiet_since is None else self.now - self.quiet_since,
            self._playback.export(parts),
        )

    def take_up(self, state: SpeakingState, now: float, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off; then ``ask_again`` and, when events may be sent, ``tick`` are
        due. Raises ValueError where an item is missing."""
        assert self._playback is not None
        self.now = now
        for exported in state.makings[:_MOST_KEPT]:
            making = Making.taken_up(exported, self._stage, parts)
            self._makings[making.id] = making
        self.active = None if state.active is None else self._makings.get(state.active)
        self._wanted = state.wanted
        self.quiet_since = None if state.quiet_s is None else now - state.quiet_s
        self._playback.take_up(state.playback, parts)

    def ask_again(self) -> None:
        """Asks a new agent for the responses of which nothing has come. The others end at the next ``tick``."""
        makings = [making for making in self._makings.values() if not making.over]
        self._left_over = [making for making in makings if making.begun]
        for making in makings:
            if not making.begun:
                self._ask(making)

    def tick(self, now: float) -> None:
        """Ends the responses that another agent had begun to give when ``ask_again`` was called: what has come of them
        is heard, and no more comes."""
        self.now = now
        if not self._left_over:
            return
        left_over, self._left_over = self._left_over, []
        for making in left_over:
            making.finish("incomplete")
