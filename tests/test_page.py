"""The demo's page in a real browser: Debian's Chromium on the lab's client host, with a voice for a microphone."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import cannot_run
from observing import STEERED, core_of, moved, xdp
from playwright.async_api import Page, async_playwright

from caller.voice import generated
from lab.appliance import Appliance
from lab.network import Lab
from transceiver.opus import Decoder

CHROMIUM = Path("/usr/bin/chromium")
ARTIFACTS = Path(__file__).parent / "artifacts"
PORT = 8088
# Calls of the page hold this long; `make trials` talks for a minute.
TALK_S = 12
LONG_TALK_S = 60


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file of somebody who speaks, falls silent and speaks again; Chromium plays it in a loop."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    decoder = Decoder(48000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        for frame in generated().frames:
            file.writeframes(decoder.decode(frame))
    return path


@pytest.fixture(scope="module")
def url(lab: Lab, appliance: Appliance) -> Iterator[str]:
    """The page, served on the client host itself: only there is it a secure origin, which microphones need."""
    argv = [sys.executable, "-m", "demo.page", "--edge", appliance.url, "--token-file", str(appliance.token_file)]
    server = lab.client.popen([*argv, "--agents", "parrot,echo", "--port", str(PORT)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    with server.stdout as said:
        yield said.readline().decode().strip()
        server.terminate()
        server.wait()


@pytest.fixture
async def page(lab: Lab, url: str, microphone: Path, tmp_path: Path) -> AsyncIterator[Page]:
    if not CHROMIUM.exists():
        cannot_run("needs Debian's chromium: run scripts/setup dev as root")
    # Playwright starts one program: this one enters the client host and becomes the browser.
    wrapper = tmp_path / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(lab.client.command([str(CHROMIUM)]))} "$@"\n')
    wrapper.chmod(0o755)
    switches = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=wrapper, args=switches)
        try:
            page = await browser.new_page(viewport={"width": 1200, "height": 900})
            await page.goto(url)
            yield page
        finally:
            await browser.close()


async def state(page: Page, expression: str) -> Any:
    return await page.evaluate(f"() => window.firsthop.{expression}")


async def comes_true(page: Page, expression: str) -> None:
    await page.wait_for_function(f"() => {expression}", timeout=60_000)


async def talk(page: Page, appliance: Appliance, seconds: int) -> None:
    """Holds a call for ``seconds`` of received audio, and asserts that it was a good one, all of it on the core that
    its ufrag names."""
    before = xdp(appliance)
    await page.get_by_role("button", name="Connect").click()
    await comes_true(page, "window.firsthop.state === 'connected'")
    await comes_true(page, "window.firsthop.events.some(e => e.event.type === 'session.created')")
    await comes_true(page, "window.firsthop.levels.microphone > 0.02")
    # The parrot is silent until it has heard somebody out: what sounds is the caller's own voice.
    await comes_true(page, "window.firsthop.levels.agent > 0.02")
    await comes_true(page, f"window.firsthop.stats.packets_received > {50 * seconds}")
    assert await state(page, "stats.packets_lost") == 0
    assert await state(page, "state") == "connected"
    call = await state(page, "events.find(e => e.event.type === 'session.created').event.session.id")
    steered = {key: n for key, n in moved(before, xdp(appliance)).items() if key[0] in STEERED}
    print(call, await state(page, "stats.packets_received"), "packets, 0 lost; XDP steered", steered)
    assert {core for _, core in steered} == {str(core_of(appliance, call))}


async def test_a_person_talks_to_the_parrot_and_hears_themselves(page: Page, appliance: Appliance) -> None:
    await talk(page, appliance, TALK_S)
    assert await state(page, "stats.rtt_ms.length") > 0
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / "page.png", full_page=True)
    await page.get_by_role("button", name="Hang up").click()
    await comes_true(page, "window.firsthop.state === 'ended'")
    ended = appliance.metrics("transceiver")
    reasons = {key[1]: n for key, n in ended.items() if key[0] == "firsthop_transceiver_sessions_ended_total" and n}
    assert set(reasons) <= {"hangup", "closed_by_peer"}


@pytest.mark.trials
async def test_a_minute_without_a_lost_packet(page: Page, appliance: Appliance) -> None:
    await talk(page, appliance, LONG_TALK_S)


def test_ci_has_what_the_browser_needs() -> None:
    if os.environ.get("CI") == "true":
        assert CHROMIUM.exists()
