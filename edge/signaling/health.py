"""Health checks: whether this process runs, whether a call would find a transceiver, and whether the ledger is true,
also where a transceiver is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Never

from aiohttp import web

from edge.links.events import Events
from edge.links.transceivers import RequestRefused, Transceivers, Unavailable
from edge.peers import Peers
from edge.signaling.ledger import Ledger
from runtime import logs
from runtime.families import edge as families
from runtime.metrics import Tally
from wire import messages

__all__ = ["Health", "give_up", "keep_true", "lost_calls"]

_AUDIT_EVERY_S = 5.0
_LOOK_EVERY_S = 0.5
_READY_FOR_S = 0.1
_SILENT = 3  # audits in a row: some twenty seconds
_GONE = 12  # the same where it left the directory as well: its calls are over


class Health:
    """The handlers."""

    def __init__(self, transceivers: Transceivers, peers: Peers) -> None:
        self._transceivers = transceivers
        self._peers = peers
        self._asking: asyncio.Future[list[int]] | None = None
        self._asked_at = 0.0

    async def alive(self, _: web.Request) -> web.Response:
        """``/healthz``: this process runs."""
        return web.Response(text="ok\n")

    async def ready(self, _: web.Request) -> web.Response:
        """``/readyz``: a call placed now would find a transceiver, and this edge stays to carry it. Anybody may ask,
        so an answer serves for a moment and not every request asks all transceivers."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked_at > _READY_FOR_S):
            self._asking, self._asked_at = asyncio.ensure_future(self._up()), now
        up = await asyncio.shield(self._asking)
        ready = bool(up) and not self._peers.draining
        body = {"ready": ready, "transceivers": {str(i): i in up for i in self._transceivers.sampled}}
        return web.json_response(body, status=200 if ready else 503, headers=None if ready else {"Retry-After": "2"})

    async def _up(self) -> list[int]:
        ids = self._transceivers.sampled  # others may come and go meanwhile
        asked = (self._transceivers.ask(i, messages.Health()) for i in ids)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [i for i, a in zip(ids, answers, strict=True) if not isinstance(a, BaseException)]


async def keep_true(
    ledger: Ledger, transceivers: Transceivers, events: Events, every_s: float = _AUDIT_EVERY_S
) -> Never:
    """Asks every few seconds how many sessions there are, ends those that a process before this one left without their
    sockets, and tells who listens to a transceiver that hangs: its link would go on for ever. Links to transceivers
    that left the directory end here when their calls are over."""
    silent: Counter[int] = Counter()
    orphans = {i: [u for u in ledger.of(i) if (held := ledger.get(u)) and held.socket] for i in ledger.transceivers}
    transceivers.reach(ledger.transceivers)
    events.reach(ledger.transceivers)
    while True:
        for i in transceivers.linked:
            stood = ledger.of(i)
            if not stood:
                continue
            try:
                while orphans.get(i):
                    await _end(transceivers, i, orphans[i][-1])
                    ledger.ended(orphans[i].pop())
                report = await transceivers.ask(i, messages.Health())
            except (RequestRefused, Unavailable):
                silent[i] += 1
                if silent[i] >= _SILENT:
                    events.lost(i)
                if silent[i] >= _GONE and i not in transceivers.ids:
                    ledger.reconcile(stood, 0, i)
                continue
            silent[i] = 0
            ledger.reconcile(stood, report.sessions, i)
        _let_go(ledger, transceivers, events)
        silent = Counter({i: silent[i] for i in transceivers.linked})
        await asyncio.sleep(every_s)


def lost_calls() -> Tally:
    """The counter of what ``give_up`` gives up."""
    return Tally(families.LOST_CALLS)


async def give_up(ledger: Ledger, transceivers: Transceivers, lost: Tally) -> Never:
    """Ends in the ledger, and counts in ``lost``, the calls of transceivers whose links have been down for seconds."""
    while True:
        for number in filter(transceivers.lost, ledger.transceivers):
            calls = ledger.of(number)
            ledger.reconcile(calls, 0, number)
            lost["transceiver_gone"] += len(calls)
            logs.get().error("a transceiver is gone, and its calls with it", transceiver=number, calls=len(calls))
        await asyncio.sleep(_LOOK_EVERY_S)


def _let_go(ledger: Ledger, transceivers: Transceivers, events: Events) -> None:
    """Ends what belongs to transceivers that are in no directory any more."""
    for i in ledger.transceivers.difference(transceivers.linked):
        ledger.reconcile(ledger.of(i), 0)  # nobody is left who could say that these calls are over
    transceivers.let_go(ledger.transceivers)
    events.let_go()


async def _end(transceivers: Transceivers, transceiver: int, ufrag: str) -> None:
    with suppress(RequestRefused):  # it is over
        await transceivers.ask(transceiver, messages.End(ufrag=ufrag))
