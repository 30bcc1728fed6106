"""The turns of a session as spans, made of its events."""

from __future__ import annotations

from typing import Any

import pytest
from spans_kept import Kept

from runtime.tracing.spans import Span
from runtime.tracing.tracer import Tracer
from transceiver.realtime.turn_spans import TurnSpans
from transceiver.talk.traced import CallTrace

PARENT = f"00-{1:032x}-{2:016x}-01"
HEARD = {"content": [{"type": "output_audio", "transcript": ""}]}


class Session:
    """A traced session whose events a test says."""

    def __init__(self, *, media: bool = True) -> None:
        self.kept = Kept()
        self.trace = CallTrace.begun(Tracer(self.kept), PARENT, "", "rtc_1", "parrot", "opus")
        self.spans = TurnSpans(self.trace, media=media)

    def say(self, *types: str, **fields: Any) -> None:
        for type_ in types:
            self.spans("", {"type": type_, **fields})

    def speaks(self) -> Span:
        """A turn of the caller's. Returns its span."""
        self.say(
            *(f"input_audio_buffer.{what}" for what in ("speech_started", "speech_stopped", "committed")),
            item_id="item",
        )
        return self.trace.turn

    def response(self, name: str = "resp_1") -> None:
        self.say("response.created", response={"id": name})

    def done(self, name: str = "resp_1", *output: dict[str, Any]) -> None:
        self.say("response.done", response={"id": name, "status": "completed", "output": list(output)})

    def heard(self, what: str, name: str = "resp_1") -> None:
        self.say(f"output_audio_buffer.{what}", response_id=name)

    def end(self) -> None:
        self.trace.end("hangup", {})

    @property
    def turns(self) -> list[Span]:
        return self.kept.named("turn")


def test_a_turn_ends_when_its_answer_was_heard() -> None:
    session = Session()
    turn = session.speaks()
    session.response()
    session.heard("started")
    session.done("resp_1", HEARD)
    assert session.turns == []
    session.heard("stopped")
    assert session.turns == [turn]
    assert turn.attributes["firsthop.turn.committed"] is True
    assert turn.attributes["firsthop.turn.first_audio_ms"] >= 0
    assert [name for name, _, _ in turn.events] == ["first_audio"]
    (voice,) = session.kept.named("caller speaks")
    assert voice.parent_id == turn.context.span_id


def test_an_answer_that_is_made_before_it_is_heard_is_waited_for() -> None:
    session = Session()
    turn = session.speaks()
    session.response()
    session.done("resp_1", HEARD)
    assert session.turns == []
    session.heard("started")
    session.heard("stopped")
    assert session.turns == [turn]
    assert "firsthop.turn.first_audio_ms" in turn.attributes


@pytest.mark.parametrize("made", [True, False])
def test_an_answer_that_is_spoken_over_ends_the_turn_there(made: bool) -> None:
    session = Session()
    turn = session.speaks()
    session.response()
    session.heard("started")
    if made:
        session.done("resp_1", HEARD)
    session.say("input_audio_buffer.speech_started")
    session.heard("cleared")
    if not made:
        session.done("resp_1", HEARD)
    assert session.turns == [turn]
    assert turn.attributes["firsthop.turn.cut_off"] is True
    assert session.trace.turn is not turn
    session.end()
    assert len(session.turns) == 2


def test_without_media_a_turn_ends_with_its_response() -> None:
    session = Session(media=False)
    turn = session.speaks()
    session.response()
    session.say("response.output_audio.delta", response_id="resp_1", delta="AAAA")
    session.done("resp_1", HEARD)
    assert session.turns == [turn]
    assert "firsthop.turn.first_audio_ms" in turn.attributes


def test_a_function_and_what_comes_of_it_belong_to_the_turn() -> None:
    session = Session()
    turn = session.speaks()
    session.response()
    session.say(
        "response.function_call_arguments.done", response_id="resp_1", call_id="call_1", name="dial", arguments="{}"
    )
    session.done()
    assert session.kept.named("execute_tool dial") == []
    output = {"type": "function_call_output", "call_id": "call_1", "output": "secret"}
    session.say("conversation.item.added", item=output)
    (tool,) = session.kept.named("execute_tool dial")
    assert tool.parent_id == turn.context.span_id
    assert tool.attributes["gen_ai.tool.call.id"] == "call_1"
    assert tool.attributes["firsthop.tool.answered"] is True
    assert session.turns == []
    session.response("resp_2")
    session.done("resp_2")
    assert session.turns == [turn]
    assert "secret" not in str([span.attributes for span in session.kept.spans])


def test_a_function_that_nobody_answers_ends_with_the_session() -> None:
    session = Session()
    turn = session.speaks()
    session.response()
    session.say("response.function_call_arguments.done", response_id="resp_1", call_id="call_1", name="dial")
    session.done()
    session.end()
    (tool,) = session.kept.named("execute_tool dial")
    assert tool.attributes["firsthop.tool.answered"] is False
    assert session.turns == [turn]
    assert session.kept.spans[-1] is session.trace.span


def test_a_cough_is_a_turn_that_was_not_committed() -> None:
    session = Session()
    session.say("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")
    cough = session.trace.turn
    session.speaks()
    assert session.turns == [cough]
    assert "firsthop.turn.committed" not in cough.attributes


def test_a_response_that_a_client_asks_for_begins_a_turn() -> None:
    session = Session()
    session.response()
    turn = session.trace.turn
    assert turn
    session.done()
    assert session.turns == [turn]
    session.response("resp_2")
    assert session.trace.turn is not turn


def test_events_that_an_agent_makes_up_do_no_harm() -> None:
    session = Session()
    for type_ in [None, 1, [], {}, "no.such.event", *_types()]:
        for fields in (
            {},
            {"response": 1},
            {"response": {"id": 2}},
            {"response_id": []},
            {"item": "x"},
            {"call_id": 5},
        ):
            session.spans("", {"type": type_, **fields})
            session.spans("", {"type": type_, "response": {"id": "r", "output": [1, {"content": 2}, {"content": [3]}]}})
    session.spans("", {})
    session.end()
    assert session.kept.spans[-1] is session.trace.span


def _types() -> list[str]:
    buffers = [f"input_audio_buffer.{each}" for each in ("speech_started", "speech_stopped", "committed")]
    outputs = [f"output_audio_buffer.{each}" for each in ("started", "stopped", "cleared")]
    responses = [
        f"response.{each}" for each in ("created", "done", "output_audio.delta", "function_call_arguments.done")
    ]
    return [*buffers, *outputs, *responses, "conversation.item.added"]


def test_what_is_under_way_is_bounded() -> None:
    session = Session()
    session.speaks()
    for i in range(10_000):
        session.response(f"resp_{i}")
        session.say("response.function_call_arguments.done", response_id=f"resp_{i}", call_id=f"call_{i}", name="f")
    session.end()
    assert len(session.kept.named("execute_tool f")) <= 64


def test_a_turn_that_another_process_began_ends_here() -> None:
    here, there = Session(), Kept()
    turn = here.speaks()
    trace = CallTrace.taken_up(Tracer(there), here.trace.export())
    spans = TurnSpans(trace, media=True)
    trace.stays()
    spans("", {"type": "response.created", "response": {"id": "resp_1"}})
    spans("", {"type": "output_audio_buffer.started", "response_id": "resp_1"})
    spans("", {"type": "response.done", "response": {"id": "resp_1", "output": []}})
    spans("", {"type": "output_audio_buffer.stopped", "response_id": "resp_1"})
    (ended,) = there.named("turn")
    assert ended.context == turn.context
