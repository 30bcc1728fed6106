"""Work that media does not wait for: in small pieces, by turns, and bounded."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise
from typing import Any

from transceiver.backlog import Backlog


async def emptied(backlog: Backlog) -> None:
    async with asyncio.timeout(30):
        while len(backlog):  # noqa: ASYNC110 - it is on this loop that it gets empty
            await asyncio.sleep(0)


async def test_owners_take_turns_and_each_keeps_its_order() -> None:
    backlog, done = Backlog(), list[str]()
    for i in range(3):
        assert backlog.put("greedy", partial(done.append, f"greedy {i}"))
    assert backlog.put("modest", partial(done.append, "modest 0"))
    await emptied(backlog)
    assert done == ["greedy 0", "modest 0", "greedy 1", "greedy 2"]


async def test_what_is_ready_meanwhile_comes_between_two_jobs() -> None:
    backlog, done = Backlog(), list[str]()
    loop = asyncio.get_running_loop()
    for i in range(3):
        # Each job makes something ready, as a datagram wakes the handshake that waits for it.
        backlog.put("call", partial(lambda i: loop.call_soon(done.append, f"woken {i}"), i))
    await emptied(backlog)
    await asyncio.sleep(0)
    assert done == ["woken 0", "woken 1", "woken 2"]
    turns = list[str]()

    def media(left: int) -> None:
        turns.append("media")
        if left:
            loop.call_soon(media, left - 1)

    loop.call_soon(media, 5)
    for _ in range(4):
        backlog.put("call", partial(turns.append, "job"))
    await emptied(backlog)
    assert "job job" not in " ".join(turns)


async def test_while_media_is_behind_its_time_jobs_come_now_and_then_and_in_their_order() -> None:
    loop = asyncio.get_running_loop()
    late_s, done = 0.02, list[tuple[int, float]]()
    backlog = Backlog(lambda: late_s)
    for i in range(5):
        backlog.put("call", lambda i=i: done.append((i, loop.time())))
    await emptied(backlog)
    assert [i for i, _ in done] == [0, 1, 2, 3, 4]
    assert all(after - before >= 0.005 for (_, before), (_, after) in pairwise(done)), "media had the time between"
    # As soon as it is on time, nothing waits.
    for i in range(100):
        backlog.put("call", partial(done.append, (i, 0.0)), most=100)
    late_s = 0.0
    await emptied(backlog)
    assert [i for i, _ in done[5:]] == list(range(100))


async def test_an_owner_has_a_bound_and_the_others_do_not_feel_it() -> None:
    backlog, done = Backlog(), list[int]()
    taken = [backlog.put("flood", partial(done.append, i), most=10) for i in range(50)]
    assert taken == [True] * 10 + [False] * 40
    assert backlog.put("other", partial(done.append, -1))
    await emptied(backlog)
    assert done[:2] == [0, -1]
    assert len(done) == 11


async def test_what_is_forgotten_is_not_done() -> None:
    backlog, done = Backlog(), list[str]()
    backlog.put("gone", partial(done.append, "gone"))
    backlog.put("stays", partial(done.append, "stays"))
    backlog.forget("gone")
    backlog.forget("never was")
    await emptied(backlog)
    assert done == ["stays"]
    backlog.put("gone", partial(done.append, "back"))
    backlog.forget("gone")
    await asyncio.sleep(0)
    backlog.put("later", partial(done.append, "later"))
    await emptied(backlog)
    assert done == ["stays", "later"]


async def test_a_job_that_raises_ends_nobody_elses() -> None:
    backlog, done, told = Backlog(), list[str](), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fails() -> None:
        raise RuntimeError("ours")

    backlog.put("one", fails)
    backlog.put("one", partial(done.append, "one"))
    backlog.put("two", partial(done.append, "two"))
    await emptied(backlog)
    assert done == ["two", "one"]
    assert [str(e) for e in told] == ["ours"]
