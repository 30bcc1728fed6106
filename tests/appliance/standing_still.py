"""One end of a link that reads nothing until its standard input says so: ``standing_still.py router|dealer ENDPOINT``.

It says ``ready`` when it is there, then the messages that it reads, as far as they say hello.
"""

from __future__ import annotations

import sys

import zmq

from wire import link
from wire.keys import ClusterKeys


def main() -> None:
    role, endpoint = sys.argv[1:]
    keys = ClusterKeys({1: bytes(16)}, 1, bytes(32))
    context = zmq.Context[zmq.Socket[bytes]]()
    if role == "router":
        end = link.router(context, endpoint, keys)
    else:
        end, _ = link.media_dealer(context, endpoint, b"edge/worker-0", keys)
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        message = end.recv_multipart()[-1]
        if message.startswith(b"hello"):
            print(message.decode(), flush=True)


if __name__ == "__main__":
    main()
