"""A stock aiortc server, as one is written for a model: what aiortc decodes is made into 24 kHz mono PCM16, which a
model hears, and the same PCM is its outgoing track."""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame
from av.audio.resampler import AudioResampler

RATE_HZ = 24000


class Echo(MediaStreamTrack):
    """A track that says what ``heard`` says."""

    kind = "audio"

    def __init__(self, heard: MediaStreamTrack) -> None:
        super().__init__()
        self._heard = heard
        self._resampler = AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        self._said = 0

    async def recv(self) -> Any:
        pcm = b""
        while not pcm:  # the first frames may fill the resampler
            heard: Any = await self._heard.recv()
            pcm = b"".join(frame.to_ndarray().tobytes() for frame in self._resampler.resample(heard))
        frame = AudioFrame.from_ndarray(np.frombuffer(pcm, np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._said, Fraction(1, RATE_HZ)
        self._said += frame.samples
        return frame


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
