"""A flood of frames put together by hand, so that they may say that they come from anywhere:
``python raw_flood.py INTERFACE RATE SECONDS``, with the frames as JSON on standard input, in hexadecimal. Prints how
many were sent. Bounded in count and time, and meant for hosts of the lab only."""

from __future__ import annotations

import json
import socket
import sys
import time


def main(interface: str, rate: int, seconds: float) -> None:
    frames = [bytes.fromhex(frame) for frame in json.load(sys.stdin)]
    sent = lost = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < seconds and sent < rate * seconds:
            for _ in range(min(int(rate * elapsed) - sent, rate // 100)):
                try:
                    sock.send(frames[(sent + lost) % len(frames)])
                except OSError:  # the link has no room
                    lost += 1
                else:
                    sent += 1
            time.sleep(0.001)
    print(json.dumps({"sent": sent}))


main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
