"""A flood, as fast as one core can send: ``python flood.py HOST PORT SECONDS [SSRC ...]``. Prints as JSON what was sent
by kind.

Checks with invented ufrags, random bytes, DTLS ClientHellos from addresses that nobody knows, and media with SSRCs
that nobody has; with the SSRCs of calls that go on, as overheard, media with those as well. Bounded in time, and
meant for hosts of the lab only.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time

import numpy as np

from rtc.rtp import packet as rtp
from runtime.batch import BATCH, BatchSocket
from wire import address, stun, ufrag

CLIENT_HELLO = bytes.fromhex("16fefd0000000000000000")


def invented_check(rng: random.Random) -> bytes:
    sealed = ufrag.seal(1, 1, rng.randbytes(16))
    return stun.binding_request(f"{sealed}:abcd".encode(), b"not the password", tie_breaker=1)


def main(host: str, port: int, seconds: float, overheard: list[int]) -> None:
    rng = random.Random(1)
    kinds = {
        "forged_stun": [invented_check(rng) for _ in range(BATCH)],
        "random": [rng.randbytes(rng.randint(20, 200)) for _ in range(BATCH)],
        "client_hello": [CLIENT_HELLO + rng.randbytes(150) for _ in range(BATCH)],
        "unknown_ssrc": [b"\x80\x6f" + rng.randbytes(170) for _ in range(BATCH)],
    }
    if overheard:
        ssrcs = [rng.choice(overheard) for _ in range(BATCH)]
        kinds["overheard_ssrc"] = [rtp.build(111, False, i, 960 * i, s, bytes(160)) for i, s in enumerate(ssrcs)]
    sent = dict.fromkeys(kinds, 0)
    to = np.frombuffer(address.pack(host, port) * BATCH, np.uint8).reshape(BATCH, 18)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        batches = BatchSocket(sock)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind, packets in kinds.items():
                lengths = np.array([len(packet) for packet in packets], np.uint16)
                sent[kind] += batches.send(to, lengths, b"".join(packets))[0]
    print(json.dumps(sent))


main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), [int(ssrc) for ssrc in sys.argv[4:]])
