"""A caller whose DTLS is in order and whose SCTP is not; and how long the loop was kept by any one thing."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sctp_packets import packet
from session_run import Call, until

from rtc.dtls.records import APPLICATION_DATA


class Hostile:
    """A peer on top of a call with a channel. What it sends is sealed first and then given to the session, so that only
    the session's work is measured."""

    def __init__(self, call: Call) -> None:
        self.call = call
        sctp, mine = call.session.transport._secure.sctp, call.secure.sctp
        assert sctp is not None
        assert mine is not None
        self.sctp = sctp
        self.tag = sctp._local_verification_tag
        self.tsn: int = mine._local_tsn
        # What it is told it does not care for.
        call.secure._dtls._data_receiver = None

        channel = call.channel
        self.stream = -1 if channel is None or channel.id is None else channel.id
        self.sequence: int = mine._outbound_stream_seq.get(self.stream, 0)

    @property
    def held_bytes(self) -> int:
        return self.sctp._inbound.held_bytes if self.sctp._inbound is not None else 0

    @property
    def held_chunks(self) -> int:
        return self.sctp._inbound.held if self.sctp._inbound is not None else 0

    def sealed(self, chunks: tuple[bytes, ...]) -> bytes:
        """These chunks as a DTLS record."""
        records = self.call.secure._dtls._records
        assert records is not None
        return records.seal(APPLICATION_DATA, packet(self.tag, *chunks))

    async def send(self, *packets: tuple[bytes, ...]) -> None:
        """Sends packets, each the chunks of one. Returns when the session has read them."""
        for datagram in [self.sealed(chunks) for chunks in packets]:
            self.call.session.transport.dtls(datagram)
            if self._waiting > 30:
                await self.read()
        await self.read()

    @property
    def _waiting(self) -> int:
        return len(self.call.session.transport._backlog) + self.call.session.transport._secure._pipe._queue.qsize()

    async def read(self) -> None:
        """Returns when the session waits for more."""
        await until(lambda: not self._waiting)
        for _ in range(10):  # the last of it, in slices
            await asyncio.sleep(0)


@contextmanager
def old_objects_apart() -> Iterator[None]:
    """Leaves all that is there now, which other tests left too, to no collection of garbage: it would take as long as
    what is measured."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def turns() -> Iterator[Callable[[], float]]:
    """Measures, while it lasts, the longest time that anything kept the loop, in seconds of CPU."""
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> Any:
        nonlocal longest
        began = time.thread_time()
        try:
            return run(handle)
        finally:
            longest = max(longest, time.thread_time() - began)

    gc.collect()
    gc.disable()
    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield lambda: longest
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        gc.enable()
