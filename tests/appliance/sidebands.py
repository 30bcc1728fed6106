"""A WebSocket beside a call, in a process of its own, which asks for something every 20 ms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import DEADLINE_S

from lab.appliance import Appliance, Place

# It says each answer at once, and how the socket was closed at the end.
_SIDEBAND = """
import asyncio, json, sys, aiohttp
async def main(url, key, call):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        socket = await http.ws_connect(f"{url}/v1/realtime?call_id={call}")
        answers, errors = [], []
        async def read():
            async for message in socket:
                event = message.json()
                if event["type"] == "session.updated":
                    answers.append(event["session"]["instructions"])
                    print("answer", flush=True)
                elif event["type"] == "error":
                    errors.append(event["error"]["code"])
        reader, asked = asyncio.create_task(read()), 0
        print("watching", flush=True)
        while not reader.done():
            try:
                session = {"type": "realtime", "instructions": str(asked)}
                await socket.send_json({"type": "session.update", "session": session})
                asked += 1
            except ConnectionError:
                break
            await asyncio.wait([reader], timeout=0.02)
        print(json.dumps({"answers": answers, "errors": errors, "code": socket.close_code}))
asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 180))
"""


@contextmanager
def a_sideband(place: Place, house: Appliance, call: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that watches that call."""
    argv = [sys.executable, "-c", _SIDEBAND, house.url, house.token, call]
    process = place.popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def answered(sideband: subprocess.Popen[bytes], more: int) -> None:
    """Returns when so many more answers have come."""
    assert sideband.stdout is not None
    for _ in range(more):
        assert sideband.stdout.readline() == b"answer\n"


def told_by(sideband: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The ``answers`` in the order in which they came, codes of ``errors``, and the ``code`` of the socket's end."""
    told: dict[str, Any] = json.loads(sideband.communicate(timeout=DEADLINE_S)[0].splitlines()[-1])
    return told
