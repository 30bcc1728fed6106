"""A caller that floods its own data channels: ``python hostile_caller.py URL TOKEN_FILE KIND SECONDS``.

Places one call, and when it is up sends 300 datagrams a second, which is less than a browser may. KIND is

* ``misordered``: one-byte chunks behind one that never comes, sixty in a packet;
* ``channels``: opens channels, forty in a packet;
* ``records``: thirty records of DTLS in a datagram, and every other time noise that looks like one.

Prints how many datagrams it sent, as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from sctp_packets import DCEP, a_open, chunk, data, packet

from caller.call import Call, Line
from caller.media import Media
from caller.signaling import Token, calls_url
from caller.voice import generated
from rtc.dtls.records import APPLICATION_DATA
from rtc.pacer import Pacer

EVERY_S = 1 / 300


def datagrams(media: Media, kind: str) -> Iterator[bytes]:
    dtls, sctp = media._secure._dtls, media._secure.sctp
    assert dtls._records is not None
    assert sctp is not None
    records, tag, tsn = dtls._records, sctp._remote_verification_tag, sctp._local_tsn
    dtls._data_receiver = None

    def sealed(*chunks: bytes) -> bytes:
        return records.seal(APPLICATION_DATA, packet(tag, *chunks))

    for n in itertools.count():
        at = tsn + 60 * n
        match kind:
            case "misordered":
                yield sealed(*(data(at + 1 + i, 5, 60 * n + i + 1, b"x") for i in range(60)))
            case "channels":
                yield sealed(*(data(tsn + 40 * n + i, 40 * n + i, 0, a_open(), protocol=DCEP) for i in range(40)))
            case _ if n % 2:
                yield b"\x17\xfe\xfd" + random.randbytes(1200)
            case _:
                yield b"".join(sealed(chunk(4, 0, b"")) for _ in range(20))


async def main(url: str, token_file: Path, kind: str, seconds: float) -> None:
    token = Token(token_file.read_text().strip(), str(token_file))
    async with aiohttp.ClientSession() as http:
        call = Call(Line(http, calls_url(url, "parrot"), token, generated(), Pacer()))
        await call.set_up()
        media = call.media
        assert media is not None
        async with asyncio.timeout(30):
            while media.session_created_at is None:  # noqa: ASYNC110 - it has no event of its own
                await asyncio.sleep(0.01)
        sent = 0
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        for datagram in datagrams(media, kind):
            if loop.time() > end:
                break
            media._send(datagram)
            sent += 1
            due += EVERY_S
            await asyncio.sleep(max(0.0, due - loop.time()))
        await call.hang_up()
    print(json.dumps({"sent": sent}))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
