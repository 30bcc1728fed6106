"""The load: calls that talk, in one process on one core. A plan comes as a line
on standard input, figures go to standard output.

While calls talk, this only sends and reads. Every SRTP packet is made before the first is sent, and every one that
comes back is kept with the kernel's stamp of its arrival and opened after the last. So the load costs two system calls
a frame, and none of its own waits is in the figures.
"""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import select
import struct
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt

from bench.calls import analysis
from bench.calls.client import PAYLOAD_TYPE, SO_TIMESTAMPNS, Client, Place
from bench.calls.voice import FRAME_TICKS, Voice
from rtc.dtls.secure import Certificate
from rtc.frame import FRAME_S
from rtc.ice.controlling import CONSENT_EVERY_S
from rtc.rtp import packet as rtp

__all__ = ["main"]

AT_ONCE = 4  # calls that are being set up
LEAD_S = 0.2
TAIL_S = 0.6
# A retransmission is asked for across a network, not on one machine.
NACK_ROUND_TRIP_S = 0.04
SHORTEST_SLEEP_S = 0.0001
RTCP_FEEDBACK, GENERIC_NACK = 205, 1
_STAMP = struct.Struct("qq")

Times = npt.NDArray[np.float64]


@dataclass
class Talk:
    """The media of one call: SRTP ``packets`` in their order, ``sent_at`` of each (nan where it was not), and what came
    back as (datagram, ancillary data)."""

    client: Client
    voice: Voice
    loss: float
    jitter_s: float
    first: int
    sequence: int
    packets: list[bytes] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    came: list[tuple[bytes, Any]] = field(default_factory=list)
    asked_for: int = 0

    def __post_init__(self) -> None:
        # Where as much is lost, the same packets are: whatever the server, and whether it asks for them again.
        self.chance = np.random.default_rng(1 + round(1000 * self.loss))

    def prepare(self, frames: int) -> None:
        timestamp = secrets.randbits(32)
        for k in range(frames):
            payload = self.voice.packets[(self.first + k) % len(self.voice.packets)]
            packet = rtp.build(
                PAYLOAD_TYPE, k == 0, self.sequence + k, timestamp + k * FRAME_TICKS, self.client.ssrc, payload
            )
            self.packets.append(self.client.secure.protect(packet))
        self.sent_at = [float("nan")] * frames


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    talks = asyncio.run(_set_up(plan))
    if plan.get("together"):  # with other processes, which begin when all are ready
        print("ready", flush=True)
        sys.stdin.readline()
    print(json.dumps(_measured(plan, talks)), flush=True)


async def _set_up(plan: dict[str, Any]) -> list[Talk]:
    """Connects all the calls. They are left as they are: the event loop ends here, the calls do not."""
    voices = {path: Voice.load(Path(path)) for path in {call["voice"] for call in plan["calls"]}}
    gate = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        certificate = Certificate.generateCertificate()
        place = Place(http, plan["protocol"], plan["where"], plan["host"], certificate, plan["channel"])
        clients = [Client(place, nack=call["nack"]) for call in plan["calls"]]

        async def one(client: Client) -> None:
            async with gate:
                await client.call()

        done = await asyncio.gather(*(one(client) for client in clients), return_exceptions=True)
        if failures := [error for error in done if isinstance(error, BaseException)]:
            raise SystemExit(f"{len(failures)} of {len(done)} calls did not come up: {failures[0]!r}")
        # Acknowledgements of the data channels are still on their way.
        await asyncio.sleep(0.3)
        for client in clients:
            client.release()
    talks = []
    for i, (call, client) in enumerate(zip(plan["calls"], clients, strict=True)):
        voice = voices[call["voice"]]
        first = i * 37 % len(voice.packets) if plan["spread"] else 0
        talks.append(Talk(client, voice, call["loss"], call["jitter_s"], first, secrets.randbits(15)))
    return talks


def _measured(plan: dict[str, Any], talks: list[Talk]) -> dict[str, Any]:
    warm_up, seconds = plan["warm_up"], plan["seconds"]
    frames = round((warm_up + seconds + TAIL_S) / FRAME_S)
    for talk in talks:
        talk.prepare(frames)
    # Each call has its own moment in the 20 ms, as strangers have.
    due = sorted(
        ((k + (i + 0.5) / len(talks)) * FRAME_S + talk.chance.random() * talk.jitter_s, i, k)
        for i, talk in enumerate(talks)
        for k in range(frames)
        if talk.chance.random() >= talk.loss
    )
    gc.collect()
    gc.freeze()
    gc.disable()
    origin = time.time() + 0.1
    cpu = _talk(talks, due, origin, origin + warm_up, origin + warm_up + seconds)
    heard = [analysis.Heard(*_opened(talk), _sent_at(talk, origin), talk.voice, talk.first) for talk in talks]
    span = (origin + warm_up, origin + warm_up + seconds)
    late = [sent - origin - at for at, i, k in due if (sent := talks[i].sent_at[k]) == sent]
    result = {
        **analysis.figures(heard, span),
        "setup_ms": [round(1000 * talk.client.setup_s, 1) for talk in talks],
        "load_share": cpu,
        "load_late_ms": analysis.quantiles([1000 * x for x in late]),
        "asked_for": [talk.asked_for for talk in talks],
    }
    if out := plan.get("pcm"):
        for i, one in enumerate(heard):
            Path(f"{out}-{i}.pcm").write_bytes(one.pcm(16000))
    return result


def _talk(talks: list[Talk], due: list[tuple[float, int, int]], origin: float, begin: float, end: float) -> float:
    """Sends each packet when it is due and reads what comes; says "begin" and "end". Returns the share of a core that
    it used."""
    poll, of = select.epoll(), {}
    for talk in talks:
        poll.register(talk.client.socket.fileno(), select.EPOLLIN)
        of[talk.client.socket.fileno()] = talk
    now = time.time()
    checks = [(now + CONSENT_EVERY_S * i / len(talks), talk) for i, talk in enumerate(talks)]
    marks = [(begin - LEAD_S, "begin"), (end, "end")]
    again: list[tuple[float, Talk, int]] = []
    share = 0.0
    at, last = 0, len(due)
    cpu_began = wall_began = 0.0
    while at < last or time.time() < end + TAIL_S:
        now = time.time()
        while at < last and origin + due[at][0] <= now:
            _, i, k = due[at]
            at += 1
            talk = talks[i]
            talk.sent_at[k] = time.time()
            _send(talk, k)
        if marks and marks[0][0] <= now:
            mark = marks.pop(0)[1]
            if mark == "begin":
                cpu_began, wall_began = time.process_time(), now
            else:
                share = (time.process_time() - cpu_began) / (now - wall_began)
            print(mark, flush=True)
        if checks[0][0] <= now:
            _, talk = checks.pop(0)
            talk.client.check(time.monotonic())
            checks.append((now + CONSENT_EVERY_S, talk))
        while again and again[0][0] <= now:
            _, talk, k = again.pop(0)
            _send(talk, k)
        waiting = (origin + due[at][0] if at < last else end + TAIL_S) - time.time()
        # epoll counts milliseconds; select(2) on its descriptor counts microseconds.
        select.select([poll.fileno()], [], [], max(SHORTEST_SLEEP_S, min(waiting, 0.005)))
        for fd, _ in poll.poll(0):
            talk = of[fd]
            try:
                datagram, ancillary, _, _ = talk.client.socket.recvmsg(2048, 64)
            except OSError:
                continue
            if len(datagram) < 12:
                continue
            if 128 <= datagram[0] <= 191:
                if not rtp.is_rtcp(datagram):
                    talk.came.append((datagram, ancillary))
                elif talk.loss:
                    for k in _asked_for(talk, datagram):
                        talk.asked_for += 1
                        if talk.chance.random() >= talk.loss:
                            again.append((now + NACK_ROUND_TRIP_S, talk, k))
            elif datagram[0] <= 3:
                talk.client.stun(datagram, time.monotonic())
    return share


def _send(talk: Talk, k: int) -> None:
    with suppress(OSError):  # the server died, or the buffer is full: lost, as figures will say
        talk.client.socket.send(talk.packets[k])


def _asked_for(talk: Talk, srtcp: bytes) -> Iterable[int]:
    """The packets that a generic NACK asks for (RFC 4585 section 6.2.1), by their place among ours."""
    compound = talk.client.secure.unprotect_rtcp(srtcp) or b""
    at = 0
    while at + 12 <= len(compound):
        length = 4 + 4 * int.from_bytes(compound[at + 2 : at + 4], "big")
        if compound[at + 1] == RTCP_FEEDBACK and compound[at] & 31 == GENERIC_NACK:
            for entry in range(at + 12, min(at + length, len(compound)), 4):
                pid, mask = struct.unpack_from("!HH", compound, entry)
                for bit in (0, *(n + 1 for n in range(16) if mask >> n & 1)):
                    k = (pid + bit - talk.sequence) & 0xFFFF
                    if k < len(talk.packets):
                        yield k
        at += length


def _opened(talk: Talk) -> tuple[list[rtp.Packet], Times]:
    packets, arrived = [], []
    for datagram, ancillary in talk.came:
        plain = talk.client.secure.unprotect(datagram)
        packet = rtp.parse(plain) if plain is not None else None
        if packet is None or packet.payload_type != talk.client.answer.payload_type or not packet.payload:
            continue
        seconds, nanoseconds = next(
            (_STAMP.unpack(data[:16]) for _, kind, data in ancillary if kind == SO_TIMESTAMPNS), (0, 0)
        )
        packets.append(packet)
        arrived.append(seconds + nanoseconds * 1e-9)
    return packets, np.array(arrived)


def _sent_at(talk: Talk, origin: float) -> Times:
    """The time at which each frame was said. A frame that was not sent was said all the same: at its place between the
    others."""
    sent = np.array(talk.sent_at)
    there = np.flatnonzero(~np.isnan(sent))
    if talk.jitter_s or not len(there):
        return np.asarray(origin + FRAME_S * np.arange(len(sent)), np.float64)
    said: Times = np.interp(np.arange(len(sent)), there, sent[there])
    return said


if __name__ == "__main__":
    main()
