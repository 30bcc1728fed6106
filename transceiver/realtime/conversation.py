"""One Realtime session: its configuration, its items, its turns and its responses. Pure: time is an argument.

Two kinds of path lead to a client. Over media (WebRTC) the server paces the speech and knows what was played, so at an
interruption it clears what waits and truncates the item itself. Without media (WebSocket) audio goes in and out inside
events, as fast as it is made, and the client truncates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from rtc.frame import frame_bytes
from rtc.vad.detector import Vad
from transceiver.agents import Cue
from transceiver.counters import BARGE_IN, OVERLAPS
from transceiver.parts import Parts
from transceiver.realtime import shapes, state, transcription
from transceiver.realtime.config import Config, InvalidRequest, ServerVad
from transceiver.realtime.formats import Reader, Writer, samples
from transceiver.realtime.inbox import Inbox, InboxState, Steps
from transceiver.realtime.items import Entry, EntryState, Items, new_id, spoken
from transceiver.realtime.judging import Judge
from transceiver.realtime.listening import Listening, ListeningState
from transceiver.realtime.overlap import Overlap
from transceiver.realtime.pictures import Schemes, check
from transceiver.realtime.playback import Playback
from transceiver.realtime.seat import Seat
from transceiver.realtime.speaking import Speaking, SpeakingState
from transceiver.talk.protocol import Partner, Surroundings

__all__ = ["Conversation", "ConversationState"]

_LEAST_COMMIT_MS = 100
_FRAME_US = 20  # of the media loop, to hear 20 ms


class ConversationState(Struct, frozen=True, array_like=True):
    """A conversation over media as a value. ``turn`` is the id of the item that is being spoken, and ``over_agent``
    says whether that began while the agent spoke."""

    items: list[EntryState]
    listening: ListeningState
    speaking: SpeakingState
    inbox: InboxState
    turn: str
    over_agent: bool
    unheard: bytes


class Conversation:
    """Driven by ``client_event``, by ``hear`` every 20 ms of a caller's audio and by ``tick`` every 20 ms; ``now`` is
    in seconds, monotonic. PCM is mono PCM16 at the agent's ``rate_hz``. Nothing that a client sends makes it raise, or
    takes more of the loop than is its due: what would is done in steps, over as many ticks as it needs."""

    def __init__(
        self,
        config: Config,
        partner: Partner,
        around: Surroundings,
        *,
        rate_hz: int,
        media: bool,
        pictures: Schemes = "data",
        vad: Vad = "webrtc",
        judge: Judge | None = None,
    ) -> None:
        self._config, self._around, self._media = config, around, media
        self._rate_hz, self._frame_bytes = rate_hz, frame_bytes(rate_hz)
        self._listening = Listening(rate_hz, config.turn_detection, vad=vad, judge=judge)
        self._items = Items(rate_hz, partial(samples, config=config, rate_hz=rate_hz), partial(check, schemes=pictures))
        self._reader = Reader(config.input_format, rate_hz)
        self.seat = Seat(partner, config, self._items, self._listening, self._emit, lambda: self._speaking.busy)
        self._speaking = Speaking(
            self._emit,
            self._items,
            Playback(rate_hz) if media else None,
            rate_hz=rate_hz,
            writer=lambda: Writer(config.output_format, rate_hz),
            settings=config.settings,
            respond=self.seat.respond,
            cancelled=self.seat.cancelled,
        )
        self._turn = ""  # the id of the item that is being spoken
        self._overlap = Overlap(judge, rate_hz)
        self._unheard = bytearray()  # less than 20 ms, unless they wait for their tick
        self._inbox = Inbox(self._handle, self._error, lambda: around.sent_bytes)

    # --- what drives it

    def begin(self) -> None:
        """Tells that the agent is there, which then hears what the session asks for."""
        self.seat.partner.configured(self._config.settings())

    def export(self, parts: Parts) -> bytes:
        """All of it, where there is media, but for its ``parts``."""
        items, listening = self._items.export(parts), self._listening.export(parts)
        speaking, inbox = self._speaking.export(parts), self._inbox.export()
        turn = self._turn, self._overlap.over, bytes(self._unheard)
        return state.encoded(ConversationState(items, listening, speaking, inbox, *turn))

    def take_up(self, exported: bytes, now: float, parts: Sequence[bytes]) -> None:
        """Goes on where ``export`` left off; ``resume`` is to follow. Raises ValueError where the bytes are none of
        this version's, or a part is missing."""
        found = state.decoded(exported, ConversationState)
        self._items.take_up(found.items, parts)
        self._listening.take_up(found.listening, parts)
        self._speaking.take_up(found.speaking, now, parts)
        self._inbox.take_up(found.inbox)
        self._turn = found.turn
        self._overlap.begin(found.over_agent, self._config.turn_detection)
        if self._turn:
            self._listening.left_open()
        self._unheard[:] = found.unheard

    def resume(self, agent: object) -> None:
        """Tells that the agent is there which goes on where another has been; ``agent`` is that one's state. What was
        asked of that one is asked of this one, and what that one had begun ends with the next tick."""
        self.seat.resume(agent)
        self._speaking.ask_again()

    def succeed(self, model: str, known: set[str]) -> None:
        """Tells, in the place of ``resume``, that an agent is there which was prepared for this."""
        self.seat.take(model, known)
        self._speaking.ask_again()

    @property
    def created(self) -> dict[str, Any]:
        """The event that greets a client or a watcher."""
        return {"type": "session.created", "session": self._config.event}

    @property
    def answering(self) -> str | None:
        """The ``event_id`` of the client's event that is being handled, where it has one."""
        return self._inbox.answering

    @property
    def turn(self) -> str:
        """The id that the turn which is being spoken will have as an item; nothing while nobody speaks."""
        return self._turn

    @property
    def weight(self) -> int:
        """About how many bytes its state has, besides its parts."""
        return self._items.text_bytes + self._inbox.waiting_bytes

    @property
    def quiet(self) -> bool:
        """Whether neither side speaks, or is about to."""
        return not self._listening.speaking and not self._speaking.busy

    @property
    def calm(self) -> Hashable:
        """What it is like while nothing is said that is for the agent, and nothing made; None while something is."""
        speaking = self._speaking.calm
        return None if self._listening.gathers or speaking is None else (self._turn, self.weight, speaking)

    def client_event(self, text: str | bytes, now: float) -> None:
        """Takes a client's event as it came. What is too much at once waits, and past a bound is refused."""
        self._inbox.put(text)
        self._speaking.now = now
        self._inbox.work()

    def hear(self, pcm: bytes, now: float) -> bool:
        """Takes 20 ms of the caller's audio. Returns whether they are voice."""
        self._speaking.now = now
        edge = self._listening.push(pcm)
        if edge == "started":
            self._speech_started()
        elif self._overlap.over:
            self._overlapped()
        self.seat.partner.heard(pcm, self._listening.speaking)
        if edge == "stopped":
            self._speech_stopped()
        elif edge and not self._overlap.over:
            self.seat.paused(edge, self._turn)
        return self._listening.voiced

    def tick(self, now: float) -> bool:
        """Does what the next 20 ms need. Returns whether events wait for another share of the time."""
        self._speaking.tick(now)
        self._inbox.tick()
        if not self._overlap.holds and (pcm := self._speaking.frame()):
            self._around.play(pcm)
        self._idle(now)
        return self._inbox.busy

    def pressed(self, digit: str, received_at: int) -> None:
        """Tells that the caller pressed a key, at ``received_at`` in Unix seconds."""
        self._emit({"type": "input_audio_buffer.dtmf_event_received", "event": digit, "received_at": received_at})
        self.seat.partner.dtmf(digit)

    def cue(self, cue: Cue) -> None:
        """Takes what the agent says of the caller's turns."""
        if cue == "answer":
            if self.seat.partner.responds:
                self._speaking.want()
        elif cue in ("mine", "yours"):
            self._listening.lead(cue == "mine")
        elif self._listening.led_edge(cue == "began"):
            (self._speech_started if cue == "began" else self._speech_stopped)()

    def transcribed(self, item: str, text: str) -> None:
        """Tells the words in the user's item of that id."""
        self._emit(transcription.completed(self._items, item, text, self._rate_hz))

    def transcribing(self, item: str, delta: str) -> None:
        """Tells more of the words in the user's item of that id, which may still be spoken."""
        self._emit(transcription.delta(self._items, item, delta, spoken=item == self._turn))

    def pass_over(self, frames: int) -> None:
        """Passes over so many frames of the agent's speech, because another process has sent them."""
        self._speaking.pass_over(frames)

    def hush(self) -> None:
        """Drops the speech that waits, because the agent wants to be silent."""
        if self._media:
            self._speaking.clear()

    def close(self) -> None:
        """Ends it: the response that was being made is dropped, and nobody is told."""
        self._speaking.close()
        self._inbox.close()

    # --- events of the client's

    def _handle(self, event: dict[str, Any]) -> Steps | None:
        handler = _HANDLERS.get(event["type"])
        if handler is not None:
            return handler(self, event)
        if not self.seat.partner.listens:
            raise InvalidRequest(f"There is no event type '{event['type'][:64]}'.", "invalid_value", "type")
        self.seat.partner.event(event)
        return None

    def _error(self, refused: InvalidRequest, event_id: str | None) -> None:
        what = {"type": "invalid_request_error", "code": refused.code, "message": str(refused)}
        self._emit({"type": "error", "error": {**what, "param": refused.param, "event_id": event_id}})

    def _update(self, event: shapes.SessionUpdate) -> None:
        before = self._config.input_format
        self._config.update(event.session)
        if self._config.input_format != before:
            self._reader = Reader(self._config.input_format, self._rate_hz)
        spoke = self._listening.speaking
        self._listening.configure(self._config.turn_detection)
        if self._config.turn_detection is None:
            self._listening.add(bytes(self._unheard))
            self._unheard.clear()
        else:
            self._unheard[:0] = self._listening.part()
        if spoke and not self._listening.speaking:
            self._overlap.end()
            self._tell_stopped()
            self._turn = ""
        self.seat.partner.configured(self._config.settings())
        self._emit({"type": "session.updated", "session": self._config.event})

    def _append(self, event: shapes.Append) -> Steps:
        if self._media:
            raise InvalidRequest("This session's audio comes as media.", "invalid_value", "audio")
        return self._take_in(event.audio)

    def _take_in(self, audio: str) -> Steps:
        for data in shapes.samples(audio):
            pcm = self._reader.push(data)
            yield self._reader.cost_us(data)
            if self._config.turn_detection is None:
                self._listening.add(pcm)
                continue
            self._unheard += pcm
            while len(self._unheard) >= self._frame_bytes:
                frame = bytes(self._unheard[: self._frame_bytes])
                del self._unheard[: self._frame_bytes]
                self.hear(frame, self._speaking.now)
                yield _FRAME_US

    def _commit_asked(self, event: shapes.ClientEvent) -> None:
        ms = self._listening.buffered_ms
        if ms < _LEAST_COMMIT_MS:
            why = f"The buffer has {ms} ms of audio, and a turn at least {_LEAST_COMMIT_MS}."
            raise InvalidRequest(why, "input_audio_buffer_commit_empty")
        self._commit()
        self._reader.forget_half()
        if self._listening.speaking:
            self._turn = new_id("item")  # what is still being said is another turn

    def _clear_input(self, event: shapes.ClientEvent) -> None:
        self._listening.clear()
        self._unheard.clear()
        self._reader = Reader(self._config.input_format, self._rate_hz)
        self._emit({"type": "input_audio_buffer.cleared"})

    def _clear_output(self, event: shapes.ClientEvent) -> None:
        if not self._media:
            raise InvalidRequest("There is no output audio buffer without media.", "invalid_value", "type")
        self._speaking.clear()

    def _create_item(self, event: shapes.ItemCreate) -> Steps:
        after = event.previous_item_id
        if after not in (None, "root") and self._items.get(after or "") is None:
            raise InvalidRequest(f"There is no item '{after}'.", "item_not_found", "previous_item_id")
        entry = yield from self._items.made(event.item)
        if self._items.get(entry.id) is not None:
            raise InvalidRequest(f"There is an item '{entry.id}' already.", "item_id_taken", "item.id")
        self._add(entry, after)

    def _add(self, entry: Entry, after: str | None = None) -> None:
        before = self._items.add(entry, after)
        for what in ("added", "done"):
            item = entry.event()
            self._emit({"type": f"conversation.item.{what}", "previous_item_id": before, "item": item})
        if entry.item.role == "user":
            self.seat.partner.committed(entry.item)

    def _named(self, item_id: str, what: str) -> Entry:
        entry = self._items.get(item_id)
        if entry is None:
            raise InvalidRequest(f"There is no item '{item_id}'.", f"item_{what}_invalid_item_id", "item_id")
        return entry

    def _retrieve(self, event: shapes.ItemNamed) -> None:
        self._emit({"type": "conversation.item.retrieved", "item": self._named(event.item_id, "retrieve").event()})

    def _delete(self, event: shapes.ItemNamed) -> None:
        entry = self._named(event.item_id, "delete")
        self._items.remove(entry.id)
        self._emit({"type": "conversation.item.deleted", "item_id": entry.id})

    def _truncate(self, event: shapes.Truncate) -> None:
        entry = self._named(event.item_id, "truncate")
        entry.check_speech(event.content_index, event.audio_end_ms)
        self._emit(entry.truncated(event.audio_end_ms))

    def _tell_media(self, event: shapes.ClientEvent) -> None:
        """Answers ``firsthop.media.retrieve``, which is not OpenAI's: only a client that asks is told."""
        if not self._media:
            raise InvalidRequest("This session has no media.", "invalid_value", "type")
        self._emit({"type": "firsthop.media", **self._around.media_so_far()})

    # --- responses

    def _create_response(self, event: shapes.ResponseCreate) -> Steps:
        if not self.seat.partner.responds:
            raise InvalidRequest("This agent makes no responses.", "unsupported")
        params, settings = self._config.response(event.response)
        items = self._items.view()
        if params.input is not None:
            items = []
            calls: set[str] = set()
            for i, raw in enumerate(params.input):
                entry = yield from self._items.made(raw, f"response.input[{i}]", calls)
                calls.add(entry.item.call_id)
                items.append(entry.item)
        self._speaking.respond(params, settings, items)

    def _cancel(self, event: shapes.ResponseCancel) -> None:
        self._speaking.cancel(event.response_id)

    # --- turns

    def _speech_started(self) -> None:
        listening = self._listening
        self._turn = new_id("item")
        self._speaking.quiet_since = None
        what = {"audio_start_ms": max(listening.position_ms - listening.buffered_ms, 0), "item_id": self._turn}
        self._emit({"type": "input_audio_buffer.speech_started", **what})
        self.seat.partner.speech_started()
        self._overlap.begin(self._speaking.busy, self._config.turn_detection)
        self._overlapped()

    def _overlapped(self) -> None:
        if self._overlap.takes_floor(self._listening, self.seat.yields_after_ms, self._speaking.busy):
            OVERLAPS["yielded"] += 1
            BARGE_IN.add(self._listening.voiced_ms / 1000)
            self._speaking.interrupt()

    def _speech_stopped(self) -> None:
        self._tell_stopped()
        turns = self._config.turn_detection
        if self._overlap.end():
            # A cough, an "mm-hm": the agent has kept its turn, and this was none.
            OVERLAPS["kept"] += 1
            self._turn = ""
            self._listening.clear()
            return
        self._commit()
        if turns is not None and turns.create_response and self.seat.partner.responds and not self._listening.led:
            self._speaking.want()

    def _tell_stopped(self) -> None:
        what = {"audio_end_ms": self._listening.position_ms, "item_id": self._turn}
        self._emit({"type": "input_audio_buffer.speech_stopped", **what})
        self.seat.partner.speech_stopped()

    def _commit(self) -> None:
        entry = spoken(self._listening.take(), self._turn or new_id("item"))
        self._turn = ""
        self._emit({"type": "input_audio_buffer.committed", "previous_item_id": self._items.last, "item_id": entry.id})
        self._add(entry)

    def _idle(self, now: float) -> None:
        since, config = self._speaking.quiet_since, self._config
        if since is None or not isinstance(turns := config.turn_detection, ServerVad) or turns.idle_timeout_ms is None:
            return
        idle_ms = round((now - since) * 1000)
        if self._listening.speaking or idle_ms < turns.idle_timeout_ms:
            return
        self._speaking.quiet_since = None
        self._turn = new_id("item")
        end_ms = self._listening.position_ms
        what = {"audio_start_ms": max(end_ms - idle_ms, 0), "audio_end_ms": end_ms, "item_id": self._turn}
        self._emit({"type": "input_audio_buffer.timeout_triggered", **what})
        self._commit()
        if self.seat.partner.responds:
            self._speaking.want()

    # --- small things

    def _emit(self, event: dict[str, Any] | None) -> None:
        if event is not None:
            self._around.emit({"event_id": new_id("event"), **event})


_Event = TypeVar("_Event", bound=shapes.ClientEvent)
_Handler = Callable[[Conversation, dict[str, Any]], Steps | None]


def _handler(shape: type[_Event], handle: Callable[[Conversation, _Event], Steps | None]) -> _Handler:
    return lambda conversation, event: handle(conversation, shapes.parse(event, shape))


# What the protocol has clients say, by type: how an event must look, and what is done about it.
_HANDLERS: dict[str, _Handler] = {
    "session.update": _handler(shapes.SessionUpdate, Conversation._update),
    "input_audio_buffer.append": _handler(shapes.Append, Conversation._append),
    "input_audio_buffer.commit": _handler(shapes.ClientEvent, Conversation._commit_asked),
    "input_audio_buffer.clear": _handler(shapes.ClientEvent, Conversation._clear_input),
    "output_audio_buffer.clear": _handler(shapes.ClientEvent, Conversation._clear_output),
    "conversation.item.create": _handler(shapes.ItemCreate, Conversation._create_item),
    "conversation.item.retrieve": _handler(shapes.ItemNamed, Conversation._retrieve),
    "conversation.item.truncate": _handler(shapes.Truncate, Conversation._truncate),
    "conversation.item.delete": _handler(shapes.ItemNamed, Conversation._delete),
    "response.create": _handler(shapes.ResponseCreate, Conversation._create_response),
    "response.cancel": _handler(shapes.ResponseCancel, Conversation._cancel),
    "firsthop.media.retrieve": _handler(shapes.ClientEvent, Conversation._tell_media),
}
