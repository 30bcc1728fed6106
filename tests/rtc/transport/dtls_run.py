"""The two ends of a DTLS association, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from rtc.dtls.secure import Certificate, SecureTransport
from rtc.rtp import packet as rtp

DEADLINE_S = 30


class Pair:
    """A DTLS client and a server. ``carries(sender, datagram)`` decides what arrives; ``sent`` is all that left."""

    def __init__(self, certificates: Sequence[Certificate] = ()) -> None:
        self.certificates = list(certificates) or [Certificate.generateCertificate() for _ in range(2)]
        self.sent: list[tuple[int, bytes]] = []
        self.carries: Callable[[int, bytes], bool] = lambda sender, datagram: True
        self.ends = [
            SecureTransport(lambda d: self._pass(0, d), self.certificates[0], client=True),
            SecureTransport(lambda d: self._pass(1, d), self.certificates[1], client=False),
        ]

    def _pass(self, sender: int, datagram: bytes) -> None:
        self.sent.append((sender, datagram))
        if self.carries(sender, datagram):
            asyncio.get_running_loop().call_soon(lambda: self.ends[1 - sender].feed(datagram))

    def fingerprint_of(self, end: int) -> list[tuple[str, str]]:
        return [("sha-256", self.certificates[end].fingerprint)]

    async def connect(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(
                self.ends[0].handshake(self.fingerprint_of(1)), self.ends[1].handshake(self.fingerprint_of(0))
            )

    async def close(self) -> None:
        for end in self.ends:
            await end.close()
        # aiortc cancels its readers and does not wait for them.
        await asyncio.sleep(0)


@asynccontextmanager
async def pair(*certificates: Certificate, connected: bool = True) -> AsyncIterator[Pair]:
    made = Pair(certificates)
    try:
        if connected:
            await made.connect()
        yield made
    finally:
        await made.close()


async def happens(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await event.wait()


def audio(sequence: int = 1, payload: bytes = b"twenty milliseconds") -> bytes:
    return rtp.build(111, False, sequence, 960, 0x1234, payload)


RECEIVER_REPORT = bytes.fromhex("80c9000100001234")
