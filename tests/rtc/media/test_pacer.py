"""The pacer: everybody is called in turn, and nothing runs for nobody. How exactly on time is a benchmark."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rtc.frame import FRAME_S
from rtc.pacer import Pacer

DEADLINE_S = 30


class Streams:
    """Counts ticks by name; ``reached`` waits until each has had so many."""

    def __init__(self) -> None:
        self.ticks: Counter[str] = Counter()
        self.changed = asyncio.Event()

    def stream(self, name: str) -> Callable[[], None]:
        def tick() -> None:
            self.ticks[name] += 1
            self.changed.set()

        return tick

    async def reached(self, count: int, *names: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while any(self.ticks[name] < count for name in names):
                self.changed.clear()
                await self.changed.wait()


async def test_every_stream_is_called_equally_often() -> None:
    pacer, streams = Pacer(), Streams()
    names = [str(i) for i in range(11)]
    ticks = [streams.stream(name) for name in names]
    for tick in ticks:
        pacer.add(tick)
    await streams.reached(15, *names)
    for tick in ticks:
        pacer.remove(tick)
    assert max(streams.ticks.values()) - min(streams.ticks.values()) <= 1


async def test_ticks_do_not_come_faster_than_every_20_ms() -> None:
    pacer, streams = Pacer(), Streams()
    tick = streams.stream("a")
    began = asyncio.get_running_loop().time()
    pacer.add(tick)
    await streams.reached(11, "a")
    pacer.remove(tick)
    # Ten intervals are between eleven ticks; less would mean that the clock of the stream ran ahead.
    assert asyncio.get_running_loop().time() - began >= 10 * FRAME_S - 0.001


async def test_a_stream_that_is_removed_is_never_called_again() -> None:
    pacer, streams = Pacer(), Streams()
    gone, stays = streams.stream("gone"), streams.stream("stays")
    pacer.add(gone)
    pacer.add(stays)
    await streams.reached(2, "gone", "stays")
    pacer.remove(gone)
    had = streams.ticks["gone"]
    await streams.reached(streams.ticks["stays"] + 3, "stays")
    pacer.remove(stays)
    assert streams.ticks["gone"] == had


async def test_a_stream_may_remove_itself_and_others_while_it_is_called() -> None:
    pacer, streams = Pacer(), Streams()
    others = [streams.stream(str(i)) for i in range(8)]
    stays = streams.stream("stays")

    def last() -> None:
        streams.stream("last")()
        pacer.remove(last)
        for other in others:
            pacer.remove(other)

    for tick in (*others[:4], last, *others[4:], stays):
        pacer.add(tick)
    await streams.reached(1, "last")
    had = Counter(streams.ticks)
    await streams.reached(had["stays"] + 3, "stays")
    pacer.remove(stays)
    assert streams.ticks["last"] == 1
    # One that shared the phase may have been due in the same breath, but never after it.
    assert all(streams.ticks[str(i)] - had[str(i)] <= 1 for i in range(8))


async def test_a_stream_may_be_added_while_another_is_called() -> None:
    pacer, streams = Pacer(), Streams()
    late = streams.stream("late")

    def first() -> None:
        streams.stream("first")()
        if streams.ticks["first"] == 1:
            pacer.add(late)

    pacer.add(first)
    await streams.reached(3, "first", "late")
    pacer.remove(first)
    pacer.remove(late)


async def test_it_starts_again_after_everybody_has_gone() -> None:
    pacer, streams = Pacer(), Streams()
    for name in ("one", "two", "three"):
        tick = streams.stream(name)
        pacer.add(tick)
        await streams.reached(2, name)
        pacer.remove(tick)
    assert set(streams.ticks) == {"one", "two", "three"}


async def test_removing_who_was_never_there_is_no_trouble() -> None:
    pacer, streams = Pacer(), Streams()
    pacer.remove(streams.stream("nobody"))
    tick = streams.stream("a")
    pacer.add(tick)
    pacer.remove(tick)
    pacer.remove(tick)
    pacer.add(tick)
    await streams.reached(1, "a")
    pacer.remove(tick)


async def test_adding_and_removing_within_one_breath_calls_nobody() -> None:
    pacer, streams = Pacer(), Streams()
    for _ in range(50):
        tick = streams.stream("a")
        pacer.add(tick)
        pacer.remove(tick)
    other = streams.stream("other")
    pacer.add(other)
    await streams.reached(5, "other")
    pacer.remove(other)
    assert streams.ticks["a"] == 0


async def test_a_tick_that_raises_stops_itself_and_nobody_else() -> None:
    pacer, streams = Pacer(), Streams()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def broken() -> None:
        streams.ticks["broken"] += 1
        raise RuntimeError("no more")

    healthy = streams.stream("healthy")
    pacer.add(broken)
    pacer.add(healthy)
    await streams.reached(10, "healthy")
    pacer.remove(healthy)
    assert streams.ticks["broken"] == 1
    assert [str(context["exception"]) for context in reported] == ["no more"]


async def test_frames_are_counted_by_how_near_to_their_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, pacer, streams = asyncio.get_running_loop(), Pacer(), Streams()
    clock = 1000.0
    monkeypatch.setattr(loop, "time", lambda: clock)
    timers: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(loop, "call_at", lambda when, run: timers.append((when, run)))
    pacer.add(streams.stream("0"))
    for i in range(1, 5):  # one in each phase
        pacer._phases[i][streams.stream(str(i))] = None

    def run_after(s: float) -> None:
        nonlocal clock
        when, run = timers.pop()
        clock = when + s
        run()

    pacer._run()
    run_after(0.003)
    assert pacer.frames == {"on_time": 2, "late": 0, "skipped": 0}
    before = Counter(pacer.frames)
    run_after(0.0059)
    assert Counter(pacer.frames) - before == {"late": 1}
    run_after(0.0019)  # the next phase, whose time has come too: in the loop's next turn
    assert Counter(pacer.frames) - before == {"late": 1, "on_time": 1}
    before = Counter(pacer.frames)
    run_after(1.005)
    assert (Counter(pacer.frames) - before)["skipped"] == 50 * 5
    assert sum(pacer.recent.counts) == pacer.frames["on_time"] + pacer.frames["late"]


async def test_what_is_to_be_done_before_frames_is_done_each_time_and_its_faults_stop_nobody() -> None:
    pacer, streams, done = Pacer(), Streams(), []
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    tick = streams.stream("one")

    def look() -> None:
        done.append(streams.ticks["one"])
        if len(done) == 1:
            raise ZeroDivisionError

    pacer.before.add(look)
    pacer.add(tick)
    await streams.reached(3, "one")
    pacer.remove(tick)
    assert done[:3] == [0, 1, 2]
    assert len(failures) == 1


async def test_who_has_too_much_to_do_still_reads_what_comes() -> None:
    pacer, turns = Pacer(), 0

    def slow() -> None:
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            pass

    ticks = [partial(slow) for _ in range(5)]
    for i, tick in enumerate(ticks):
        pacer.add(tick)
        pacer._phases[0].pop(tick, None)
        pacer._phases[i][tick] = None
    async with asyncio.timeout(30):
        while pacer.frames["on_time"] + pacer.frames["late"] < 25:
            await asyncio.sleep(0)
            turns += 1
    for tick in ticks:
        pacer.remove(tick)
    assert turns >= 20  # one a phase


async def test_it_says_how_far_it_is_behind() -> None:
    pacer, blocked = Pacer(), False
    loop = asyncio.get_running_loop()
    behind: asyncio.Future[float] = loop.create_future()

    def look() -> None:
        behind.set_result(pacer.behind())

    def tick() -> None:
        nonlocal blocked
        if not blocked:
            blocked = True
            time.sleep(0.05)  # nothing else runs meanwhile, as under a burst of work
            loop.call_soon(look)

    assert pacer.behind() == 0
    pacer.add(tick)
    assert 0.02 < await asyncio.wait_for(behind, 20) < 20
    pacer.remove(tick)
    assert pacer.behind() == 0


async def test_a_phase_is_filled_before_the_next_is_begun_and_none_overflows() -> None:
    pacer, streams = Pacer(), Streams()
    ticks = [streams.stream(str(i)) for i in range(100)]
    sizes = []
    for tick in ticks:
        pacer.add(tick)
        sizes.append(sorted(map(len, pacer._phases), reverse=True))
    assert sizes[9] == [10, 0, 0, 0, 0]
    assert sizes[24] == [10, 10, 5, 0, 0]
    assert sizes[99] == [20, 20, 20, 20, 20]
    for tick in ticks:
        pacer.remove(tick)


async def test_pacer_calls_each_on_schedule_and_spread_over_the_frame() -> None:
    pacer, loop = Pacer(), asyncio.get_running_loop()
    times: list[list[float]] = [[] for _ in range(10)]
    enough, then = asyncio.Event(), list[int]()

    def sender(i: int) -> Any:
        def send() -> None:
            times[i].append(loop.time())
            if not then and all(len(t) >= 25 for t in times):
                then.extend(map(len, times))
                enough.set()

        return send

    sends = [sender(i) for i in range(10)]
    for send in sends:
        pacer.add(send)
    await asyncio.wait_for(enough.wait(), 30)
    for send in sends:
        pacer.remove(send)
    # Everyone is called equally often, give or take the slot that has just come: nothing drifts.
    assert set(then) <= {25, 26, 27}
    counts = [len(t) for t in times]
    await asyncio.sleep(0.05)
    assert [len(t) for t in times] == counts


async def test_a_stream_that_has_a_time_is_called_then() -> None:
    pacer = Pacer()
    order: list[str] = []
    at: list[float] = []
    both = asyncio.Event()
    loop = asyncio.get_running_loop()

    def one() -> None:
        order.append("one")
        if len(order) == 2:
            loop.call_soon(lambda: pacer.add(other, due=due))

    def other() -> None:
        order.append("other")
        at.append(loop.time())
        if len(order) > 8:
            both.set()

    pacer.add(one)
    due = loop.time() + FRAME_S + 0.008  # between its second time and its third
    async with asyncio.timeout(DEADLINE_S):
        await both.wait()
    pacer.remove(one)
    pacer.remove(other)
    assert order[:2] == ["one", "one"]
    assert order[2:8] == ["other", "one"] * 3
    assert at[0] >= due - 0.003


async def test_the_first_stream_of_all_may_have_a_time_too() -> None:
    pacer, streams = Pacer(), Streams()
    tick = streams.stream("a")
    due = asyncio.get_running_loop().time() + 0.013
    pacer.add(tick, due=due)
    await streams.reached(1, "a")
    pacer.remove(tick)
    assert asyncio.get_running_loop().time() >= due - 0.001


async def test_a_stream_whose_time_is_past_makes_nobody_tick_twice() -> None:
    pacer = Pacer()
    order: list[str] = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()

    def one() -> None:
        order.append("one")
        if len(order) == 3:
            loop.call_soon(lambda: pacer.add(other, due=began + 0.008))

    def other() -> None:
        order.append("other")
        if len(order) > 8:
            enough.set()

    pacer.add(one)
    async with asyncio.timeout(DEADLINE_S):
        await enough.wait()
    pacer.remove(one)
    pacer.remove(other)
    assert order[:9] == ["one"] * 3 + ["other", "one"] * 3
    assert loop.time() - began >= (order.count("one") - 1) * FRAME_S - 0.001
