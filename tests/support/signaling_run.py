"""A transceiver that two signaling processes ask, all three in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zmq
from waiting import eventually
from wiring import Said, heard, raw

from runtime.config import Config
from transceiver.server import Transceiver
from wire import link
from wire.keys import ClusterKeys

KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
ONE, OTHER = b"edge/signaling-0", b"edge/signaling-1"


class Signaling:
    """Two signaling processes, and what the transceiver told each."""

    def __init__(
        self, directory: Path, max_sessions: int = 3, capacity: str = "fixed", versions: dict[str, str] | None = None
    ) -> None:
        self.context = zmq.Context[zmq.Socket[bytes]]()
        endpoint = f"ipc://{directory}/1"
        ours = {"id": 1, "max_sessions": max_sessions, "capacity": capacity}
        config = Config(transceiver=ours, agents={"versions": versions or {}})
        self.transceiver = Transceiver(config, KEYS, link.router(self.context, endpoint, KEYS))
        self.sockets = {name: link.dealer(self.context, endpoint, name, KEYS) for name in (ONE, OTHER)}
        self.told: dict[bytes, list[Said]] = {ONE: [], OTHER: []}

    async def close(self) -> None:
        await self.transceiver.close()
        self.context.destroy(linger=0)

    async def send(self, type_: str, who: bytes = ONE, **fields: Any) -> None:
        socket = self.sockets[who]
        await eventually(lambda: socket.poll(0, zmq.POLLOUT))
        socket.send(raw(type_, **fields))

    def drain(self, who: bytes) -> list[Said]:
        while self.sockets[who].poll(0):
            message = heard(self.sockets[who].recv())
            assert isinstance(message, Said)
            self.told[who].append(message)
        return self.told[who]

    async def hears(self, type_: str, who: bytes = ONE) -> dict[str, Any]:
        """The fields of the next message of that type; what came before it is forgotten."""
        await eventually(lambda: any(message.type == type_ for message in self.drain(who)))
        told = self.told[who]
        at = next(i for i, message in enumerate(told) if message.type == type_)
        self.told[who] = told[at + 1 :]
        return told[at].fields

    async def event(self, type_: str, who: bytes = ONE) -> dict[str, Any]:
        """The next server event of that type."""
        while True:
            event: dict[str, Any] = json.loads((await self.hears("session.event", who))["event"])
            if event["type"] == type_:
                return event

    async def says(self, sealed: str, type_: str, who: bytes = ONE, **fields: Any) -> None:
        await self.send("session.event", who, ufrag=sealed, event=json.dumps({"type": type_, **fields}))

    async def opened(self, session: dict[str, Any] | None = None) -> str:
        await self.send("session.open", request=1, agent="parrot", session=session)
        return str((await self.hears("session.opened"))["ufrag"])
