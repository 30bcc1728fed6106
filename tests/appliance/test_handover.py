"""Transceivers that leave while calls go on: their calls are handed over, and nobody hears it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from calling import finish, lost_in, start_call
from observing import cores, sessions_of
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

MOVED, TAKEN = ("firsthop_transceiver_handovers_total", "moved"), ("firsthop_transceiver_taken_total", "taken")
# A WebSocket beside each call whose id it is given: it asks for something every 20 ms, and says at the end how many
# answers came, whether they came in order, and how the socket was closed.
_SIDEBAND = """
import asyncio, json, sys, aiohttp
async def main(url, key, call):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        socket = await http.ws_connect(f"{url}/v1/realtime?call_id={call}")
        answers = []
        async def read():
            async for message in socket:
                event = message.json()
                if event["type"] == "session.updated":
                    answers.append(event["session"]["instructions"])
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
        print(json.dumps({"answers": answers, "code": socket.close_code}))
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    """An appliance with two transceivers, one a core, which have time to hand calls over."""
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores()[:2], drain_s=60, placement="spread") as appliance:
        yield appliance


def logged(house: Appliance, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, house.log_file("transceiver").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def of_both(house: Appliance) -> list[int | None]:
    return [sessions_of(house, name) for name in ("media-1", "media-2")]


def spread(house: Appliance, calls: int) -> bool:
    """Whether so many calls are up, and some at either of the two."""
    now = of_both(house)
    return None not in now and sum(now) == calls and min(now) > 0 and len(logged(house, "media up")) == calls


def test_a_process_that_is_told_to_end_hands_its_calls_over_and_nobody_hears_it(lab: Lab, house: Appliance) -> None:
    calls = start_call(lab.client, house, "-n", "6", "--model", "echo", "--duration", "14", "--rate", "5")
    until(lambda: spread(house, 6))
    leaving = house.children()["media-1"]
    its_calls = [line["call"] for line in logged(house, "session") if line["id"] == 1]
    with a_sideband(lab, house, its_calls[0]) as sideband:
        leaving.send_signal(signal.SIGTERM)
        # The supervisor wants a process there, and starts another.
        until(lambda: "media-1" in house.children() and house.children()["media-1"].pid != leaving.pid)
        until(lambda: of_both(house) == [0, 6])
        assert sorted(line["call"] for line in logged(house, "took a call over")) == sorted(its_calls)
        said = finish(calls)
        told = json.loads(sideband.communicate(timeout=DEADLINE_S)[0].splitlines()[-1])
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (6, 0)
    assert said["audio"]["packets"]["rejected"] == 0
    assert (told["code"], told["answers"]) == (1001, [str(i) for i in range(len(told["answers"]))])
    assert len(told["answers"]) > 50
    # The one that began again takes calls.
    again = finish(start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "1"))
    assert again["calls"]["ok"] == 4


@contextmanager
def a_sideband(lab: Lab, house: Appliance, call: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", _SIDEBAND, house.url, house.token, call]
    process = lab.client.popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        yield process
    finally:
        process.kill()
        process.communicate()
