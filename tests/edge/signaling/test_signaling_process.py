"""``python -m edge.signaling``, as the supervisor starts it: what outlives it, and how it takes its leave."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType
from signaling_edge import CALLS, DEADLINE_S, KEYS, SDP, TOKEN, FakeTransceiver
from waiting import eventually

from runtime.config import Config
from runtime.supervision.child import ChildSpec
from wire.keys import file_text


class Process:
    """Signaling on one socket, which stays while processes come and go."""

    def __init__(self, directory: Path) -> None:
        (directory / "api-keys").write_text("correct horse\n")
        (directory / "cluster.toml").write_text(file_text(KEYS.link, [(1, KEYS.ufrag[1], None)]))
        self.config = Config(
            cluster={"keys": directory / "cluster.toml"},
            edge={
                "run": directory,
                "api_keys": directory / "api-keys",
                "calls_per_key": 2,
            },
        )
        self.transceivers = [(1, f"ipc://{directory}/1")]
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.lifeline = os.pipe()
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        socket, lifeline = self.listening.fileno(), self.lifeline[0]
        own = {"config": self.config.model_dump_json(), "metrics": ["127.0.0.1", 0], "instance": ""}
        own |= {"keys": KEYS.dump(), "socket": socket, "transceivers": self.transceivers, "directory": "", "found": ""}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "edge.signaling"], stdin=subprocess.PIPE, pass_fds=(socket, lifeline)
        )
        assert self.child.stdin is not None
        self.child.stdin.write(ChildSpec("signaling", own, {"level": "info", "form": "auto"}, lifeline).dump())
        self.child.stdin.close()

    async def end(self, number: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(number)
        return await asyncio.to_thread(self.child.wait, 60)

    def close(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        self.listening.close()
        for fd in self.lifeline:
            os.close(fd)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    try:
        yield process
    finally:
        process.close()


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeTransceiver]:
    fake = FakeTransceiver(1, f"ipc://{tmp_path}/1")
    try:
        yield fake
    finally:
        await fake.close()


async def ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with http.get(url + "/readyz") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


async def place(http: aiohttp.ClientSession, url: str) -> int:
    async with http.post(url + CALLS, data="v=0", headers=SDP) as response:
        return response.status


async def connected(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket session, once the link of events is up too."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with suppress(aiohttp.WSServerHandshakeError):
                return await http.ws_connect(url + "/v1/realtime", headers=TOKEN)


async def test_the_next_process_knows_the_calls_that_stand_and_ends_sessions_without_a_socket(
    process: Process, fake: FakeTransceiver
) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        process.start()
        await ready(http, process.url)
        assert await place(http, process.url) == 201
        opened = await connected(http, process.url)
        assert await place(http, process.url) == 429
        assert await process.end(signal.SIGKILL) == -signal.SIGKILL
        await opened.close()
        assert fake.sessions == 2
        process.start()
        await ready(http, process.url)
        # The WebSocket session is ended, the call goes on.
        await eventually(lambda: fake.sessions == 1)
        async with asyncio.timeout(DEADLINE_S):
            while await place(http, process.url) == 429:
                pass
        assert await place(http, process.url) == 429


async def test_told_to_end_it_has_its_sockets_connect_again(process: Process, fake: FakeTransceiver) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        process.start()
        await ready(http, process.url)
        opened = await connected(http, process.url)
        ending = asyncio.ensure_future(process.end(signal.SIGTERM))
        async with asyncio.timeout(DEADLINE_S):
            while (message := await opened.receive()).type != WSMsgType.CLOSE:
                pass
        assert message.data == 1012
        assert await ending == 0
        await eventually(lambda: fake.sessions == 0)
