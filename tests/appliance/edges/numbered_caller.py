"""A caller that numbers what it says on its data channel: ``python numbered_caller.py URL TOKEN_FILE [ADDRESS]``.

While it talks to the agent echo, from a local address if one is given, it asks for a change of its session every 20 ms,
each with the next number, and is told of every change by an event that has the number in it. It prints a line when the
first is there. When its standard input ends, it asks no more, waits until all are answered or a minute is over, hangs
up, and prints how many it asked for and the numbers in the order in which they came, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import aiohttp

from caller.call import Call, Line
from caller.media import Media
from caller.signaling import Token, calls_url
from caller.voice import generated
from rtc.pacer import Pacer

EVERY_S, ALL_ANSWERED_S = 0.02, 60.0
MOST_UNANSWERED = 100  # a session keeps no more than some hundred events of a client that asks faster than it is served


async def talk(media: Media, told_to_end: asyncio.Event) -> tuple[int, list[int]]:
    asked, answers = 0, list[int]()

    def read() -> None:
        while media.events:
            event = media.events.popleft()
            if event["type"] == "session.updated":
                if not answers:
                    print("talking", flush=True)
                answers.append(int(event["session"]["instructions"]))

    while not told_to_end.is_set():
        if asked - len(answers) < MOST_UNANSWERED:
            media.send_event({"type": "session.update", "session": {"type": "realtime", "instructions": str(asked)}})
            asked += 1
        await asyncio.sleep(EVERY_S)
        read()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ALL_ANSWERED_S):
            while len(answers) < asked:
                await asyncio.sleep(EVERY_S)
                read()
    return asked, answers


async def main(url: str, token_file: Path, bind: str | None) -> None:
    token = Token(token_file.read_text().strip(), str(token_file))
    async with aiohttp.ClientSession() as http:
        call = Call(Line(http, calls_url(url, "echo"), token, generated(), Pacer(), bind=bind))
        await call.set_up()
        media = call.media
        assert media is not None
        while media.channel_open_at is None:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(EVERY_S)
        told_to_end = asyncio.Event()
        ending = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        ending.add_done_callback(lambda _: told_to_end.set())
        asked, answers = await talk(media, told_to_end)
        await call.hang_up()
    print(json.dumps({"asked": asked, "answers": answers}))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
