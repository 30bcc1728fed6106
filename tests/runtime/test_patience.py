"""Patience: who is silent is found so in time, and an answer that this process was too busy to read is still heard."""

from __future__ import annotations

import asyncio
import time

import pytest

from runtime.patience import heard


async def test_an_answer_that_lay_there_while_the_loop_stood_still_is_heard() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def stand_still() -> None:
        time.sleep(0.6)
        read(5)

    def read(steps: int) -> None:  # from the socket to who asked it takes some rounds of the loop
        loop.call_soon(*((read, steps - 1) if steps else (answer.set_result, "here")))

    loop.call_soon(stand_still)
    assert await heard(answer, 0.5) == "here"


async def test_who_is_silent_is_not_waited_for() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await heard(answer, 0.01)
    assert not answer.done()


async def test_a_refusal_is_raised() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    answer.set_exception(ConnectionError("no"))
    with pytest.raises(ConnectionError):
        await heard(answer, 10)
