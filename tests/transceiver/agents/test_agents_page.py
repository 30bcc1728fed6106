"""The listings of docs/agents.md: each is an agent, and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from responding import Line, Response, answered, living, said
from waiting import eventually

from transceiver.agents import Base, Item, Settings

PAGE = Path(__file__).parents[3] / "docs" / "agents.md"
LISTINGS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
FIRST, STREAMING, TOOLS, PAUSES, STATE, TESTED = range(6)


def listing(number: int) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": f"listing_{number}"}
    exec(compile(LISTINGS[number], f"{PAGE}, listing {number + 1}", "exec", dont_inherit=True), names)
    return names


def agent(number: int) -> Any:
    kind = listing(number)["Agent"]
    assert issubclass(kind, Base)
    assert kind.__doc__
    return kind(Line())


def test_no_listing_is_left_out() -> None:
    assert len(LISTINGS) == TESTED + 1


async def test_the_first_one_answers() -> None:
    turn = Item("a", role="user", pcm=bytes(48000 * 2))
    assert (await answered(agent(FIRST), Response([turn]))).written == "You spoke for 2.0 seconds."


async def test_the_streaming_one_streams_fails_and_stops() -> None:
    counting = agent(STREAMING)
    async with living(counting):
        three = await answered(counting, Response([said("3")]))
        assert (three.said, len(three.pcm), three.ended) == ("1 2 3 ", 3 * 960, "done")
        assert (await answered(counting, Response([said("many")], id="b"))).ended == "say a number"
        endless = Response([said("1000000000")], id="c")
        counting.respond(endless)
        await eventually(lambda: endless.said)
        counting.cancelled(endless)
        await eventually(lambda: not counting._tasks)
        assert not endless.ended


async def test_the_one_with_tools_calls_and_tells() -> None:
    looking = agent(TOOLS)
    settings = Settings(tools=({"type": "function", "name": "search"},))
    async with living(looking):
        call = await answered(looking, Response([said("ants")], settings))
        output = Item("o", kind="function_call_output", text="six legs")
        told = await answered(looking, Response([said("ants"), output], settings, id="b"))
    assert call.calls == [("search", '{"query": "ants"}')]
    assert told.written == "I found: six legs"


@pytest.mark.parametrize(
    ("then", "written"),
    [
        (lambda agent: None, "4 bytes"),  # what was begun in the pause
        (lambda agent: agent.speech_resumed(), "8 bytes"),
    ],
)
async def test_the_one_that_works_in_pauses_is_early(then: Callable[[Any], None], written: str) -> None:
    early = agent(PAUSES)
    async with living(early):
        early.speech_paused(200, [Item("a", role="user", pcm=bytes(4))])
        then(early)
        assert (await answered(early, Response([Item("a", role="user", pcm=bytes(8))]))).written == written


async def test_the_state_of_one_is_the_next_ones() -> None:
    before, after = agent(STATE), agent(STATE)
    before.dtmf("1")
    before.dtmf("2")
    after.resume(before.state(), [])
    after.dtmf("3")
    assert (await answered(after, Response([]))).written == "3 keys"


def test_the_test_passes() -> None:
    names = listing(TESTED)
    names["test_it_says_yes"]()
    names["Agent"].respond = lambda self, response: response.done()
    with pytest.raises(AssertionError):
        names["test_it_says_yes"]()
