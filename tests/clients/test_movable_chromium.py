"""A call of Chromium's whose session leaves and is taken up again, every 300 ms, from before its channel is open until
it hangs up: no packet of it is lost, no number is used twice, its data channel goes on, and so does what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import a_page
from counting_page import SCRIPT
from playwright.async_api import Page

from lab.appliance import Appliance
from lab.network import Lab

MOVES = 20


class Moving(Appliance):
    """An appliance whose transceiver moves its calls."""

    def start(self, process: str) -> None:
        if process != "transceiver":
            super().start(process)
            return
        argv = [sys.executable, str(Path(__file__).with_name("moving_transceiver.py")), str(self.config_file)]
        with self.log_file(process).open("ab") as log:
            self.processes[process] = self.transceiver.popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ)
            )

    @property
    def moves(self) -> int:
        """How often it has moved a call."""
        return self.log_file("transceiver").read_text().count('"moved"')


@pytest.fixture
def moving(lab: Lab, tmp_path: Path) -> Iterator[Moving]:
    with Moving(tmp_path, lab=lab) as appliance:
        yield appliance


@pytest.fixture
async def page(lab: Lab, moving: Moving, tmp_path: Path) -> AsyncIterator[Page]:
    async with a_page(lab, tmp_path, moving.url, SCRIPT) as page:
        yield page


async def call(page: Page, moving: Moving, agent: str) -> None:
    await page.evaluate("([url, token]) => call(url, token)", [f"/v1/realtime/calls?model={agent}", moving.token])


async def nothing_was_lost(page: Page, moving: Moving) -> dict[str, Any]:
    # Reports of ours come once a second.
    await page.wait_for_timeout(1500)
    said: dict[str, Any] = await page.evaluate("lost()")
    assert (said["channel"], said["created"]) == ("open", 1)
    assert (said["lost"], said["remote"]) == (0, 0)
    log = moving.log_file("transceiver").read_text()
    assert '"error"' not in log, log
    return said


async def test_no_packet_is_lost_and_the_channel_goes_on(page: Page, moving: Moving) -> None:
    await call(page, moving, "echo")
    before = moving.moves
    while moving.moves < before + MOVES:
        await page.evaluate("ask()")
        await page.wait_for_timeout(20)
    await page.wait_for_function("updated.length === asked", timeout=60_000)
    said = await nothing_was_lost(page, moving)
    assert said["updated"] == [str(n) for n in range(said["asked"])]
    assert said["heard"] > 50 * MOVES * 0.3 * 0.8


async def test_a_turn_and_its_answer_go_on_through_moves(page: Page, moving: Moving) -> None:
    await call(page, moving, "parrot")
    await page.wait_for_timeout(1500)
    before = moving.moves
    await page.evaluate("mouth.gain.value = 0")
    await page.wait_for_function("came('output_audio_buffer.started').length === 1", timeout=60_000)
    await page.wait_for_function("came('output_audio_buffer.stopped').length === 1", timeout=60_000)
    assert moving.moves > before + 3
    item = await page.evaluate("came('response.done')[0].response.output[0].id")
    await page.evaluate("item_id => channel.send(JSON.stringify({type: 'conversation.item.retrieve', item_id}))", item)
    await page.wait_for_function("came('conversation.item.retrieved').length === 1", timeout=60_000)
    events: list[dict[str, Any]] = await page.evaluate("events")
    await nothing_was_lost(page, moving)
    types = [event["type"] for event in events]
    for once in ("input_audio_buffer.speech_started", "input_audio_buffer.committed", "response.created"):
        assert types.count(once) == 1, types
    (done,) = [event["response"] for event in events if event["type"] == "response.done"]
    assert done["status"] == "completed"
    (retrieved,) = [event["item"] for event in events if event["type"] == "conversation.item.retrieved"]
    assert retrieved == {**done["output"][0], "status": "completed"}
