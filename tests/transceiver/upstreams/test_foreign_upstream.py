"""A conversation through a server that nobody here wrote, over a call's whole talk: FIRSTHOP_UPSTREAM is its WebSocket
URL (with ``?model=`` where it wants one), and FIRSTHOP_UPSTREAM_TURNS who finds the turns, if that is not ``auto``.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from runtime.config import Agents, Upstream
from transceiver.agents import realtime
from transceiver.realtime.protocol import Realtime
from transceiver.speech.espeak import speak
from transceiver.talk.talk import Talk

URL = os.environ.get("FIRSTHOP_UPSTREAM", "")
PHRASES = ["Hello there.", "What is the time?", "How much is three plus four?", "Thank you very much.", "Who are you?"]
FRAME_BYTES = 960
PATIENCE_S = 30.0


class Voice:
    """The way to a caller who hears everything."""

    def __init__(self) -> None:
        self.pcm = bytearray()

    def say(self, pcm: bytes) -> None:
        self.pcm += pcm

    def stop(self) -> None: ...

    def pass_on(self, payload: bytes, timestamp: int, marker: bool) -> None: ...


class Caller:
    """Somebody who speaks and falls silent, in real time, and writes down what happens."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.events: list[dict[str, Any]] = []
        self.next = time.monotonic()
        talk.watchers.add("caller", lambda text, *_: self.events.append(json.loads(text)))

    async def says(self, pcm: bytes) -> None:
        for at in range(0, len(pcm), FRAME_BYTES):
            now = time.monotonic()
            self.talk.conversation.hear(pcm[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"), now)
            self.talk.conversation.tick(now)
            self.next += 0.02
            await asyncio.sleep(max(0.0, self.next - time.monotonic()))

    async def silent_until(self, type_: str) -> dict[str, Any]:
        """Waits for the next event of that type."""
        known, until = len(self.events), time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            await self.says(bytes(FRAME_BYTES))
            found = [event for event in self.events[known:] if event["type"] == type_]
            if found:
                return found[0]
        raise AssertionError(f"no {type_}: {[event['type'] for event in self.events[known:]]}")


async def spoken(text: str) -> bytes:
    return b"".join([pcm async for pcm in speak(text)])


@pytest.mark.trials
@pytest.mark.skipif(not URL, reason="FIRSTHOP_UPSTREAM names no server")
@pytest.mark.timeout(600)
async def test_every_turn_is_answered_and_the_last_answer_is_interrupted() -> None:
    bare, model = urlsplit(URL)._replace(query="").geturl(), parse_qs(urlsplit(URL).query).get("model", ["any"])[0]
    turns: Any = os.environ.get("FIRSTHOP_UPSTREAM_TURNS", "auto")
    agents = Agents(realtime=Upstream(url=bare, model=model, turns=turns))
    talk = Talk("rtc_1", ("realtime", realtime.Agent), Realtime("rtc_1", "realtime"), config=agents)
    caller, voice = Caller(talk), Voice()
    talk.begin(lambda reason: None, voice)  # type: ignore[arg-type]
    try:
        await caller.says(bytes(50 * FRAME_BYTES))
        for phrase in PHRASES:
            await caller.says(await spoken(phrase))
            done = await caller.silent_until("response.done")
            assert done["response"]["status"] == "completed", done
            assert any(part.get("transcript") for item in done["response"]["output"] for part in item["content"])
            if phrase != PHRASES[-1]:
                await caller.silent_until("output_audio_buffer.stopped")
        assert len(voice.pcm) > 24000 * 2
        await caller.says(await spoken("Please wait, I want to say something."))
        assert "output_audio_buffer.cleared" in [event["type"] for event in caller.events]
        assert [event for event in caller.events if event["type"] == "error"] == []
    finally:
        talk.end("hangup")
        await talk.joined()
