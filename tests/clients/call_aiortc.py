"""aiortc, whichever version the interpreter has: ``call_aiortc.py URL TOKEN``. With ``stay`` as third word it hangs up
when its standard input ends."""

from __future__ import annotations

import asyncio
import json
import sys

from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription
from conversation import Conversation, place


async def call(url: str, token: str, stay: str = "") -> dict[str, object]:
    pc = RTCPeerConnection()
    pc.addTrack(AudioStreamTrack())  # silence
    heard = 0
    listening = []

    @pc.on("track")
    def on_track(track) -> None:  # type: ignore[no-untyped-def]
        async def listen() -> None:
            nonlocal heard
            while True:
                await track.recv()
                heard += 1

        listening.append(asyncio.create_task(listen()))

    channel = pc.createDataChannel("oai-events")
    conversation = Conversation(channel.send, lambda: heard)
    channel.on("message", conversation.take)
    await pc.setLocalDescription(await pc.createOffer())
    answer, hang_up = await asyncio.to_thread(place, url, token, pc.localDescription.sdp)
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    while not conversation.poll():  # noqa: ASYNC110 - a page long, and no event for it
        await asyncio.sleep(0.05)
    if stay:
        await asyncio.to_thread(sys.stdin.read)
    hung = await asyncio.to_thread(hang_up)
    await pc.close()
    for task in listening:
        task.cancel()
    return {**conversation.result, "hung": hung}


print(json.dumps(asyncio.run(asyncio.wait_for(call(*sys.argv[1:]), 120))))
