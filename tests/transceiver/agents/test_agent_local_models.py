"""The agent ``local`` with the models themselves, where they are installed: it hears a question and answers aloud."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest
from responding import Line, Response, living
from waiting import eventually

from runtime.config import Engine
from transceiver.agents import Item, Settings, local
from transceiver.engine import weights
from transceiver.engine.client import Client

pytestmark = pytest.mark.skipif(weights.trouble() is not None, reason=str(weights.trouble()))

_PATIENCE_S = 100.0


async def test_a_question_is_answered_aloud_by_what_was_begun_in_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = Engine.model_validate({"run": tmp_path, "idle_s": 1})
    monkeypatch.setattr(local, "connection", lambda about, under: Client(section, patience_s=_PATIENCE_S))
    line, voice = Line(), Client(section, patience_s=_PATIENCE_S)
    agent = local.Agent(line)
    async with living(agent):
        agent.configured(Settings())
        async with aclosing(voice.speak("What is the capital of France?")) as speech:
            pcm = b"".join([piece async for piece in speech])
        agent.speech_paused(200, [Item("a", role="user", pcm=pcm + bytes(9600))])
        turn = Item("a", role="user", pcm=pcm + bytes(24000))
        agent.committed(turn)
        response = Response([turn])
        agent.respond(response)
        await eventually(lambda: response.ended)
        await voice.close()
    assert response.ended == "done"
    assert line.texts["a"].strip(" ?.").lower() == "what is the capital of france"
    assert "Paris" in response.said
    assert len(response.pcm) > 48000
