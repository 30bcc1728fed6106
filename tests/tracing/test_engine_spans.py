"""Requests to the engine as spans: of which model, under which span, and how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from doubles.models import Models
from responding import Line, Response, living
from spans_kept import Kept
from waiting import eventually

from runtime.config import Agents, Engine
from runtime.tracing.shapes import SHAPES
from runtime.tracing.spans import NOTHING, Span
from runtime.tracing.tracer import Tracer
from transceiver.agents import Item, local
from transceiver.engine import EngineError
from transceiver.engine.client import Client
from transceiver.engine.server import Server
from transceiver.engine.starting import socket_of
from transceiver.talk.traced import CallTrace

PARENT = f"00-{1:032x}-{2:016x}-01"
SECRET = "whispered"


@dataclass
class Traced:
    """An engine in this process, and a span under which requests to it are made."""

    models: Models
    server: Server
    run: Path
    kept: Kept = field(default_factory=Kept)
    under: Span = NOTHING

    def __post_init__(self) -> None:
        self.under = CallTrace.begun(Tracer(self.kept), PARENT, "", "rtc_1", "local", "opus").span

    def client(self) -> Client:
        return Client(Engine(run=self.run), command=("false",), under=lambda: self.under)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Traced]:
    models = Models()
    server = Server(models, idle_s=60)
    listens = asyncio.Event()
    serving = asyncio.create_task(server.serve(socket_of(tmp_path), listens.set))
    await listens.wait()
    yield Traced(models, server, tmp_path)
    models.gate.set()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_each_request_is_a_span_with_its_model_and_how_soon_it_was_answered(engine: Traced) -> None:
    client = engine.client()
    await client.transcribe(SECRET.encode() + b"!", 16000)
    async for _ in client.answer(0, [{"role": "user", "content": SECRET}], most_tokens=2):
        pass
    async for _ in client.speak(SECRET):
        pass
    await client.ended(bytes(1600), 16000)  # of no call
    await client.read(0, [{"role": "user", "content": SECRET}])  # answers nobody
    await client.close()
    shapes = {shape.name.partition(" ")[0]: shape for shape in SHAPES}
    names = ["transcription whisper-tiny.en", "chat smollm2-135m-instruct", "speech hibari"]
    assert [span.name for span in engine.kept.spans] == names
    for span in engine.kept.spans:
        operation, model = span.name.split()
        assert (span.parent_id, span.error) == (engine.under.context.span_id, "")
        assert span.shape.kind == "client"
        assert span.attributes["gen_ai.operation.name"] == operation
        assert span.attributes["gen_ai.request.model"] == model
        assert span.attributes["firsthop.upstream.outcome"] == "answered"
        assert span.ended is not None
        assert 0 < float(span.attributes["gen_ai.response.time_to_first_chunk"]) <= span.ended - span.began
        assert span.attributes.keys() <= set(shapes[operation].attributes)
        assert SECRET not in str(span.attributes)


async def test_a_request_that_fails_is_an_error_and_one_that_is_given_up_is_none(engine: Traced) -> None:
    client = engine.client()
    with pytest.raises(EngineError):
        await client.transcribe(b"fail", 16000)
    engine.models.gate.clear()
    waits = asyncio.create_task(client.transcribe(b"waits!", 16000))
    await eventually(lambda: engine.server.workers["ears"].waiting == 1)
    with pytest.raises(EngineError):
        await client.transcribe(b"draft!", 16000, draft=True)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    await client.close()
    told = [(span.attributes["firsthop.upstream.outcome"], span.error) for span in engine.kept.spans]
    assert told == [("refused", "refused"), ("busy", ""), ("cancelled", "")]
    assert [span.attributes.get("firsthop.engine.draft") for span in engine.kept.spans] == [None, True, None]


async def test_requests_of_the_agent_are_under_the_present_turn(engine: Traced) -> None:
    line = Line()
    line.config = Agents(engine=Engine(run=engine.run))
    line.span = engine.under
    agent = local.Agent(line)
    async with living(agent):
        item = Item(id="item_1", role="user", pcm=b"who was the first on the moon?")
        agent.committed(item)
        response = Response([item])
        agent.respond(response)
        await eventually(lambda: response.ended)
    assert response.ended == "done"
    made = {span.name.partition(" ")[0] for span in engine.kept.spans}
    assert made == {"transcription", "chat", "speech"}
    assert {span.parent_id for span in engine.kept.spans} == {engine.under.context.span_id}


async def test_without_a_trace_there_is_no_span(engine: Traced) -> None:
    engine.under = NOTHING
    client = engine.client()
    assert await client.transcribe(b"hello.", 16000) == "hello."
    await client.close()
    assert not engine.kept.spans
