"""The turns of a traced session as spans, made of the events that its clients get. Pure but for the clock of spans.

A turn begins when the caller begins to speak, or with a response that a client asks for. It is over when its responses
are made and heard and the client's functions have been answered; what is left of it then ends with the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.tracing.shapes import TOOL, TURN, VOICE
from runtime.tracing.spans import NOTHING, Span, now
from transceiver.talk.traced import CallTrace

__all__ = ["TurnSpans"]

_MOST_OPEN = 64  # responses that are made or heard, and functions that run

Event = dict[str, Any]


class _Turn:
    """A turn that is under way: ``open`` has its responses that are made or heard, ``awaited`` those that are made and
    not heard yet, and ``tools`` its functions that run."""

    def __init__(self, span: Span) -> None:
        self.span, self.voice = span, NOTHING
        self.open: set[str] = set()
        self.awaited: set[str] = set()
        self.cut: set[str] = set()  # responses of which nothing more is heard
        self.tools: dict[str, Span] = {}
        self.stopped_at: float | None = None  # when the caller fell silent, until there is a sound of the answer
        self.waits = False  # for the response to what a function gave
        self.last = span.began

    def settle(self) -> None:
        """Ends the turn if nothing of it is left."""
        self.last = now()
        if not (self.open or self.awaited or self.tools or self.waits):
            self.span.end(self.last)

    def end(self) -> None:
        """Ends the turn with what came of it."""
        self.voice.end(self.last)
        for tool in self.tools.values():
            tool.put({"firsthop.tool.answered": False})
            tool.end()
        self.span.end(self.last)


class TurnSpans:
    """The spans of the turns of ``trace``, in a session over ``media`` or without. It is told each event of the
    session's; agents send some of their own, and what such an event lacks is passed over."""

    def __init__(self, trace: CallTrace, *, media: bool) -> None:
        self._trace, self._media = trace, media
        trace.before_end = self.close
        self._turn: _Turn | None = _Turn(trace.turn) if trace.turn else None  # which another process began
        self._of: dict[str, _Turn] = {}  # by responses and functions

    def __call__(self, text: str, event: Event, asked: str | None = None) -> None:
        kind = event.get("type")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is not None:
            handler(self, event)

    def close(self) -> None:
        """Ends what is under way: the session has ended."""
        for turn in {*self._of.values(), *((self._turn,) if self._turn else ())}:
            turn.end()

    # --- the caller

    def _speech_started(self, event: Event) -> None:
        turn = self._begin()
        turn.voice = turn.span.child(VOICE)

    def _speech_stopped(self, event: Event) -> None:
        if (turn := self._turn) is not None:
            turn.last = turn.stopped_at = now()
            turn.voice.end(turn.last)

    def _committed(self, event: Event) -> None:
        turn = self._turn if self._turn is not None and self._turn.span.ended is None else self._begin()
        turn.span.put({"firsthop.turn.committed": True})
        turn.last = now()

    def _begin(self) -> _Turn:
        before = self._turn
        if before is not None and not (before.open or before.tools):
            before.end()  # what it still waited for has not come
        span = self._trace.turn = self._trace.span.child(TURN)
        self._turn = turn = _Turn(span)
        return turn

    # --- the agent

    def _created(self, event: Event) -> None:
        turn = self._turn if self._turn is not None and self._turn.span.ended is None else self._begin()
        turn.waits = False
        self._open(turn, _response(event))

    def _started(self, event: Event) -> None:
        response = _text(event, "response_id")
        turn = self._of.get(response)
        if turn is None:
            turn = self._of.get(_heard(response))
        if turn is not None:
            turn.awaited.discard(response)
            self._open(turn, _heard(response))
            self._sounds(turn)

    def _delta(self, event: Event) -> None:
        turn = self._of.get(_text(event, "response_id"))
        if turn is not None:
            self._sounds(turn)

    def _sounds(self, turn: _Turn) -> None:
        if turn.stopped_at is not None:
            turn.span.put({"firsthop.turn.first_audio_ms": round(1000 * (now() - turn.stopped_at), 1)})
            turn.span.event("first_audio")
            turn.stopped_at = None

    def _stopped(self, event: Event) -> None:
        self._shut(_heard(_text(event, "response_id")))

    def _cleared(self, event: Event) -> None:
        response = _text(event, "response_id")
        turn = self._of.get(response) or self._of.get(_heard(response))
        if turn is not None:
            turn.span.put({"firsthop.turn.cut_off": True})
            turn.span.event("cut_off")
            turn.awaited.discard(response)
            if response in turn.open:
                turn.cut.add(response)
        self._shut(_heard(response))

    def _done(self, event: Event) -> None:
        response = _response(event)
        turn = self._of.get(response)
        begun = turn is None or response in turn.cut or _heard(response) in self._of
        if turn is not None and self._media and not begun and _has_speech(event):
            turn.awaited.add(response)
            self._of[_heard(response)] = turn
        self._shut(response)

    def _open(self, turn: _Turn, name: str) -> None:
        if name and len(self._of) < _MOST_OPEN:
            turn.open.add(name)
            self._of[name] = turn

    def _shut(self, name: str) -> None:
        turn = self._of.pop(name, None)
        if turn is not None:
            turn.open.discard(name)
            turn.cut.discard(name)
            turn.settle()

    # --- functions

    def _called(self, event: Event) -> None:
        call, turn = _text(event, "call_id"), self._of.get(_text(event, "response_id"))
        if call and turn is not None and len(self._of) < _MOST_OPEN:
            name = _text(event, "name")
            about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.type": "function"}
            turn.tools[call] = turn.span.child(TOOL, name, {**about, "gen_ai.tool.call.id": call})
            self._of[_tool(call)] = turn

    def _added(self, event: Event) -> None:
        item = event.get("item")
        if not isinstance(item, dict) or item.get("type") != "function_call_output":
            return
        call = _text(item, "call_id")
        turn = self._of.pop(_tool(call), None)
        if turn is not None and call in turn.tools:
            tool = turn.tools.pop(call)
            tool.put({"firsthop.tool.answered": True})
            tool.end()
            turn.last, turn.waits = now(), True


def _text(event: Event, key: str) -> str:
    found = event.get(key)
    return found if isinstance(found, str) else ""


def _response(event: Event) -> str:
    response = event.get("response")
    return _text(response, "id") if isinstance(response, dict) else ""


def _has_speech(event: Event) -> bool:
    """Whether there is any in the response, so that it will be heard, if nothing comes between."""
    output = event["response"].get("output")
    contents = [item.get("content") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, dict) and part.get("type") == "output_audio" for part in parts)


def _heard(response: str) -> str:
    return f"{response} heard"


def _tool(call: str) -> str:
    return f"{call} runs"


_HANDLERS: dict[str, Callable[[TurnSpans, Event], None]] = {
    "input_audio_buffer.speech_started": TurnSpans._speech_started,
    "input_audio_buffer.speech_stopped": TurnSpans._speech_stopped,
    "input_audio_buffer.committed": TurnSpans._committed,
    "response.created": TurnSpans._created,
    "response.output_audio.delta": TurnSpans._delta,
    "response.done": TurnSpans._done,
    "response.function_call_arguments.done": TurnSpans._called,
    "conversation.item.added": TurnSpans._added,
    "output_audio_buffer.started": TurnSpans._started,
    "output_audio_buffer.stopped": TurnSpans._stopped,
    "output_audio_buffer.cleared": TurnSpans._cleared,
}
