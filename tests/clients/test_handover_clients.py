"""Calls by clients that are none of ours, handed over from one transceiver process to another in the middle: of
Chromium's and back, while it speaks and asks things on its data channel, no packet is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from browser import a_page
from counting_page import SCRIPT
from observing import sessions_of
from playwright.async_api import Page
from privileges import cannot_run
from waiting import eventually

from lab.appliance import Appliance
from lab.network import Lab

CLIENTS = Path(__file__).parent
MOVES = 3
_PATIENCE_S = 60


@pytest.fixture
def house(lab: Lab, tmp_path: Path) -> Iterator[Appliance]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores, drain_s=60) as appliance:
        yield appliance


@pytest.fixture
async def page(lab: Lab, house: Appliance, tmp_path: Path) -> AsyncIterator[Page]:
    async with a_page(lab, tmp_path, house.url, SCRIPT) as page:
        yield page


def moves(house: Appliance) -> int:
    return house.log_file("transceiver").read_text().count('"event": "moved"')


def knows_another(house: Appliance, name: str) -> bool:
    """Whether the process knows where its calls could go."""
    with suppress(OSError):
        return house.metrics(name).get(("firsthop_transceiver_neighbours",)) == 1
    return False


async def asks_until(page: Page, condition: Callable[[], object]) -> None:
    """The page asks something every 20 ms until that is so."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():
            await page.evaluate("ask()")
            await page.wait_for_timeout(20)


def has_the_call(house: Appliance) -> str:
    return next((name for name in ("media-1", "media-2") if sessions_of(house, name) == 1), "")


async def test_no_packet_is_lost_and_the_channel_goes_on(page: Page, house: Appliance) -> None:
    await page.evaluate("([url, token]) => call(url, token)", ["/v1/realtime/calls?model=echo", house.token])
    for i in range(1, MOVES + 1):
        await asks_until(page, lambda: has_the_call(house))
        name = has_the_call(house)
        leaving = house.children()[name]
        leaving.send_signal(signal.SIGTERM)
        await asks_until(page, lambda i=i: moves(house) == i)
        # The other side of it is there again when it is the next one's turn.
        await asks_until(page, lambda name=name, pid=leaving.pid: _began_again(house, name, pid))
    await page.wait_for_function("updated.length === asked", timeout=60_000)
    await page.wait_for_timeout(1500)  # reports of ours come once a second
    said: dict[str, Any] = await page.evaluate("lost()")
    assert said["updated"] == [str(n) for n in range(said["asked"])]
    assert (said["channel"], said["created"]) == ("open", 1)
    assert (said["lost"], said["remote"]) == (0, 0)
    assert said["heard"] > 100


def _began_again(house: Appliance, name: str, pid: int) -> bool:
    child = house.children().get(name)
    return child is not None and child.pid != pid and sessions_of(house, name) == 0


@pytest.mark.parametrize(
    "argv", [["node", "call-wrtc.mjs"], [sys.executable, "call_aiortc.py"]], ids=["libwebrtc", "aiortc"]
)
async def test_a_whole_call_is_handed_over_as_soon_as_it_is_up(argv: list[str], lab: Lab, house: Appliance) -> None:
    """It changes its session, speaks and hears, and hangs up, and knows nothing of it."""
    if argv[0] == "node" and not (CLIENTS / "node_modules/werift").exists():
        cannot_run("needs node's clients: run scripts/setup dev as root")
    await eventually(lambda: all(knows_another(house, name) for name in ("media-1", "media-2")))
    whole = lab.client.command([*argv, house.url, house.token])
    client = await asyncio.create_subprocess_exec(*whole, cwd=CLIENTS, stdout=PIPE, stderr=PIPE)
    try:
        await eventually(lambda: '"media up"' in house.log_file("transceiver").read_text())
        house.children()[has_the_call(house)].send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(client.communicate(), _PATIENCE_S)
    finally:
        with suppress(ProcessLookupError):
            client.kill()
    assert client.returncode == 0, err.decode()[-4000:]
    result = json.loads(out.splitlines()[-1])
    assert moves(house) == 1
    assert result["heard"] >= 100
    assert result["instructions"] == "Be kind."
    assert result["hung"] == 200
