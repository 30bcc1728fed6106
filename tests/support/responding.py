"""A response and a line that write down what an agent does, and a loop's worth of its life."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from waiting import eventually

from runtime.config import Agents, Upstream
from runtime.tracing.spans import NOTHING, Span
from transceiver.agents import Base, Cue, Item, Settings


class Line:
    config = Agents()
    span: Span = NOTHING
    turn = ""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.cues: list[Cue] = []

    def say(self, pcm: bytes) -> None:
        raise AssertionError("an agent of responses says nothing else")

    def stop(self) -> None: ...

    def send_opus(self, payload: bytes, timestamp: int, marker: bool) -> None:
        raise AssertionError("an agent of responses sends no packets")

    def emit(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def transcribing(self, item: str, delta: str) -> None:
        self.parts.append((item, delta))

    def cue(self, cue: Cue) -> None:
        self.cues.append(cue)

    def transcribed(self, item: str, text: str) -> None:
        self.texts[item] = text


@dataclass
class Response:
    items: list[Item]
    settings: Settings = field(default_factory=Settings)
    id: str = "resp_1"
    cancelled: bool = False
    pcm: bytes = b""
    said: str = ""
    written: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    ended: str = ""
    span: Span = NOTHING
    heard_ms: int | None = None

    def audio(self, pcm: bytes) -> None:
        self.pcm += pcm

    def transcript(self, delta: str) -> None:
        self.said += delta

    def text(self, delta: str) -> None:
        self.written += delta

    def call(self, name: str, arguments: str, call_id: str = "") -> None:
        self.calls.append((name, arguments))

    def done(self, usage: dict[str, Any] | None = None) -> None:
        assert not self.ended
        self.ended, self.usage = "done", usage

    def fail(self, message: str, code: str = "agent_failed") -> None:
        assert not self.ended
        self.ended = message


def said(text: str, number: int = 1) -> Item:
    return Item(id=f"item_{number}", role="user", text=text)


async def answered(agent: Any, response: Response) -> Response:
    """The response, once the agent has ended it."""
    agent.respond(response)
    await eventually(lambda: response.ended)
    return response


@asynccontextmanager
async def living(agent: Base) -> AsyncIterator[None]:
    try:
        yield
    finally:
        closing: Any = agent.close()  # type: ignore[func-returns-value]
        if inspect.isawaitable(closing):
            await closing


@asynccontextmanager
async def upstream_of(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]], monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[None]:
    """A Realtime server whose WebSockets ``handle`` serves, and which is every Line's upstream with these settings."""
    app = web.Application()
    app.router.add_get("/v1/realtime", handle)
    async with TestServer(app) as server:
        url = str(server.make_url("/v1/realtime")).replace("http://", "ws://")
        monkeypatch.setattr(Line, "config", Agents(realtime=Upstream(url=url, **settings)))
        yield
