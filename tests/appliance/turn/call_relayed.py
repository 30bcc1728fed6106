"""aiortc over a relay and nothing else: ``call_relayed.py URL TOKEN BEGINNING``, where the relay is the first one of
signaling's whose URL begins so. Prints what kinds of candidates it had, and how many packets it heard."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.request

from aiortc import (
    AudioStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)

HEARD = 50


def ask(request: urllib.request.Request) -> str:
    with urllib.request.urlopen(request, timeout=30) as answered:
        return str(answered.read().decode())


async def call(url: str, token: str, beginning: str) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    told = json.loads(await asyncio.to_thread(ask, urllib.request.Request(f"{url}/v1/ice-servers", headers=headers)))
    relays = [
        RTCIceServer(each, server["username"], server["credential"])
        for server in told["iceServers"]
        for each in server["urls"]
        if each.startswith(beginning)
    ]
    pc = RTCPeerConnection(RTCConfiguration(relays[:1], RTCIceTransportPolicy.RELAY))
    pc.addTrack(AudioStreamTrack())  # silence
    heard = asyncio.Semaphore(0)

    @pc.on("track")
    def on_track(track) -> None:  # type: ignore[no-untyped-def]
        async def listen() -> None:
            while True:
                await track.recv()
                heard.release()

        listening.append(asyncio.create_task(listen()))

    listening: list[asyncio.Task[None]] = []
    await pc.setLocalDescription(await pc.createOffer())
    offer = pc.localDescription.sdp
    posted = urllib.request.Request(f"{url}/v1/realtime/calls?model=echo", offer.encode(), headers)
    await pc.setRemoteDescription(RTCSessionDescription(await asyncio.to_thread(ask, posted), "answer"))
    for _ in range(HEARD):
        await heard.acquire()
    for task in listening:
        task.cancel()
    await pc.close()
    return {"kinds": sorted(set(re.findall(r"a=candidate:.* typ (\w+)", offer))), "heard": HEARD}


print(json.dumps(asyncio.run(asyncio.wait_for(call(*sys.argv[1:]), 60))))
