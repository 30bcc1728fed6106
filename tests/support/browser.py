"""Debian's Chromium on the lab's client host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright
from privileges import cannot_run

from lab.network import Host, Lab

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

# ``call`` places one to the agent echo with a tone; ``restart`` has the browser make new credentials, and tells both
# sides, by the edge at that URL or the page's own; ``now`` says how the call is.
RESTARTS = """
const pc = new RTCPeerConnection();
let answer, where, headers;
const line = (sdp, name) => sdp.match(new RegExp(`a=${name}:(.*)\\r?\\n`))[1].trim();
async function call(token) {
  await offersTone(pc);
  headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const placed = await fetch("/whip/echo", {method: "POST", body: pc.localDescription.sdp, headers});
  answer = await placed.text();
  where = placed.headers.get("Location");
  headers["If-Match"] = placed.headers.get("ETag");
  await pc.setRemoteDescription({type: "answer", sdp: answer});
}
async function restart(at = "") {
  pc.restartIce();
  await pc.setLocalDescription();
  const sdp = pc.localDescription.sdp;
  const body = `a=ice-ufrag:${line(sdp, "ice-ufrag")}\\r\\na=ice-pwd:${line(sdp, "ice-pwd")}\\r\\n`;
  headers["Content-Type"] = "application/trickle-ice-sdpfrag";
  const patched = await fetch(at + where, {method: "PATCH", body, headers});
  headers["If-Match"] = patched.headers.get("ETag");
  const said = await patched.text();
  for (const name of ["ice-ufrag", "ice-pwd"]) answer = answer.replaceAll(line(answer, name), line(said, name));
  await pc.setRemoteDescription({type: "answer", sdp: answer});
  return [patched.status, line(said, "ice-ufrag")];
}
async function now() {
  const stats = [...(await pc.getStats()).values()];
  const heard = stats.find((s) => s.type === "inbound-rtp") ?? {};
  const chosen = stats.find((s) => s.type === "transport")?.selectedCandidatePairId;
  const pair = stats.find((s) => s.id === chosen);
  const remote = stats.find((s) => s.id === pair?.remoteCandidateId);
  return {state: pc.connectionState, packets: heard.packetsReceived ?? 0, lost: heard.packetsLost ?? 0,
          ufrag: remote?.usernameFragment, answered: pair?.responsesReceived ?? 0};
}
"""


@asynccontextmanager
async def chromium(
    lab: Lab, directory: Path, *switches: str, host: Host | None = None, home: Path | None = None
) -> AsyncIterator[Browser]:
    """Starts Chromium, headless, with more ``switches``, on the client host or on ``host``, with the folder ``home`` as
    its user's; its wrapper is written to ``directory``."""
    if not CHROMIUM.exists():
        cannot_run("needs Debian's chromium: run scripts/setup dev as root")
    # Playwright starts one program: this one enters the host and becomes the browser.
    wrapper = directory / "chromium"
    argv = (host or lab.client).command(["env", f"HOME={home}", str(CHROMIUM)] if home else [str(CHROMIUM)])
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(argv)} "$@"\n')
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
