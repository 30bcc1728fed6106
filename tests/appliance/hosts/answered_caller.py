"""A caller that waits between the answer and its first check: ``python answered_caller.py URL TOKEN_FILE``.

It prints a line when the call has been answered, waits for one on standard input, connects, talks to the agent echo for
a second, and prints whether it had a data channel.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from caller import call as calls
from caller.call import Call, Line
from caller.media import Media
from caller.signaling import Token, calls_url
from caller.voice import generated
from rtc.pacer import Pacer


class Waiting(Media):
    """Media that begins when it is told to."""

    async def open(self, bind: str | None = None) -> None:
        print("answered", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await super().open(bind)


async def main(url: str, token_file: Path) -> None:
    calls.Media = Waiting  # type: ignore[misc]
    token = Token(token_file.read_text().strip(), str(token_file))
    async with aiohttp.ClientSession() as http:
        call = Call(Line(http, calls_url(url, "echo"), token, generated(), Pacer(), timeout_s=60))
        await call.set_up()
        await call.talk(1.0)
        await call.hang_up()
        assert call.media is not None
        print("channel" if call.media.channel_open_at is not None else "no channel")


asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
