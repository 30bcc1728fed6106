"""One response while it is made: what the agent hands over becomes items and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from runtime.tracing.spans import NOTHING, Span
from transceiver.agents import Item, Settings
from transceiver.counters import RESPONSES
from transceiver.parts import Parts
from transceiver.realtime.config import ResponseParams
from transceiver.realtime.formats import Writer
from transceiver.realtime.items import Entry, EntryState, Items, ItemState, item_of, item_state, new_id
from transceiver.realtime.playback import Playback

__all__ = ["Making", "MakingState", "Stage"]

_DELTA_S = 1  # of audio in one event
_MOST_ITEMS = 128
_MOST_TEXT = 1 << 20
_MOST_AUDIO_S = 600


class MakingState(Struct, frozen=True, array_like=True):
    """A response as a value. ``items``, that it answers, are not there once it is made. What is an item of the
    conversation's in ``items`` or ``output`` is there by its id; ``open`` says whether the last of these is being
    written."""

    id: str
    settings: Settings
    items: list[str | ItemState]
    conversation: str | None
    metadata: dict[str, Any] | None
    status: str
    cancelled: bool
    muted: bool
    spoken_ms: int
    answers_bytes: int
    details: dict[str, Any] | None
    usage: dict[str, Any] | None
    output: list[str | EntryState]
    open: bool
    audio_bytes: int
    item_bytes: int
    characters: int


@dataclass(slots=True)
class Stage:
    """The surroundings of responses. ``playback`` is None where audio goes out in events, by a ``writer`` each."""

    emit: Callable[[dict[str, Any]], None]
    items: Items
    playback: Playback | None
    writer: Callable[[], Writer]
    rate_hz: int
    finished: Callable[[Making], None]


class Making:
    """A response of ``transceiver.agents.Response``, on the loop of the conversation. ``status`` is as clients see it;
    ``spoken_ms`` is how much speech there was."""

    def __init__(self, stage: Stage, params: ResponseParams, settings: Settings, items: Sequence[Item]) -> None:
        self.id = new_id("resp")
        self.settings = settings
        self.items = items
        self.params = params
        self.span: Span = NOTHING
        self.status = "in_progress"
        self.cancelled = False
        self.muted = False  # its speech is not wanted any more
        self.settled = False  # made and heard: nothing happens to it any more
        self.spoken_ms = 0
        self.heard_ms: int | None = None  # of that, where the rest was dropped
        self.answers_bytes = 0  # of what it answers
        self._stage = stage
        self._writer = stage.writer() if stage.playback is None else None
        self._details: dict[str, Any] | None = None
        self._usage: dict[str, Any] | None = None
        self._output: list[Entry] = []
        self._open: Entry | None = None  # the message that is being written
        self._audio_bytes = 0
        self._item_bytes = 0
        self._characters = 0

    @property
    def in_events(self) -> bool:
        """Whether its speech goes out in events, which have to be made, and not as media."""
        return self._writer is not None

    @property
    def in_conversation(self) -> bool:
        """Whether its items become part of the conversation."""
        return self.params.conversation != "none"

    @property
    def over(self) -> bool:
        return self.status != "in_progress"

    def event(self) -> dict[str, Any]:
        """The ``response`` of ``response.created`` and ``response.done``."""
        more = self.settings.more
        out = more["audio"]["output"]
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self._details,
            "output": [entry.event() for entry in self._output],
            "conversation_id": "conv_default" if self.in_conversation else None,
            "output_modalities": [self.settings.modality],
            "max_output_tokens": more["max_output_tokens"],
            "audio": {"output": {"format": out["format"], "voice": self.settings.voice or "default"}},
            "usage": self._usage,
            "metadata": self.params.metadata,
        }

    # --- from the agent

    def audio(self, pcm: bytes) -> None:
        """Takes more speech."""
        if self.over or self.muted or not pcm or self.settings.modality == "text":
            return
        self._audio_bytes += len(pcm)
        playback = self._stage.playback
        entry = self._part("output_audio")
        if entry is None:
            return
        most = _MOST_AUDIO_S * 2 * self._stage.rate_hz
        if self._audio_bytes > most or not (playback is None or playback.push(self.id, entry.id, pcm)):
            self.finish("incomplete", "max_output_tokens")
            return
        # The first byte of a sample may come in one piece and the other in the next: their sum is what counts. A begun
        # millisecond is one: clients that cut at the end of what they have round up.
        self._item_bytes += len(pcm)
        entry.audio_ms = -(-self._item_bytes * 1000 // (2 * self._stage.rate_hz))
        self.spoken_ms = self._audio_bytes * 1000 // (2 * self._stage.rate_hz)
        if self._writer is not None:
            step = 2 * self._stage.rate_hz * _DELTA_S
            for at in range(0, len(pcm), step):
                if delta := self._writer.push(pcm[at : at + step]):
                    self._say("response.output_audio.delta", delta=delta)

    def transcript(self, delta: str) -> None:
        """Takes more of what the speech says."""
        if self.settings.modality == "text":
            self.text(delta)
        elif self._takes(delta) and self._part("output_audio") is not None:
            self._grow("transcript", delta)
            self._say("response.output_audio_transcript.delta", delta=delta)

    def text(self, delta: str) -> None:
        """Takes more of a written answer."""
        if self._takes(delta) and self._part("output_text") is not None:
            self._grow("text", delta)
            self._say("response.output_text.delta", delta=delta)

    def call(self, name: str, arguments: str, call_id: str = "") -> None:
        """Takes a function call."""
        if not self._takes(arguments):
            return
        self._close("completed")
        item = Item(new_id("item"), "function_call", name=name, call_id=call_id or new_id("call"))
        entry = self._add(Entry(item, status="in_progress"))
        if entry is None:
            return
        where = {"response_id": self.id, "item_id": item.id, "output_index": len(self._output) - 1}
        where["call_id"] = item.call_id
        emit = self._stage.emit
        if arguments:
            emit({"type": "response.function_call_arguments.delta", **where, "delta": arguments})
        item.arguments = arguments
        done = {"type": "response.function_call_arguments.done", **where, "name": name, "arguments": arguments}
        emit(done)
        self._complete(entry, "completed")

    def done(self, usage: dict[str, Any] | None = None) -> None:
        """Ends it: all has been handed over."""
        self._usage = usage
        self.finish("completed")

    def fail(self, message: str, code: str = "agent_failed") -> None:
        """Ends it: it cannot be finished."""
        self.finish("failed", error={"type": "server_error", "code": code, "message": message})

    # --- from the conversation

    def finish(self, status: str, reason: str = "", error: dict[str, Any] | None = None) -> None:
        """Ends it, once, with ``response.done``."""
        if self.over:
            return
        self._close("completed" if status == "completed" else "incomplete")
        self.status = status
        self.cancelled = status == "cancelled"
        RESPONSES[status] += 1
        if status != "completed":
            self._details = {"type": status, **({"reason": reason} if reason else {})}
            if error is not None:
                self._details["error"] = error
        self._usage = self._usage or _no_usage()
        if self._stage.playback is not None:
            self._stage.playback.finish(self.id)
        self._stage.emit({"type": "response.done", "response": self.event()})
        self._stage.finished(self)

    def abandon(self) -> None:
        """Ends it without a word."""
        self.status, self.cancelled = "cancelled", True

    # --- as a value

    @property
    def begun(self) -> bool:
        """Whether anything of it has come."""
        return bool(self._output)

    def export(self, parts: Parts) -> MakingState:
        """All of it, where its speech goes out as media."""
        known = self._stage.items
        items = () if self.over else self.items
        return MakingState(
            self.id,
            self.settings,
            [self._item(item, parts) for item in items],
            self.params.conversation,
            self.params.metadata,
            self.status,
            *(self.cancelled, self.muted),
            *(self.spoken_ms, self.answers_bytes),
            *(self._details, self._usage),
            [entry.id if known.get(entry.id) is entry else entry.export(parts) for entry in self._output],
            self._open is not None,
            *(self._audio_bytes, self._item_bytes, self._characters),
        )

    def _item(self, item: Item, parts: Parts) -> str | ItemState:
        entry = self._stage.items.get(item.id)
        return item.id if entry is not None and entry.item is item else item_state(item, parts)

    @classmethod
    def taken_up(cls, state: MakingState, stage: Stage, parts: Sequence[bytes]) -> Making:
        """The response that ``export`` gave, where the items have been taken up already. Raises ValueError where one
        is missing."""
        params = ResponseParams(conversation=state.conversation, metadata=state.metadata)
        items = [_known(stage, item).item if isinstance(item, str) else item_of(item, parts) for item in state.items]
        making = cls(stage, params, state.settings, items)
        making.id, making.status = state.id, state.status
        making.cancelled, making.muted = state.cancelled, state.muted
        making.spoken_ms, making.answers_bytes = state.spoken_ms, state.answers_bytes
        making._details, making._usage = state.details, state.usage
        making._output = [_known(stage, e) if isinstance(e, str) else Entry.taken_up(e, parts) for e in state.output]
        making._open = making._output[-1] if state.open and making._output else None
        making._audio_bytes, making._item_bytes = state.audio_bytes, state.item_bytes
        making._characters = state.characters
        return making

    # --- items and their parts

    def _takes(self, text: str) -> bool:
        if self.over:
            return False
        self._characters += len(text)
        if self._characters > _MOST_TEXT:
            self.finish("incomplete", "max_output_tokens")
            return False
        return True

    def _part(self, kind: str) -> Entry | None:
        """The message whose last part is of that kind, made where there is none; None where there are too many."""
        if self._open is None:
            self._open = self._add(Entry(Item(new_id("item"), "message", "assistant"), status="in_progress"))
            self._item_bytes = 0
        entry = self._open
        if entry is None:
            return None
        if not entry.content or entry.content[-1]["type"] != kind:
            if len(entry.content) >= _MOST_ITEMS:
                self.finish("incomplete", "max_output_tokens")
                return None
            self._close_part(entry)
            field = "text" if kind == "output_text" else "transcript"
            entry.content.append({"type": kind, field: ""})
            self._say("response.content_part.added", part=_part_event(entry.content[-1]))
        return entry

    def _grow(self, field: str, delta: str) -> None:
        assert self._open is not None
        self._open.content[-1][field] += delta
        self._open.item.text += delta

    def _add(self, entry: Entry) -> Entry | None:
        if len(self._output) >= _MOST_ITEMS:
            self.finish("incomplete", "max_output_tokens")
            return None
        stage = self._stage
        self._output.append(entry)
        added = {"response_id": self.id, "output_index": len(self._output) - 1, "item": entry.event()}
        stage.emit({"type": "response.output_item.added", **added})
        if self.in_conversation:
            before = stage.items.add(entry)
            stage.emit({"type": "conversation.item.added", "previous_item_id": before, "item": entry.event()})
        return entry

    def _close(self, status: str) -> None:
        entry = self._open
        if entry is not None:
            self._close_part(entry)
            self._open = None
            self._complete(entry, status)

    def _close_part(self, entry: Entry) -> None:
        if not entry.content:
            return
        part = entry.content[-1]
        if part["type"] == "output_text":
            self._say("response.output_text.done", text=part["text"])
        else:
            self._say("response.output_audio.done")
            self._say("response.output_audio_transcript.done", transcript=part["transcript"])
        self._say("response.content_part.done", part=_part_event(part))

    def _complete(self, entry: Entry, status: str) -> None:
        entry.status = status
        stage = self._stage
        stage.items.weigh(entry)
        index = self._output.index(entry)
        if self.in_conversation and stage.items.get(entry.id) is entry:
            before = stage.items.before(entry.id)
            stage.emit({"type": "conversation.item.done", "previous_item_id": before, "item": entry.event()})
        done = {"response_id": self.id, "output_index": index, "item": entry.event()}
        stage.emit({"type": "response.output_item.done", **done})

    def _say(self, type_: str, **fields: Any) -> None:
        assert self._open is not None
        where = {
            "response_id": self.id,
            "item_id": self._open.id,
            "output_index": len(self._output) - 1,
            "content_index": len(self._open.content) - 1,
        }
        self._stage.emit({"type": type_, **where, **fields})


def _known(stage: Stage, item: str) -> Entry:
    entry = stage.items.get(item)
    if entry is None:
        raise ValueError(f"a response has to do with {item[:64]!r}, which is not in the conversation")
    return entry


def _part_event(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "output_text":
        return {"type": "text", "text": part["text"]}
    return {"type": "audio", "transcript": part["transcript"]}


def _no_usage() -> dict[str, Any]:
    """The usage of an agent that does not count."""
    cached = {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "input_token_details": {**cached, "cached_tokens": 0, "cached_tokens_details": cached},
        "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
    }
