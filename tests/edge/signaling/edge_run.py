"""Signaling with real transceivers behind it, all in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from signaling_edge import KEYS, Edge, an_edge

from caller.offer import Offer
from rtc.dtls.secure import Certificate
from runtime.config import Config
from transceiver.load import PRIOR
from transceiver.server import Transceiver
from wire import link


def offer() -> str:
    return Offer(Certificate.generateCertificate().fingerprint).sdp()


class RealEdge:
    """An edge and real transceivers behind it."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.transceivers: dict[int, Transceiver] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.edge, name)

    def start(self, number: int, *, prior: float = PRIOR, **settings: Any) -> Transceiver:
        config = Config(transceiver={"id": number, **settings})
        socket = link.router(self.edge.context, f"ipc://{self.edge.directory}/{number}", KEYS)
        self.transceivers[number] = Transceiver(config, KEYS, socket, prior=prior)
        return self.transceivers[number]

    async def stop(self, number: int) -> None:
        await self.transceivers.pop(number).close()


@asynccontextmanager
async def a_real_edge(directory: Path, *numbers: int, **settings: Any) -> AsyncIterator[RealEdge]:
    async with an_edge(directory, *numbers, **settings) as edge:
        real = RealEdge(edge)
        try:
            yield real
        finally:
            for number in tuple(real.transceivers):
                await real.stop(number)
