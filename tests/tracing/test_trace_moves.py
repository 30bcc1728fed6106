"""The trace of a call that goes on elsewhere: its spans are sent once, by whoever has the call."""

from __future__ import annotations

from session_moves import MovingCall
from session_run import Recorder
from spans_kept import Kept

from runtime.tracing.tracer import Tracer
from transceiver.realtime.turn_spans import TurnSpans
from transceiver.state import SessionState
from transceiver.talk.talk import Talk
from transceiver.talk.traced import CallTrace

PARENT = f"00-{1:032x}-{2:016x}-01"


class TracedCall(MovingCall):
    """A call each of whose processes keeps its spans in one of ``kept``."""

    def __init__(self) -> None:
        super().__init__(Recorder)
        self.kept = [Kept()]
        trace = CallTrace.begun(Tracer(self.kept[0]), PARENT, "", "rtc_1", "recorder", "opus")
        self.session.talk.follow(trace, TurnSpans(trace, media=True))

    def follow(self, talk: Talk, found: SessionState) -> None:
        self.kept.append(Kept())
        trace = CallTrace.taken_up(Tracer(self.kept[-1]), found.talk.trace)
        talk.follow(trace, TurnSpans(trace, media=True))

    def say(self, what: str) -> None:
        self.session.talk.emit({"type": f"input_audio_buffer.{what}"})


async def test_the_process_that_has_the_call_at_its_end_sends_its_span() -> None:
    call = TracedCall()
    await call.connect()
    trace = call.session.talk.trace
    call.say("speech_started")
    await call.move()
    call.say("speech_stopped")
    call.say("committed")
    await call.move()
    await call.close()
    here, between, there = call.kept
    assert [span.name for span in here.spans] == []
    assert [span.name for span in between.spans] == []
    assert [span.name for span in there.spans] == ["turn", "session"]
    turn, session = there.spans
    assert session.context == trace.span.context
    assert turn.context == trace.turn.context
    assert turn.attributes["firsthop.turn.committed"] is True
    assert session.attributes["firsthop.end.reason"] == "shutdown"
    assert [name for name, _, _ in session.events] == ["taken_up", "taken_up"]


async def test_a_process_that_was_offered_a_call_and_did_not_get_it_sends_nothing() -> None:
    call = TracedCall()
    await call.connect()
    call.say("speech_started")
    other = call.taken_up(await call.left())
    other.forsake()
    call.session.stay()
    await other.closed()
    call.say("speech_stopped")
    await call.close()
    here, there = call.kept
    assert there.spans == []
    assert [span.name for span in here.spans] == ["caller speaks", "turn", "session"]
    assert here.spans[-1].events == []
