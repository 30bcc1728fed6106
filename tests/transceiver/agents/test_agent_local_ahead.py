"""The reading that the agent ``local`` has its mind do before it is asked: all but the words of the next turn."""

from __future__ import annotations

import pytest
from doubles.engine import Engine
from responding import Line, Response, answered, living, said
from waiting import eventually

from transceiver.agents import Item, Settings, local

PCM = b"\1\2" * 24000


def contents(messages: list[local.Message]) -> list[str]:
    return [message["content"] for message in messages][1:]


@pytest.mark.parametrize("modality", ["audio", "text"])
async def test_what_was_asked_and_answered_is_read_before_the_next_turn(engine: Engine, modality: str) -> None:
    agent = local.Agent(Line())
    settings = Settings(modality="audio" if modality == "audio" else "text")
    turn = Item(id="a", role="user", pcm=PCM)
    engine.words = "What is seven times eight?"  # a rule knows it, and the mind reads of it all the same
    async with living(agent):
        agent.committed(turn)
        await answered(agent, Response([turn], settings))
        await eventually(lambda: engine.read_ahead)
        answer = Item(id="b", role="assistant", text="That is 56.")
        engine.words = "who was the first on the moon"
        await answered(agent, Response([turn, answer, Item(id="c", role="user", pcm=PCM)], settings, id="resp_2"))
    assert contents(engine.read_ahead[0]) == ["What is seven times eight?", "That is 56."]
    # The next answer begins with what was read, to the letter.
    assert engine.asked[0][:-1] == engine.read_ahead[0]


async def test_what_an_interruption_left_of_an_answer_is_read_in_the_next_pause(engine: Engine) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        first = await answered(agent, Response([said("and who came first")]))
        await eventually(lambda: engine.read_ahead)
        cut = Item(id="x", role="assistant", text=first.said[:6])
        conversation = [said("and who came first"), cut, Item(id="b", role="user", pcm=PCM)]
        agent.speech_paused(100, conversation)
        await eventually(lambda: len(engine.read_ahead) == 2)
        agent.speech_resumed()
        agent.speech_paused(100, conversation)  # that has been read
        agent.speech_paused(200, conversation)
        await eventually(lambda: len(engine.asked) == 2)
    assert [contents(read)[-1] for read in engine.read_ahead] == [first.said, first.said[:6]]
    assert engine.asked[1][:-1] == engine.read_ahead[1]


async def test_who_asks_does_not_wait_for_what_is_read_ahead(engine: Engine) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        engine.words = "thank you"
        engine.gates["mind"].clear()
        turn = Item(id="a", role="user", pcm=PCM)
        agent.committed(turn)
        await answered(agent, Response([turn]))
        agent.respond(Response([said("who was the first on the moon")], id="resp_2"))
        await eventually(lambda: engine.ended_early == ["reading"])
    assert engine.read_ahead == []


async def test_an_engine_that_is_gone_costs_what_is_read_ahead_and_nothing_else(engine: Engine) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        engine.words, engine.bad = "thank you", {"mind"}
        turn = Item(id="a", role="user", pcm=PCM)
        agent.committed(turn)
        first = await answered(agent, Response([turn]))
        engine.bad = set()
        second = await answered(agent, Response([said("who was the first on the moon")], id="resp_2"))
    assert (first.ended, second.ended) == ("done", "done")
    assert second.said == "It was Neil Armstrong, in 1969."
