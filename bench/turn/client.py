"""The caller of the benchmark: it has a call on each way, and asks by turns on all of them how long a check takes to be
answered. ``client.py SPEC``, where the spec is JSON; the round trips, in ms by way, are JSON too.

A check (RFC 8445 section 7) goes the whole way of a call's packet: over the relay, XDP, a worker and the link to the
transceiver, and back. It waits for no tick of audio, so what is measured is the way and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from bench.turn.ways import Way, direct, over_tls, over_udp
from caller.offer import Answer, Offer, parse_answer
from caller.signaling import Token, calls_url, hang_up, place
from edge.signaling.turn.credentials import Credentials
from rtc.dtls.secure import Certificate
from wire import stun

_PATIENCE_S = 5.0
_EVERY_S = 0.010  # a check on one of the ways
_CHECKS_A_CALL = 300  # on a way: a call that goes on without DTLS is given up after half a minute


class Checked:
    """A call on one way. ``round_trips`` are in seconds."""

    def __init__(self, offer: Offer, answer: Answer) -> None:
        self._username = f"{answer.ufrag}:{offer.ufrag}".encode()
        self._password = answer.password.encode()
        self._asked: dict[bytes, float] = {}
        self.way: Way
        self.round_trips: list[float] = []

    def ask(self) -> None:
        transaction = secrets.token_bytes(12)
        check = stun.binding_request(
            self._username, self._password, tie_breaker=1, nominate=True, transaction=transaction
        )
        self._asked[transaction] = time.perf_counter()
        self.way.send(check)

    def take(self, datagram: bytes) -> None:
        now = time.perf_counter()
        message = stun.parse(datagram)
        if message is not None and (asked := self._asked.pop(message.transaction, None)) is not None:
            self.round_trips.append(now - asked)

    @property
    def unanswered(self) -> int:
        return len(self._asked)


async def measure(spec: dict[str, Any]) -> dict[str, Any]:
    url, token = calls_url(spec["url"], "echo"), Token(spec["token"], "the benchmark")
    who, relay = Credentials(*spec["credentials"]), spec["relay"]
    trusted = ssl.create_default_context(cafile=spec["certificate"])
    edge: tuple[str, int] = tuple(spec["edge"])
    opened: dict[str, Callable[[Checked], Any]] = {
        "direct": lambda call: direct(edge, call.take),
        "udp": lambda call: over_udp(edge, call.take, (relay, spec["port"]), who),
        "tls": lambda call: over_tls(edge, call.take, (relay, spec["tls_port"]), who, trusted),
    }
    trips: dict[str, list[float]] = {name: [] for name in opened}
    unanswered = dict.fromkeys(opened, 0)
    async with aiohttp.ClientSession() as http:
        for begin in range(0, spec["checks"], _CHECKS_A_CALL):
            calls, placed = {}, []
            for name, open_way in opened.items():
                offer = Offer(Certificate.generateCertificate().fingerprint)
                placed.append(await place(http, url, token, offer.sdp()))
                calls[name] = call = Checked(offer, parse_answer(placed[-1].sdp))
                call.way = await open_way(call)
            await _warm(list(calls.values()))
            await _by_turns(list(calls.values()), min(_CHECKS_A_CALL, spec["checks"] - begin))
            for each in placed:
                if each.location:
                    await hang_up(http, each.location, token)
            for name, call in calls.items():
                await call.way.close()
                trips[name] += call.round_trips
                unanswered[name] += call.unanswered
    return {name: {"round_trip_ms": [1000 * s for s in trips[name]], "unanswered": unanswered[name]} for name in opened}


async def _warm(calls: list[Checked]) -> None:
    """Each way has been gone once, and its flow is known."""
    for call in calls:
        call.ask()
    async with asyncio.timeout(_PATIENCE_S):
        while not all(call.round_trips for call in calls):  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.01)
    for call in calls:
        call.round_trips.clear()


async def _by_turns(calls: list[Checked], checks: int) -> None:
    """A check every 10 ms, on each way in turn: so what disturbs the machine disturbs all of them alike."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for i in range(checks * len(calls)):
        due += _EVERY_S
        await asyncio.sleep(due - loop.time())
        calls[i % len(calls)].ask()
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.loads(sys.argv[1])))))
