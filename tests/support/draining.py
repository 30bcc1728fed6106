"""A transceiver as a process of its own, to be stopped: ``draining.py <endpoint>`` prints the first four bytes of each
datagram that it gets, as a number a line."""

from __future__ import annotations

import sys

import zmq
from wiring import heard
from working import KEYS

from wire import frames, link


def main(endpoint: str) -> None:
    router = link.router(zmq.Context(), endpoint, KEYS)
    print("ready", flush=True)
    while True:
        _, said = router.recv_multipart()
        message = heard(said)
        if isinstance(message, frames.Data):
            for _, datagram in message.datagrams():
                print(int.from_bytes(datagram[:4], "big"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
