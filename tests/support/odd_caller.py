"""A caller to whom something happens: ``python odd_caller.py URL TOKEN_FILE move|forge|claim|flood|told TIMES``.

Places one echo call and, while it talks,

* ``move``: goes on from another local port, once a second, as behind a NAT that forgets;
* ``forge``: sends media with the call's own SSRC from another port, which is not encrypted for the call;
* ``claim``: has checks that nominate sent from another port, where nobody answers: its own that were overheard, and
  others that are as good;
* ``flood``: sends 30 packets of another stream, each second of them missing, and 30 reports that ask for thousands of
  packets, every 10 ms;
* ``told``: goes on from another local port at each line on standard input, says the longest time without audio in the
  second after it as a line of JSON, and hangs up at the end of the input.

Prints as JSON the longest times (ms) without audio, how many frames were sent and returned, how many datagrams the
forger got, and how many bytes it sent and got.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from pathlib import Path

import aiohttp

from caller.call import Call, Line
from caller.media import Media
from caller.signaling import Token, calls_url
from caller.voice import generated
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from wire import stun


async def move(media: Media, times: int) -> list[float]:
    gaps = []
    for _ in range(times):
        media.reception.longest_gap_ms = 0.0
        await media.rebind()
        await asyncio.sleep(1)
        gaps.append(media.reception.longest_gap_ms)
    return gaps


async def move_when_told(media: Media) -> None:
    while await asyncio.to_thread(sys.stdin.readline):
        (gap_ms,) = await move(media, 1)
        print(json.dumps({"gap_ms": gap_ms}), flush=True)


def got(forger: socket.socket) -> list[int]:
    """The lengths of what has come."""
    lengths = []
    while True:
        try:
            lengths.append(len(forger.recv(2048)))
        except BlockingIOError:
            return lengths


async def claim(media: Media, times: int) -> tuple[int, list[int]]:
    answer, sent = media._answer, 0
    username, key = f"{answer.ufrag}:{media._offer.ufrag}".encode(), answer.password.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.setblocking(False)
        for _ in range(times):
            overheard, other = (stun.binding_request(username, key, tie_breaker=1, nominate=True) for _ in range(2))
            media._send(overheard)
            await asyncio.sleep(0.02)
            for check in (overheard, other):
                forger.sendto(check, media.server)
                sent += len(check)
        await asyncio.sleep(1)
        return sent, got(forger)


async def flood(media: Media, times: int) -> None:
    """All of it authentic."""
    asks = struct.pack("!BBHII", 0x81, 205, 2 + 300, media.ssrc, 1) + struct.pack("!HH", 1, 0xFFFF) * 300
    for i in range(times):
        for j in range(30):
            number = 2 * (30 * i + j)
            media._send(media._secure.protect(rtp.build(111, False, number, 960 * number, media.ssrc ^ 1, bytes(60))))
            media._send(media._secure.protect_rtcp(asks))
        await asyncio.sleep(0.01)


async def forge(media: Media, times: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.setblocking(False)
        for i in range(times):
            forger.sendto(rtp.build(111, False, i, i * 960, media.ssrc, bytes(100)), media.server)
            await asyncio.sleep(0.005)
        await asyncio.sleep(1)
        return len(got(forger))


async def main(url: str, token_file: Path, what: str, times: int) -> None:
    token = Token(token_file.read_text().strip(), str(token_file))
    async with aiohttp.ClientSession() as http:
        call = Call(Line(http, calls_url(url, "echo"), token, generated(), Pacer()))
        await call.set_up()
        assert call.media is not None
        seconds = {"move": 2 + times, "forge": 4, "claim": 2 + times * 0.02, "flood": 2 + times * 0.02, "told": 600}[
            what
        ]
        talking = asyncio.create_task(call.talk(seconds))
        await asyncio.sleep(1)
        gaps = await move(call.media, times) if what == "move" else []
        answers = await forge(call.media, times) if what == "forge" else 0
        if what == "flood":
            await flood(call.media, times)
        spent, drawn = await claim(call.media, times) if what == "claim" else (0, [])
        if what == "told":
            await move_when_told(call.media)
            call.stop()
        await talking
        await call.hang_up()
    result = call.result()
    said = {"gaps_ms": gaps, "answers": answers, "sent": result.frames_sent, "returned": result.frames_returned}
    said |= {"spent": spent, "drawn": sum(drawn)}
    print(json.dumps(said))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
