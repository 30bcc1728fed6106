"""Calls as an OTLP receiver sees them: one trace from the caller's own span down to the requests of its agent."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import aiohttp
import pytest
from collector import ANSWERED, SAID, Collector, Received, Services, a_collector, the_services
from observing import cores, kept, revived
from waiting import eventually, until

from caller.call import Call, Line
from caller.result import Result
from caller.signaling import Token, calls_url
from caller.voice import generated
from lab.appliance import Appliance
from rtc.pacer import Pacer
from runtime.tracing.shapes import SHAPES

DEADLINE_S = 60.0
STATE = "vendor=opaque,other@system=1"
PARENT = "00f067aa0ba902b7"
POST = "POST /v1/realtime/calls"
SPANS = "firsthop_trace_spans_total"


@dataclass
class House:
    appliance: Appliance
    collector: Collector
    services: Services


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("traced")
    with a_collector() as collector, the_services() as services:
        ports = {"http_port": 18080, "media_port": 13478}
        appliance = Appliance(folder, transceiver_cores=cores()[:1], models=["*"], region="here", **ports)
        headers = folder / "headers"
        headers.write_text("# the endpoint's\nx-tenant: hush-hush\n")
        headers.chmod(0o600)
        tracing = {
            "FIRSTHOP_TRACING__ENDPOINT": collector.url,
            "FIRSTHOP_TRACING__RATIO": "1",
            "FIRSTHOP_TRACING__TIMEOUT_S": "1",
            "FIRSTHOP_TRACING__HEADERS_FILE": str(headers),
            "FIRSTHOP_TRACING__ATTRIBUTES": json.dumps({"deployment.environment.name": "test"}),
        }
        urls = {f"FIRSTHOP_AGENTS__PIPELINE__{each}_URL": services.url for each in ("TRANSCRIPTION", "CHAT", "SPEECH")}
        appliance.environment = {"edge": tracing, "transceiver": {**tracing, **urls}}
        with appliance:
            yield House(appliance, collector, services)


async def a_call(house: House, traceparent: str, enough: Callable[[], object]) -> Result:
    """Places a call to the agent ``pipeline``, and talks until it is ``enough``."""
    token = Token(house.appliance.token, "the test")
    headers = {"traceparent": traceparent, "tracestate": STATE}
    async with aiohttp.ClientSession(headers=headers) as http:
        url = calls_url(house.appliance.url, "pipeline")
        call = Call(Line(http, url, token, generated(), Pacer(), timeout_s=DEADLINE_S))
        try:
            await call.set_up()
            await eventually(enough)
        finally:
            await call.hang_up()
            await asyncio.sleep(0)  # its socket is closed then
        return call.result()


@pytest.fixture(scope="module")
def traced(house: House) -> tuple[str, str, dict[str, list[Received]]]:
    """The trace and the id of one call, and its spans by name."""
    trace = secrets.token_hex(16)

    def answered() -> bool:
        return any("first_audio" in turn.events for turn in house.collector.named("turn", trace))

    result = asyncio.run(a_call(house, f"00-{trace}-{PARENT}-01", answered))
    assert result.outcome == "ok", result.error
    until(lambda: house.collector.named("session", trace) and house.collector.named(POST, trace))
    spans: dict[str, list[Received]] = {}
    for span in list(house.collector.spans):
        if span.trace == trace:
            spans.setdefault(span.name, []).append(span)
    return trace, str(result.call_id), spans


def only(spans: dict[str, list[Received]], name: str) -> Received:
    (found,) = spans[name]
    return found


Traced = tuple[str, str, dict[str, list[Received]]]


def test_the_callers_span_is_the_parent_of_the_request_and_its_state_is_kept(traced: Traced) -> None:
    _, call, spans = traced
    post = only(spans, POST)
    assert (post.kind, post.parent, post.error) == ("server", PARENT, None)
    assert post.attributes["http.response.status_code"] == 201
    assert post.attributes["firsthop.call.id"] == call
    assert post.about["service.name"] == "firsthop-signaling"
    assert post.about["cloud.region"] == "here"
    assert {span.state for found in spans.values() for span in found} == {STATE}


def test_each_span_is_under_the_one_that_it_belongs_to(traced: Traced) -> None:
    _, _, spans = traced
    post, session = only(spans, POST), only(spans, "session")
    turn = next(turn for turn in spans["turn"] if "first_audio" in turn.events)
    response = next(each for each in spans["invoke_agent pipeline"] if each.parent == turn.id)
    assert only(spans, "placement").parent == session.parent == post.id
    assert {only(spans, f"setup {phase}").parent for phase in ("ice", "dtls", "audio")} == {session.id}
    assert turn.parent == session.id
    for name, parent in (
        ("caller speaks", turn),
        ("transcription whisper-1", turn),
        ("chat default", response),
        ("speech tts-1", response),
    ):
        found = [span for span in spans[name] if span.parent == parent.id]
        assert found, name
        assert all(span.inside(parent) for span in found), name
    assert all(each.inside(session) for each in spans["turn"])
    assert session.began >= post.began - 5_000_000
    assert session.ended > post.ended


def test_a_session_ends_with_its_reason_and_the_figures_of_its_media(traced: Traced) -> None:
    _, call, spans = traced
    session = only(spans, "session")
    said = session.attributes
    assert said["firsthop.call.id"] == said["gen_ai.conversation.id"] == call
    assert said["firsthop.end.reason"] == "hangup"
    assert said["firsthop.media.frames_heard"] > 0
    assert said["firsthop.media.packets_lost"] == 0
    assert session.about["service.name"] == "firsthop-transceiver"
    assert session.about["service.instance.id"] == "1"
    assert session.about["deployment.environment.name"] == "test"


def test_a_turn_says_how_soon_it_was_answered(traced: Traced) -> None:
    _, _, spans = traced
    turn = next(turn for turn in spans["turn"] if "first_audio" in turn.events)
    response = next(each for each in spans["invoke_agent pipeline"] if each.parent == turn.id)
    assert turn.attributes["firsthop.turn.committed"] is True
    lasted_ms = (turn.ended - turn.began) / 1e6
    assert 0 < turn.attributes["firsthop.turn.first_audio_ms"] < lasted_ms
    assert response.attributes["firsthop.response.status"] == "completed"
    assert response.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert response.attributes["gen_ai.usage.output_tokens"] == 11


def test_the_agents_requests_name_their_spans(traced: Traced, house: House) -> None:
    trace, _, spans = traced
    for path, name in (
        ("transcription", "transcription whisper-1"),
        ("chat", "chat default"),
        ("speech", "speech tts-1"),
    ):
        assert house.services.parents[path]
        for span in spans[name]:
            assert span.kind == "client"
            if span.attributes["firsthop.upstream.outcome"] == "answered":
                assert f"00-{trace}-{span.id}-01" in house.services.parents[path]


def test_a_span_has_only_the_attributes_that_are_documented(traced: Traced) -> None:
    _, _, spans = traced
    shapes = {shape.name.partition(" ")[0]: shape for shape in SHAPES}
    for found in spans.values():
        for span in found:
            shape = shapes.get(span.name.partition(" ")[0], shapes["{}"])
            shape = shapes["caller"] if span.name.startswith("caller") else shape
            assert span.kind == shape.kind
            assert span.attributes.keys() <= set(shape.attributes), span.name
            assert span.events.keys() <= set(shape.events), span.name


def test_no_span_tells_what_was_said_or_a_key(traced: Traced, house: House) -> None:
    _, _, spans = traced
    told = str(spans)
    for secret in (SAID, ANSWERED.strip(), house.appliance.token, "hush-hush"):
        assert secret not in told
    assert house.collector.headers["x-tenant"] == "hush-hush"


def test_a_caller_without_a_key_makes_no_span(house: House) -> None:
    trace = secrets.token_hex(16)

    async def knock() -> int:
        headers = {"traceparent": f"00-{trace}-{PARENT}-01", "Authorization": "Bearer nothing"}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(calls_url(house.appliance.url, "")) as r:
            return r.status

    assert asyncio.run(knock()) == 401
    other = secrets.token_hex(16)

    def told() -> list[Received]:
        return house.collector.named(POST, other)

    asyncio.run(a_call(house, f"00-{other}-{PARENT}-01", told))
    assert not [span for span in house.collector.spans if span.trace == trace]


def test_a_caller_that_wants_no_trace_has_none(house: House) -> None:
    trace = secrets.token_hex(16)
    asked = house.services.parents.setdefault("transcription", [])
    count = len(asked)
    result = asyncio.run(a_call(house, f"00-{trace}-{PARENT}-00", lambda: len(asked) > count))
    assert result.outcome == "ok", result.error
    assert "" in asked[count:]
    assert not [span for span in house.collector.spans if span.trace == trace]


def test_the_log_names_the_trace(traced: Traced, house: House) -> None:
    trace, _, _ = traced
    for process in ("edge", "transceiver"):
        assert f'"trace_id": "{trace}"' in house.appliance.log_file(process).read_text()


def test_a_session_over_a_websocket_is_a_trace_too(house: House) -> None:
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "Authorization": f"Bearer {house.appliance.token}"}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": SAID}]}

    async def ask() -> None:
        url = f"{house.appliance.url}/v1/realtime?model=pipeline"
        async with (
            asyncio.timeout(DEADLINE_S),
            aiohttp.ClientSession(headers=headers) as http,
            http.ws_connect(url) as socket,
        ):
            await socket.send_json({"type": "conversation.item.create", "item": item})
            await socket.send_json({"type": "response.create", "response": {"output_modalities": ["text"]}})
            while (await socket.receive_json())["type"] != "response.done":
                pass

    asyncio.run(ask())
    until(lambda: house.collector.named("session", trace) and house.collector.named("GET /v1/realtime", trace))
    (request,) = house.collector.named("GET /v1/realtime", trace)
    (session,) = house.collector.named("session", trace)
    (turn,) = house.collector.named("turn", trace)
    (response,) = house.collector.named("invoke_agent pipeline", trace)
    (chat,) = house.collector.named("chat default", trace)
    assert request.attributes["http.response.status_code"] == 101
    parents = [span.parent for span in (request, session, turn, response, chat)]
    assert parents == [PARENT, request.id, session.id, turn.id, response.id]
    assert session.attributes["firsthop.codec"] == "events"


def test_a_call_does_not_care_whether_anybody_takes_its_spans(house: House) -> None:
    house.collector.status = 400
    try:
        spans = house.appliance.metrics("media-1")[(SPANS, "not_taken")]

        def refused() -> bool:
            return house.appliance.metrics("media-1")[(SPANS, "not_taken")] >= spans + 4

        result = asyncio.run(a_call(house, f"00-{secrets.token_hex(16)}-{PARENT}-01", refused))
        assert result.outcome == "ok", result.error
        assert result.packets_received > 0
    finally:
        house.collector.status = 200
    sent = house.appliance.metrics("media-1")[(SPANS, "sent")]
    asyncio.run(
        a_call(
            house,
            f"00-{secrets.token_hex(16)}-{PARENT}-01",
            lambda: house.appliance.metrics("media-1")[(SPANS, "sent")] > sent,
        )
    )


def test_a_call_whose_process_dies_is_one_trace(house: House) -> None:
    """The last test: the process that goes on has other figures."""
    trace, children = secrets.token_hex(16), house.appliance.children("transceiver")
    killed = False

    def goes_on() -> bool:
        nonlocal killed
        turns = [turn for turn in house.collector.named("turn", trace) if "first_audio" in turn.events]
        if not killed and turns and kept(house.appliance, "media-1") == 1:
            children["media-1"].kill()
            killed = True
            return False
        return killed and revived(house.appliance, "media-1") == 1 and len(turns) >= 2

    result = asyncio.run(a_call(house, f"00-{trace}-{PARENT}-01", goes_on))
    assert result.outcome == "ok", result.error
    until(lambda: house.collector.named("session", trace) and house.collector.named(POST, trace))
    (session,) = house.collector.named("session", trace)
    (post,) = house.collector.named(POST, trace)
    assert "taken_up" in session.events
    assert session.parent == post.id
    assert session.began == pytest.approx(post.began, abs=2e9)
    assert session.attributes["firsthop.call.id"] == result.call_id
    assert {turn.parent for turn in house.collector.named("turn", trace)} == {session.id}
