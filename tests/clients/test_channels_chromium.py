"""Data channels of Chromium, on the lab's client host, with and without a stream that it negotiated itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browser import a_page
from playwright.async_api import Page

from lab.appliance import Appliance
from lab.network import Lab

# ``call`` places one; ``channel`` makes a channel, and ``says`` waits for an event of a type on one.
SCRIPT = """
const pc = new RTCPeerConnection();
const channels = [];
function channel(label, options) {
  const it = pc.createDataChannel(label, options);
  it.events = [];
  it.onmessage = (message) => it.events.push(JSON.parse(message.data));
  channels.push(it);
}
async function call(url, token) {
  const tone = new AudioContext(), sink = tone.createMediaStreamDestination();
  pc.addTrack(sink.stream.getTracks()[0], sink.stream);
  await pc.setLocalDescription();
  const headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const placed = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers});
  await pc.setRemoteDescription({type: "answer", sdp: await placed.text()});
}
const count = (i, type) => channels[i].events.filter((event) => event.type === type).length;
"""
UPDATE = '{"type": "session.update", "session": {"instructions": "sing"}}'


@pytest.fixture
async def page(lab: Lab, appliance: Appliance, tmp_path: Path) -> AsyncIterator[Page]:
    async with a_page(lab, tmp_path, appliance.url, SCRIPT) as page:
        yield page


async def call(page: Page, appliance: Appliance, query: str = "") -> None:
    await page.evaluate(
        "([url, token]) => call(url, token)", [f"/v1/realtime/calls?model=parrot{query}", appliance.token]
    )


async def comes_true(page: Page, expression: str) -> None:
    await page.wait_for_function(f"() => {expression}", timeout=60_000)


async def answers(page: Page, channel: int) -> None:
    """Returns when the session is created, once, and has been updated, on that channel."""
    await comes_true(page, f"count({channel}, 'session.created') === 1")
    await page.evaluate(f"(text) => channels[{channel}].send(text)", UPDATE)
    await comes_true(page, f"count({channel}, 'session.updated') === 1")


@pytest.mark.parametrize("dcid", [0, 1, 200])
async def test_a_negotiated_channel_serves_and_another_one_is_closed(
    page: Page, appliance: Appliance, dcid: int
) -> None:
    await page.evaluate("(id) => channel('anything', {negotiated: true, id})", dcid)
    await page.evaluate("channel('files')")
    await call(page, appliance, f"&dcid={dcid}")
    await answers(page, 0)
    await comes_true(page, "channels[1].readyState === 'closed'")


async def test_a_channel_is_replaced_and_a_second_one_is_closed(page: Page, appliance: Appliance) -> None:
    await page.evaluate("channel('events \u00e4', {ordered: false, maxRetransmits: 2, protocol: 'x'})")
    await call(page, appliance)
    await answers(page, 0)
    # The new one is opened while the old one is still closing.
    await page.evaluate("channels[0].close(), channel('oai-events')")
    await answers(page, 1)
    await page.evaluate("channel('oai-events')")
    await comes_true(page, "channels[2].readyState === 'closed'")
    assert await page.evaluate("channels[1].readyState") == "open"
    # As large as Chromium sends.
    await page.evaluate("channels[1].send(JSON.stringify({type: 'x', text: 'x'.repeat(262000)}))")
    await comes_true(page, "count(1, 'error') === 1")


async def test_a_negotiated_channel_that_is_made_again_serves_again(page: Page, appliance: Appliance) -> None:
    await page.evaluate("channel('', {negotiated: true, id: 2})")
    await call(page, appliance, "&dcid=2")
    await answers(page, 0)
    await page.evaluate("channels[0].close()")
    await comes_true(page, "channels[0].readyState === 'closed'")
    await page.evaluate("channel('', {negotiated: true, id: 2})")
    await comes_true(page, "channels[1].readyState === 'open'")
    await page.evaluate("(text) => channels[1].send(text)", UPDATE)
    await comes_true(page, "count(1, 'session.updated') === 1")
    assert await page.evaluate("count(1, 'session.created')") == 1
