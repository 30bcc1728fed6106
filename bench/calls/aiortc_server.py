"""A stock aiortc server: what comes is decoded by aiortc, and what was decoded is its outgoing track."""

from __future__ import annotations

import sys
from typing import Any

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription


class Echo(MediaStreamTrack):
    """Says the frames of ``heard``."""

    kind = "audio"

    def __init__(self, heard: MediaStreamTrack) -> None:
        super().__init__()
        self._heard = heard

    async def recv(self) -> Any:
        return await self._heard.recv()


CALLS: set[RTCPeerConnection] = set()


async def offer(request: web.Request) -> web.Response:
    body = await request.json()
    # Without this it asks a public STUN server first.
    call = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    CALLS.add(call)

    @call.on("track")
    def heard(track: MediaStreamTrack) -> None:
        call.addTrack(Echo(track))

    @call.on("connectionstatechange")
    async def changed() -> None:
        if call.connectionState in ("failed", "closed"):
            await call.close()
            CALLS.discard(call)

    await call.setRemoteDescription(RTCSessionDescription(body["sdp"], body["type"]))
    await call.setLocalDescription(await call.createAnswer())
    return web.json_response({"sdp": call.localDescription.sdp, "type": call.localDescription.type})


async def healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/offer", offer)
    app.router.add_get("/", healthy)
    web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]), access_log=None)
