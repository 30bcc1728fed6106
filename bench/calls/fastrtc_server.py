"""A FastRTC server as its documentation writes one: a handler that hears 24 kHz frames and says the same ones.

It runs in an environment of its own, which has FastRTC and what that needs, and nothing of firsthop.
"""

import asyncio
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastrtc import AsyncStreamHandler, Stream, wait_for_item


class Echo(AsyncStreamHandler):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("mono", output_sample_rate=24000, input_sample_rate=24000)
        self._frames: asyncio.Queue[Any] = asyncio.Queue()

    async def start_up(self) -> None:
        pass

    async def receive(self, frame: Any) -> None:
        self._frames.put_nowait(frame)

    async def emit(self) -> Any:
        return await wait_for_item(self._frames)

    def copy(self) -> "Echo":
        return Echo()


if __name__ == "__main__":
    stream = Stream(
        Echo(),
        modality="audio",
        mode="send-receive",
        concurrency_limit=1000,
        server_rtc_configuration={"iceServers": []},
    )
    app = FastAPI()
    stream.mount(app)
    uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="warning")
