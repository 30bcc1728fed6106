"""The callers, in one process on one core: more of them than can be served, long calls and short ones.

A plan comes on standard input, and figures go to standard output. A caller that is refused tries again after a while,
and one whose short call is over begins the next. Arrivals are stamped by the kernel, so no wait of this process is in
them; an RTP header is not encrypted, so nothing is opened either.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from bench.calls.analysis import quantiles
from bench.calls.client import PAYLOAD_TYPE, SO_TIMESTAMPNS, Client, Place
from bench.calls.offers import OfferRefused
from bench.calls.voice import FRAME_TICKS, Voice
from bench.capacity.schedule import Arrivals, Frames
from rtc.dtls.secure import Certificate
from rtc.frame import FRAME_S, FRAMES_PER_S
from rtc.rtp import packet as rtp
from runtime.process import FIRST, set_nice

__all__ = ["main"]

AGAIN_S = 2.0  # as Retry-After says
SHORT_S = (3.0, 8.0)
CONNECT_S = 5.0
ENDS_S = 2.0
SETTLED_S = 1.0  # of a call, before its frames count
_STAMP = struct.Struct("qq")
_HEAD = struct.Struct("!xBHI")
_chance = np.random.default_rng(1)


class Call:
    """The media of one call that was let in, until ``ended``."""

    def __init__(self, client: Client, voice: Voice, *, echoes: bool) -> None:
        self.arrivals = Arrivals()
        self.began = time.time()
        self.ended = float("inf")
        self._client, self._voice, self._echoes = client, voice, echoes
        self._first = int(_chance.integers(len(voice.packets)))
        self._sequence, self._timestamp = secrets.randbits(15), secrets.randbits(32)
        self._sent_at: dict[int, float] = {}  # by our timestamp, which an echo has but for a constant
        self._shift: int | None = None
        self._k = 0
        self._loop = asyncio.get_running_loop()
        client.release()
        self._loop.add_reader(client.socket, self._read)
        self._due = self._loop.time() + _chance.random() * FRAME_S
        self._timer: asyncio.TimerHandle = self._loop.call_at(self._due, self._say)
        self._check()

    async def hang_up(self) -> None:
        self.ended = time.time()
        self._timer.cancel()
        self._checks.cancel()
        self._loop.remove_reader(self._client.socket)
        await self._client.close()

    def _check(self) -> None:
        self._checks = self._loop.call_at(self._client.check(self._loop.time()), self._check)

    def _say(self) -> None:
        payload = self._voice.packets[(self._first + self._k) % len(self._voice.packets)]
        stamp = (self._timestamp + self._k * FRAME_TICKS) & 0xFFFFFFFF
        sequence = (self._sequence + self._k) & 0xFFFF
        packet = rtp.build(PAYLOAD_TYPE, self._k == 0, sequence, stamp, self._client.ssrc, payload)
        datagram = self._client.secure.protect(packet)
        if self._echoes:
            self._sent_at[stamp] = time.time()
        with suppress(OSError):  # the server is gone, or the buffer is full: lost
            self._client.socket.send(datagram)
        self._k += 1
        self._due += FRAME_S
        self._timer = self._loop.call_at(self._due, self._say)

    def _read(self) -> None:
        client = self._client
        while True:
            try:
                datagram, ancillary, _, _ = client.socket.recvmsg(2048, 64)
            except OSError:
                return
            first = datagram[0] if datagram else 255
            if first <= 3:
                client.stun(datagram, self._loop.time())
            elif 20 <= first <= 63:
                client.secure.feed(datagram)
            elif len(datagram) >= 12 and not rtp.is_rtcp(datagram):
                self._take(datagram, ancillary)

    def _take(self, datagram: bytes, ancillary: Any) -> None:
        kind, sequence, stamp = _HEAD.unpack_from(datagram)
        if kind & 0x7F != self._client.answer.payload_type:
            return
        seconds, nanoseconds = next(
            (_STAMP.unpack(data[:16]) for _, type_, data in ancillary if type_ == SO_TIMESTAMPNS), (0, 0)
        )
        if self._echoes:
            # The first that comes back is the first that was sent, or one of the next: an echo loses none at its start.
            if self._shift is None:
                self._shift = next(iter(self._sent_at)) - stamp
            sent = self._sent_at.pop((stamp + self._shift) & 0xFFFFFFFF, None)
            if sent is None:
                return
            self.arrivals.sent.append(sent)
        self.arrivals.sequences.append(sequence)
        self.arrivals.timestamps.append(stamp)
        self.arrivals.came.append(seconds + nanoseconds * 1e-9)


class Callers:
    """All callers of one plan."""

    def __init__(self, plan: dict[str, Any], place: Place) -> None:
        self._plan, self._place = plan, place
        self._voice = Voice.load(Path(plan["voice"]))
        self.calls: list[Call] = []
        self.refused: Counter[str] = Counter()
        self.refused_ms: list[float] = []
        self._live = 0
        self._over = False

    async def run(self) -> dict[str, Any]:
        plan = self._plan
        loop = asyncio.get_running_loop()
        ramp_s = plan["callers"] / plan["rate"]
        began = loop.time()
        tasks = [loop.create_task(self._caller(i, began + i / plan["rate"])) for i in range(plan["callers"])]
        await asyncio.sleep(ramp_s + plan["settle"])
        begin, cpu = time.time(), time.process_time()
        self.refused.clear()
        self.refused_ms.clear()
        counts = []
        while (end := time.time()) < begin + plan["seconds"]:
            await asyncio.sleep(0.1)
            counts.append(self._live)
        share = (time.process_time() - cpu) / (end - begin)
        # What was due at the end is still on its way.
        await asyncio.sleep(0.5)
        frames, worst = self._frames(begin, end)
        self._over = True
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=ENDS_S)  # their server ends next: nobody misses a goodbye
        return {
            "begin": begin,
            "end": end,
            "calls": sum(counts) / max(1, len(counts)),
            "due": frames.due,
            "late": frames.late,
            "lost": frames.lost,
            "kept": round(frames.kept, 6),
            "worst_call_kept": round(worst, 4),
            "refused": dict(self.refused),
            "refused_ms": quantiles(self.refused_ms),
            "load_share": round(share, 3),
        }

    def _frames(self, begin: float, end: float) -> tuple[Frames, float]:
        total, worst = Frames(), 1.0
        for call in self.calls:
            since, until = max(begin, call.began + SETTLED_S), min(end, call.ended)
            if until - since >= 10 / FRAMES_PER_S:
                frames = call.arrivals.frames(since, until)
                total, worst = total + frames, min(worst, frames.kept)
        return total, worst

    async def _caller(self, number: int, at: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(at - loop.time())
        short = number % self._plan["short_of"] == 0
        while not self._over:
            client = Client(self._place)
            asked = loop.time()
            try:
                await client.call()
            except OfferRefused as e:
                self.refused[str(e)[:8]] += 1
                self.refused_ms.append(1000 * (loop.time() - asked))
            except (TimeoutError, OSError, ConnectionError, aiohttp.ClientError) as e:
                self.refused[f"{type(e).__name__} ({client.phase})"] += 1
            else:
                await self._talk(client, _chance.uniform(*SHORT_S) if short else 3600.0)
                continue
            await client.close()
            await asyncio.sleep(AGAIN_S * _chance.uniform(0.75, 1.25))

    async def _talk(self, client: Client, seconds: float) -> None:
        call = Call(client, self._voice, echoes=self._plan["echoes"])
        self.calls.append(call)
        self._live += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._live -= 1
            await call.hang_up()


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    # Callers are strangers to one another: none waits for a connection of another one's.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        certificate = Certificate.generateCertificate()
        place = Place(http, plan["protocol"], plan["where"], plan["host"], certificate, timeout_s=CONNECT_S)
        return await Callers(plan, place).run()


def main() -> None:
    set_nice(FIRST)  # as the servers do
    gc.disable()  # a pause here would be a burst of all callers at once, and no caller's own
    print(json.dumps(asyncio.run(_run(json.load(sys.stdin)))), flush=True)
    os._exit(0)  # whatever of the calls did not end


if __name__ == "__main__":
    main()
