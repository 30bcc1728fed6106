"""Many calls at once: they are placed at a steady rate, watched while they last, and ended together by Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp

from caller.call import Call, Line
from caller.result import Result
from caller.signaling import Token
from caller.voice import Voice
from rtc.pacer import Pacer

__all__ = ["Plan", "dial"]

_WATCH_EVERY_S = 0.25

Watch = Callable[[Sequence[Result], Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls to place: ``calls`` calls to the complete ``url``, ``rate`` new ones a second, each talking for
    ``talk_s`` seconds and pressing ``keys``."""

    url: str
    voice: Voice
    token: Token | None = None
    calls: int = 1
    rate: float = 10.0
    talk_s: float = 10.0
    bind: str | None = None
    timeout_s: float = 10.0
    keys: str = ""


async def dial(
    plan: Plan, watch: Watch | None = None, *, stop: asyncio.Event | None = None
) -> tuple[list[Result], float]:
    """Places all calls. Returns every call's result, in order, and how late the caller itself was at worst, in ms.

    ``watch(results, states)`` is called four times a second with what is known so far. When ``stop`` is set the
    calls hang up and those that were not up yet are ``interrupted``; without one, Ctrl-C and SIGTERM do that.
    """
    signals = (signal.SIGINT, signal.SIGTERM) if stop is None else ()
    stop = stop or asyncio.Event()
    pacer = Pacer()
    local = (plan.bind, 0) if plan.bind else None
    connector = aiohttp.TCPConnector(limit=0, local_addr=local)
    # Each phase has a limit of its own, so the session has none.
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as http:
        line = Line(http, plan.url, plan.token, plan.voice, pacer, plan.bind, plan.timeout_s, plan.keys)
        calls = [Call(line, number) for number in range(1, plan.calls + 1)]
        with _stopped_by(signals, stop):
            started = asyncio.get_running_loop().time()
            tasks = [
                asyncio.create_task(_one(call, started + i / plan.rate, plan.talk_s, stop))
                for i, call in enumerate(calls)
            ]
            watcher = asyncio.create_task(_watch(calls, watch)) if watch else None
            ender = asyncio.create_task(_end_all(calls, stop))
            try:
                results = await asyncio.gather(*tasks)
            finally:
                for task in (*tasks, ender, *([watcher] if watcher else [])):
                    task.cancel()
                await asyncio.gather(*tasks, ender, *([watcher] if watcher else []), return_exceptions=True)
    return results, pacer.worst_late_ms


async def _one(call: Call, at: float, talk_s: float, stop: asyncio.Event) -> Result:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(at):
            await stop.wait()
    return call.result() if stop.is_set() else await call.run(talk_s)


async def _end_all(calls: Sequence[Call], stop: asyncio.Event) -> None:
    await stop.wait()
    for call in calls:
        call.stop()


async def _watch(calls: Sequence[Call], watch: Watch) -> None:
    while True:
        watch([call.result() for call in calls], [call.state for call in calls])
        await asyncio.sleep(_WATCH_EVERY_S)


@contextlib.contextmanager
def _stopped_by(signals: Sequence[signal.Signals], stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def release() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def first() -> None:
        # The second one ends the process as usual.
        release()
        stop.set()

    with contextlib.suppress(RuntimeError):  # not the main thread, where signals never come
        for number in signals:
            loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        release()
