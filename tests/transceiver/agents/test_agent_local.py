"""The agent ``local`` with an engine of the test's: drafts in pauses, rules before the model, an engine that fails."""

from __future__ import annotations

import asyncio

import pytest
from doubles.engine import Engine
from responding import Line, Response, answered, living, said
from waiting import eventually

from transceiver import agents
from transceiver.agents import Item, Settings, local

PCM = b"\1\2" * 24000


def turn(pcm: bytes = PCM, id_: str = "b") -> Item:
    return Item(id=id_, role="user", pcm=pcm)


async def test_a_turn_is_heard_answered_and_spoken_as_far_as_it_is_whole(engine: Engine) -> None:
    line = Line()
    agent = local.Agent(line)
    async with living(agent):
        agent.committed(turn())
        response = await answered(agent, Response([turn()]))
    assert (response.ended, line.texts) == ("done", {"b": "who was the first on the moon"})
    assert response.said == "It was Neil Armstrong, in 1969."
    assert engine.spoken == ["It was Neil Armstrong,", "in 1969."]
    assert response.pcm == b"\1\2" * len("".join(engine.spoken))
    assert [message["role"] for message in engine.asked[0]] == ["system", "user"]
    assert engine.forgotten == [0]


async def test_what_is_begun_in_a_pause_is_the_answer_when_the_turn_ends(engine: Engine) -> None:
    line = Line()
    agent = local.Agent(line)
    before = [said("hello"), Item(id="c", role="assistant", text="Hi!")]
    async with living(agent):
        agent.speech_paused(200, [*before, turn()])
        await eventually(lambda: engine.spoken == ["It was Neil Armstrong,", "in 1969."])
        assert line.texts == {}
        whole = turn(PCM + PCM)
        agent.committed(whole)
        response = await answered(agent, Response([*before, whole]))
    assert response.said == "It was Neil Armstrong, in 1969."
    assert response.pcm == b"\1\2" * len("".join(engine.spoken))
    assert line.texts == {"b": "who was the first on the moon"}
    assert (len(engine.asked), engine.heard) == (1, [(len(PCM), False)])
    assert [message["content"] for message in engine.asked[0]][1:] == ["hello", "Hi!", "who was the first on the moon"]


async def test_a_draft_that_is_asked_for_while_it_is_made_goes_on_into_the_response(engine: Engine) -> None:
    engine.gates["mind"].clear()
    engine.good_pieces = 1
    agent = local.Agent(Line())
    response = Response([turn()])
    async with living(agent):
        agent.speech_paused(200, [turn()])
        await eventually(lambda: engine.spoken)
        agent.committed(turn())
        agent.respond(response)
        await eventually(lambda: response.said == "It was Neil Armstrong, ")
        assert not response.ended
        engine.gates["mind"].set()
        await eventually(lambda: response.ended)
    assert (response.said, len(engine.asked)) == ("It was Neil Armstrong, in 1969.", 1)


@pytest.mark.parametrize("how", ["speaks on", "answer was cut", "other instructions", "another turn", "ears failed"])
async def test_what_is_begun_for_something_else_is_thrown_away(engine: Engine, how: str) -> None:
    line = Line()
    agent = local.Agent(line)
    before = Item(id="a", role="assistant", text="Once upon a time")
    if how == "ears failed":
        engine.bad = {"ears"}
    async with living(agent):
        agent.speech_paused(200, [before, turn(id_="z") if how == "another turn" else turn()])
        await eventually(lambda: len(engine.spoken) == 2 or (engine.bad and engine.heard))
        engine.words, engine.pieces, engine.bad = "and the second", ["Buzz Aldrin."], set()
        if how == "speaks on":
            agent.speech_resumed()
        elif how == "answer was cut":
            before = Item(id="a", role="assistant", text="Once")
        await asyncio.sleep(0)
        agent.committed(turn(PCM + PCM))
        settings = Settings(instructions="Rhyme.") if how == "other instructions" else Settings()
        response = await answered(agent, Response([before, turn(PCM + PCM)], settings))
    assert (response.ended, response.said) == ("done", "Buzz Aldrin.")
    fresh = how not in ("answer was cut", "other instructions")  # the words are the same
    assert line.texts == {"b": "and the second" if fresh else "who was the first on the moon"}
    assert engine.asked[-1][0]["content"] == ("Rhyme." if how == "other instructions" else local._INSTRUCTIONS)


@pytest.mark.parametrize(("held", "ended"), [("mind", ["mind"]), ("voice", ["voice", "mind"])])
async def test_who_speaks_over_it_ends_all_of_it(engine: Engine, held: str, ended: list[str]) -> None:
    engine.gates[held].clear()
    agent = local.Agent(Line())
    response = Response([said("tell me something nice")])
    async with living(agent):
        agent.respond(response)
        await eventually(lambda: engine.asked if held == "mind" else engine.spoken)
        agent.cancelled(response)
        await eventually(lambda: engine.ended_early == ended)
        for gate in engine.gates.values():
            gate.set()
        second = await answered(agent, Response([said("and now")], id="resp_2"))
    assert (response.ended, response.said[:3]) == ("", "" if held == "mind" else "It ")
    assert second.ended == "done"


@pytest.mark.parametrize("part", ["ears", "mind", "voice"])
async def test_an_engine_that_ends_costs_one_response_and_not_the_call(engine: Engine, part: str) -> None:
    engine.bad, engine.good_pieces = {part}, 1
    agent = local.Agent(Line())
    async with living(agent):
        agent.committed(turn())
        first = await answered(agent, Response([turn()]))
        assert first.ended == "the engine ended"
        # What had been handed over stays.
        assert first.said == ("" if part == "ears" else "It was Neil Armstrong, ")
        engine.bad = set()
        agent.committed(turn(id_="c"))
        second = await answered(agent, Response([turn(id_="c")], id="resp_2"))
    assert (second.ended, second.said) == ("done", "It was Neil Armstrong, in 1969.")


async def test_what_the_ears_heard_when_a_pause_began_is_what_is_answered(engine: Engine) -> None:
    line = Line()
    line.turn = "b"
    agent = local.Agent(line)
    assert agent.pauses_ms == (100, 200)
    async with living(agent):
        agent.speech_started()
        engine.gates["ears"].clear()
        agent.speech_paused(100, [turn()])
        await eventually(lambda: engine.heard)
        agent.speech_paused(200, [turn(PCM + bytes(4800))])
        engine.gates["ears"].set()
        await eventually(lambda: engine.spoken)
        agent.speech_stopped()
        agent.committed(turn(PCM + bytes(19200)))
        response = await answered(agent, Response([turn(PCM + bytes(19200))]))
    assert response.said == "It was Neil Armstrong, in 1969."
    assert engine.heard == [(len(PCM), True)]  # once
    assert line.texts == {"b": "who was the first on the moon"}


async def test_ears_that_are_busy_when_a_pause_begins_are_asked_again(engine: Engine) -> None:
    line = Line()
    agent = local.Agent(line)
    async with living(agent):
        engine.bad = {"ears"}
        agent.speech_paused(100, [turn()])
        await eventually(lambda: engine.heard == [(len(PCM), True)])
        engine.bad = set()
        agent.speech_paused(200, [turn()])
        await eventually(lambda: engine.spoken)
    assert engine.heard == [(len(PCM), True), (len(PCM), False)]


async def test_what_was_heard_before_the_caller_spoke_on_is_told_and_not_answered(engine: Engine) -> None:
    line = Line()
    line.turn = "b"
    agent = local.Agent(line)
    async with living(agent):
        agent.speech_started()
        engine.gates["ears"].clear()
        agent.speech_paused(100, [turn()])
        await eventually(lambda: engine.heard)
        agent.speech_resumed()
        agent.speech_paused(100, [turn()])  # ears are at it still
        engine.gates["ears"].set()
        await eventually(lambda: agent._listening and agent._listening.done())
        agent.speech_resumed()
        agent.speech_paused(100, [turn(PCM + PCM)])
        await eventually(lambda: line.parts)
        engine.words = "who was the first on the moon and the second"
        agent.speech_resumed()
        agent.speech_paused(200, [turn(PCM + PCM + PCM)])
        await eventually(lambda: engine.asked)
    assert line.parts == [("b", "who was the first on the moon")]
    assert [size for size, _ in engine.heard] == [len(PCM), 2 * len(PCM), 3 * len(PCM)]
    assert engine.asked[-1][-1]["content"] == "who was the first on the moon and the second"


# --- what an answer was made of


async def test_a_client_that_asks_is_told_what_the_answer_was_made_of(engine: Engine) -> None:
    line = Line()
    agent = local.Agent(line)
    async with living(agent):
        agent.event({"type": "firsthop.stages.retrieve"})
        assert line.events == []
        agent.speech_paused(200, [turn()])
        await eventually(lambda: engine.spoken)
        agent.committed(turn())
        await answered(agent, Response([turn()]))
        assert line.events == []
        agent.event({"type": "firsthop.stages.retrieve"})
        agent.event({"type": "nonsense", "event_id": "e"})
    told, error = line.events
    assert (told["type"], told["response_id"]) == ("firsthop.stages", "resp_1")
    assert [(stage["name"], stage["text"]) for stage in told["stages"]] == [
        ("ears", "who was the first on the moon"),
        ("mind", "It was Neil Armstrong,"),
        ("voice", "It was Neil Armstrong,"),
    ]
    times = [stage[time] for stage in told["stages"] for time in ("begin_ms", "end_ms")]
    assert times == sorted(times)
    assert times[0] >= 200
    assert (error["error"]["code"], error["error"]["event_id"]) == ("invalid_value", "e")


# --- rules and functions before the model


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("What is seven times eight?", "That is 56."),
        ("Thank you.", "You are welcome."),
        ("Who are you?", local._ABOUT),
        ("Please spell the word hello.", "hello is spelt H, E, L, L, O."),
        ("", "I did not hear any words. Please say that again."),
        ("...", "I did not hear any words. Please say that again."),
    ],
)
async def test_what_a_rule_knows_is_not_asked_of_the_model(engine: Engine, words: str, answer: str) -> None:
    engine.words = words
    agent = local.Agent(Line())
    async with living(agent):
        response = await answered(agent, Response([turn()]))
    assert (response.said, engine.asked) == (answer, [])


@pytest.mark.parametrize(("text", "begins"), [("What time is it?", "It is "), ("What's the date today?", "Today is ")])
async def test_the_time_and_the_date_are_known(engine: Engine, text: str, begins: str) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        response = await answered(agent, Response([said(text)], Settings(modality="text")))
    assert (response.written[: len(begins)], response.pcm, engine.asked) == (begins, b"", [])


@pytest.mark.parametrize(
    "text",
    [
        "How was your day?",
        "I had a wonderful time.",
        "Hello, why is the sky blue?",
        "What did people use to do there for a very long time?",
    ],
)
async def test_a_word_alone_is_no_question_for_the_time(engine: Engine, text: str) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        await answered(agent, Response([said(text)]))
    assert len(engine.asked) == 1


async def test_functions_are_called_and_what_they_give_is_said(engine: Engine) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": {"required": ["city"]}}
    agent = local.Agent(Line())
    async with living(agent):
        agent.configured(Settings(tools=(tool,)))
        agent.speech_paused(200, [turn()])
        await eventually(lambda: engine.heard)
        engine.words = "what is the weather in Oslo"
        agent.speech_resumed()
        call = await answered(agent, Response([turn()], Settings(tools=(tool,))))
        output = Item(id="o", kind="function_call_output", text="rain")
        told = await answered(agent, Response([turn(), output], Settings(tools=(tool,)), id="resp_2"))
    assert call.calls == [("get_weather", '{"city": "Oslo"}')]
    assert (told.said, len(engine.asked)) == ("The answer is: rain.", 1)  # of the draft alone


# --- what is told while it is spoken


async def test_words_are_told_while_they_are_spoken(engine: Engine) -> None:
    # The last word of each hypothesis may be wrong.
    engine.words = lambda pcm: " ".join(["one", "two", "three", "four", "five"][: len(pcm) // 72000]) + " uh"
    line = Line()
    line.turn = "item_1"
    agent = local.Agent(line)
    async with living(agent):
        agent.speech_started()
        for second in range(1, 5):
            for _ in range(75):
                agent.heard(bytes(960), speaking=True)
            await eventually(lambda n=second: len(engine.heard) == n and agent._listening and agent._listening.done())
        await eventually(lambda: len(line.parts) == 3)
        agent.speech_stopped()
    assert line.parts == [("item_1", "one"), ("item_1", " two"), ("item_1", " three")]
    assert all(draft for _, draft in engine.heard)


async def test_a_minute_without_a_pause_takes_no_more_than_its_bound(engine: Engine) -> None:
    line = Line()
    line.turn = "item_1"
    agent = local.Agent(line)
    async with living(agent):
        agent.speech_started()
        for _ in range(60 * 50):
            agent.heard(bytes(960), speaking=True)
        assert len(agent._heard) <= 25 * 48000 + 960
        agent.speech_stopped()
        response = await answered(agent, Response([turn(bytes(48000 * 60))]))
    assert response.ended == "done"


async def test_silence_costs_nothing(engine: Engine) -> None:
    agent = local.Agent(Line())
    async with living(agent):
        for _ in range(3000):
            agent.heard(bytes(960), speaking=False)
        assert (engine.heard, len(agent._before)) == ([], 19)


async def test_the_history_loses_its_oldest_seldom_and_many_at_once(engine: Engine) -> None:
    agent = local.Agent(Line())
    items = [Item(id=str(i), role=("user", "assistant")[i % 2], text=f"turn {i}") for i in range(201)]
    firsts = []
    async with living(agent):
        for count in range(1, len(items) + 1, 2):
            await answered(agent, Response(items[:count], Settings(modality="text"), id=f"resp_{count}"))
            messages = engine.asked[-1]
            assert len(messages) <= 50
            assert messages[0]["role"] == "system"
            firsts.append(messages[1]["content"])
    assert len(set(firsts)) <= 7


async def test_an_agent_that_a_host_cannot_run_is_offered_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.weights, "trouble", lambda memory: "this CPU has no AVX2, which the models need")
    agents.versions.cache_clear()
    try:
        assert "local" not in agents.versions()
        with pytest.raises(ImportError, match="agent local cannot run here: this CPU has no AVX2"):
            agents.find("local")
        monkeypatch.setattr(local.weights, "trouble", lambda memory: None)
        assert agents.find("local") is local.Agent
    finally:
        agents.versions.cache_clear()
