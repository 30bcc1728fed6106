"""Debian's Chromium on the lab's client host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright
from privileges import cannot_run

from lab.network import Lab

CHROMIUM = Path("/usr/bin/chromium")
_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]

# A function of pages: the connection has a tone to send, and an offer of the browser's.
OFFERS_TONE = """
async function offersTone(pc) {
  const tone = new AudioContext(), source = tone.createOscillator(), sink = tone.createMediaStreamDestination();
  source.connect(sink);
  source.start();
  pc.addTrack(sink.stream.getTracks()[0], sink.stream);
  await pc.setLocalDescription();
}
"""


@asynccontextmanager
async def chromium(lab: Lab, directory: Path, *switches: str) -> AsyncIterator[Browser]:
    """Starts Chromium, headless, with more ``switches``; its wrapper is written to ``directory``."""
    if not CHROMIUM.exists():
        cannot_run("needs Debian's chromium: run scripts/setup dev as root")
    # Playwright starts one program: this one enters the client host and becomes the browser.
    wrapper = directory / "chromium"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(lab.client.command([str(CHROMIUM)]))} "$@"\n')
    wrapper.chmod(0o755)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=wrapper, args=[*_SWITCHES, *switches])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def a_page(lab: Lab, directory: Path, url: str, script: str) -> AsyncIterator[Page]:
    """A page of the origin ``url`` with ``script`` in it, whose call ``pc`` ends with it."""
    async with chromium(lab, directory) as browser:
        page = await browser.new_page()
        await page.goto(url + "/healthz")
        await page.add_script_tag(content=script)
        yield page
        await page.evaluate("pc.close()")
