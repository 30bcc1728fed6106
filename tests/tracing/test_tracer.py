"""The choice of requests that are traced, what a span holds at most, and how one goes on in another process."""

from __future__ import annotations

import msgspec
import pytest
from spans_kept import Kept

from runtime.tracing.context import Context
from runtime.tracing.shapes import REQUEST, SESSION, TURN
from runtime.tracing.spans import NOTHING, Span, SpanState, now
from runtime.tracing.tracer import OFF, Tracer
from transceiver.talk.traced import CallTrace, TraceState

CALLER = Context(0xABC, 0xDEF, True, "rojo=1")


@pytest.mark.parametrize(
    ("chance", "trusts", "sampled", "traced"),
    [
        (0.29, False, None, True),
        (0.31, False, None, False),
        (0.29, False, True, True),
        (0.31, False, True, False),
        (0.0, False, False, False),
        (0.99, True, True, True),
        (0.0, True, False, False),
        (0.31, True, None, False),
    ],
)
def test_chance_decides_unless_the_caller_is_trusted_or_wants_no_trace(
    chance: float, trusts: bool, sampled: bool | None, traced: bool
) -> None:
    tracer = Tracer(Kept(), 0.3, trust_parent=trusts, chance=lambda: chance)
    parent = None if sampled is None else Context(1, 2, sampled)
    assert bool(tracer.request(REQUEST, "POST /", parent)) is traced


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (1.0, 2000), (0.25, 500)])
def test_a_callers_choice_of_a_trace_does_not_change_its_chance(ratio: float, expected: int) -> None:
    tracer = Tracer(Kept(), ratio)
    lucky = [Context(trace, 1, True) for trace in (1, 1 << 127) for _ in range(1000)]
    traced = sum(bool(tracer.request(REQUEST, "POST /", parent)) for parent in lucky)
    assert abs(traced - expected) <= (0 if ratio in (0.0, 1.0) else 150)  # seven standard deviations


def test_a_request_without_a_parent_begins_a_trace() -> None:
    span = Tracer(Kept()).request(REQUEST, "POST /calls", None)
    assert span.name == "POST /calls"
    assert span.parent_id == 0
    assert span.context.trace_id
    assert span.context.span_id


def test_a_session_goes_on_with_the_trace_that_signaling_names() -> None:
    tracer = Tracer(Kept(), 0.0)
    span = tracer.session(Kept(), CALLER.traceparent, CALLER.state)
    assert (span.context.trace_id, span.parent_id, span.context.state) == (0xABC, 0xDEF, "rojo=1")
    assert not tracer.session(Kept(), "", "")
    assert not tracer.session(Kept(), "nonsense", "")


def test_where_nothing_is_traced_no_span_is_made() -> None:
    assert OFF.request(REQUEST, "POST /", CALLER) is NOTHING
    trace = CallTrace.begun(OFF, CALLER.traceparent, "", "rtc_1", "parrot", "opus")
    assert not trace
    assert trace.export() is None
    trace.end("hangup", {})
    child = NOTHING.child(TURN, "x", {"a": 1})
    child.put({"a": 1})
    child.event("b")
    child.fail("c")
    child.end()
    assert child is NOTHING
    assert (child.attributes, child.events, child.error, child.headers) == ({}, [], "", {})


def a_span(kept: Kept | None = None) -> Span:
    return Tracer(kept or Kept()).request(REQUEST, "POST /", None)


def test_a_span_holds_a_bounded_amount() -> None:
    span = a_span()
    span.put({f"name{i}": "x" * 10_000 for i in range(1000)})
    for i in range(1000):
        span.event("again", {"i": i})
    assert len(span.attributes) == 32
    assert {len(str(value)) for value in span.attributes.values()} == {256}
    assert [found["i"] for _, _, found in span.events] == list(range(32))
    span.put({"name0": "other"})
    assert span.attributes["name0"] == "other"


def test_a_span_ends_once() -> None:
    kept = Kept()
    span = a_span(kept)
    span.end(span.began + 1)
    span.end(span.began + 2)
    assert kept.spans == [span]
    assert span.ended == span.began + 1


def test_a_session_has_a_bounded_number_of_spans() -> None:
    kept = Kept()
    trace = CallTrace.begun(Tracer(kept), CALLER.traceparent, "", "rtc_1", "parrot", "opus")
    for _ in range(5000):
        trace.span.child(TURN).end()
    trace.end("hangup", {})
    assert [span.shape for span in kept.spans[-2:]] == [TURN, SESSION]
    assert len(kept.spans) == 4096 + 1


def moved(trace: CallTrace, kept: Kept) -> CallTrace:
    packed = msgspec.msgpack.encode(trace.export())
    return CallTrace.taken_up(Tracer(kept), msgspec.msgpack.decode(packed, type=TraceState))


def test_the_span_of_a_session_goes_on_elsewhere() -> None:
    here, there = Kept(), Kept()
    trace = CallTrace.begun(Tracer(here), CALLER.traceparent, "rojo=1", "rtc_1", "parrot", "opus")
    trace.turn = trace.span.child(TURN)
    trace.span.event("path_moved")
    goes_on = moved(trace, there)
    goes_on.stays()
    goes_on.turn.end()
    goes_on.end("hangup", {})
    turn, session = there.spans
    assert here.spans == []
    assert turn.context == trace.turn.context
    assert session.context == trace.span.context
    assert session.parent_id == 0xDEF
    assert session.began == pytest.approx(trace.span.began, abs=5)
    assert [name for name, _, _ in session.events] == ["path_moved", "taken_up"]
    assert session.attributes["firsthop.call.id"] == "rtc_1"
    assert session.attributes["firsthop.end.reason"] == "hangup"


def test_a_session_that_was_taken_up_and_does_not_stay_sends_nothing() -> None:
    there = Kept()
    trace = CallTrace.begun(Tracer(Kept()), CALLER.traceparent, "", "rtc_1", "parrot", "opus")
    goes_on = moved(trace, there)
    goes_on.span.child(TURN).end()
    assert there.spans == []


def test_a_trace_that_is_not_understood_costs_the_trace_alone() -> None:
    good = a_span().export(now())
    other_release = msgspec.structs.replace(good, shape="a shape of tomorrow's")
    nonsense = SpanState("session", "session", ("zz", "1", ""), "1", 0.0, {}, [])
    for state in (other_release, nonsense):
        assert not CallTrace.taken_up(Tracer(Kept()), TraceState(state))
    assert not CallTrace.taken_up(Tracer(Kept()), None)
    assert not CallTrace.taken_up(OFF, TraceState(good))
