"""Keys that Chromium presses: short ones, the same twice, and one that is held for as long as it lets one."""

from __future__ import annotations

import pytest
from playwright.async_api import Page
from test_page import microphone, page, url

__all__ = ["microphone", "page", "url"]

_CALL = """async () => {
    const peer = new RTCPeerConnection();
    const media = await navigator.mediaDevices.getUserMedia({audio: true});
    const sender = peer.addTrack(media.getAudioTracks()[0], media);
    const channel = peer.createDataChannel('oai-events');
    const keys = [];
    channel.onmessage = ({data}) => {
        const event = JSON.parse(data);
        if (event.type === 'input_audio_buffer.dtmf_event_received') keys.push(event.event);
    };
    const open = new Promise((resolve) => { channel.onopen = resolve; });
    await peer.setLocalDescription(await peer.createOffer());
    const [url, headers] = ['/v1/realtime/calls?model=parrot', {'Content-Type': 'application/sdp'}];
    const response = await fetch(url, {method: 'POST', headers, body: peer.localDescription.sdp});
    await peer.setRemoteDescription({type: 'answer', sdp: await response.text()});
    await open;
    const over = new Promise((resolve) => {
        sender.dtmf.ontonechange = ({tone}) => { if (tone === '') resolve(); };
    });
    sender.dtmf.insertDTMF('11', 100, 70);
    await new Promise((resolve) => setTimeout(resolve, 600));
    sender.dtmf.insertDTMF('5', 6000, 70);
    await new Promise((resolve) => setTimeout(resolve, 6500));
    sender.dtmf.insertDTMF('5#D', 100, 70);
    await over;
    const deadline = Date.now() + 30000;
    while (!keys.includes('D') && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50));
    const stats = [...(await peer.getStats()).values()];
    peer.close();
    return [keys.join(''), stats.find((each) => each.type === 'remote-inbound-rtp')?.packetsLost];
}"""


@pytest.mark.needs_root
async def test_what_chromium_presses_is_told_once_each(page: Page) -> None:
    keys, lost = await page.evaluate(_CALL)
    assert keys == "1155#D"
    assert lost == 0
