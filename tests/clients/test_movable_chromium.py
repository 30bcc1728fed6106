"""A call of Chromium's whose transport is exported and taken up again, every 300 ms, from before its channel is open
until it hangs up: no packet of it is lost, and its data channel goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import a_page
from playwright.async_api import Page

from lab.appliance import Appliance
from lab.network import Lab

MOVES = 20
# ``call`` places one, ``ask`` sends an event every 20 ms and resolves when so many have been answered in order,
# ``lost`` has what either side has heard of the other.
SCRIPT = """
const pc = new RTCPeerConnection();
const channel = pc.createDataChannel("oai-events");
const updated = [];
let created = 0;
channel.onmessage = ({data}) => {
  const event = JSON.parse(data);
  if (event.type === "session.created") created += 1;
  if (event.type === "session.updated") updated.push(event.session.instructions);
};
async function call(url, token) {
  const tone = new AudioContext(), sink = tone.createMediaStreamDestination();
  const oscillator = tone.createOscillator();
  oscillator.connect(sink);
  oscillator.start();
  pc.addTrack(sink.stream.getTracks()[0], sink.stream);
  await pc.setLocalDescription();
  const headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const placed = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers});
  await pc.setRemoteDescription({type: "answer", sdp: await placed.text()});
  await new Promise((resolve) => channel.addEventListener("open", resolve));
}
let asked = 0;
function ask() {
  const session = {type: "realtime", instructions: `${asked++}`};
  channel.send(JSON.stringify({type: "session.update", session}));
}
async function lost() {
  const stats = [...(await pc.getStats()).values()];
  const inbound = stats.find((it) => it.type === "inbound-rtp");
  const remote = stats.find((it) => it.type === "remote-inbound-rtp");
  return {heard: inbound.packetsReceived, lost: inbound.packetsLost, discarded: inbound.packetsDiscarded,
          concealed: inbound.concealmentEvents, remote: remote && remote.packetsLost,
          channel: channel.readyState, created, updated, asked};
}
"""


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


async def test_no_packet_is_lost_and_the_channel_goes_on(page: Page, moving: Moving) -> None:
    await page.evaluate("([url, token]) => call(url, token)", ["/v1/realtime/calls?model=echo", moving.token])
    before = moving.moves
    while moving.moves < before + MOVES:
        await page.evaluate("ask()")
        await page.wait_for_timeout(20)
    await page.wait_for_function("updated.length === asked", timeout=60_000)
    # Reports of ours come once a second.
    await page.wait_for_timeout(1500)
    said: dict[str, Any] = await page.evaluate("lost()")
    assert said["updated"] == [str(n) for n in range(said["asked"])]
    assert (said["channel"], said["created"]) == ("open", 1)
    assert said["heard"] > 50 * MOVES * 0.3 * 0.8
    assert (said["lost"], said["remote"]) == (0, 0)
    log = moving.log_file("transceiver").read_text()
    assert '"error"' not in log, log
