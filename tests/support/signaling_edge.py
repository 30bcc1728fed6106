"""A signaling server under test over real HTTP, and a transceiver that is played: it speaks the wire's messages, and
answers as it is told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import zmq
import zmq.asyncio
from aiohttp import web
from waiting import eventually
from wiring import Said, heard, hello_back, raw, refused_by_3

from edge.apikeys import ApiKeys
from edge.directory import Directory, Transceiver
from edge.links.events import Events
from edge.links.transceivers import Transceivers
from edge.peers import Peers
from edge.signaling.app import make_app
from edge.signaling.connection import Connection
from edge.signaling.ledger import Ledger, limits
from edge.signaling.listener import Listener, connections_tally
from edge.signaling.placing import Placing
from edge.tls import Certificate
from runtime import logs
from runtime.config import Config
from runtime.families import edge as families
from runtime.metrics import Tally
from wire import link, ufrag
from wire.keys import ClusterKeys
from wire.messages import Closed, Message
from wire.report import Report
from wire.versions import OLDEST, VERSION

DEADLINE_S = 30
KEYS = ClusterKeys({1: bytes(range(16))}, 1, bytes(32))
MEDIA = ("192.0.2.1", 3478)
TOKEN = {"Authorization": "Bearer correct horse"}
OTHER_TOKEN = {"Authorization": "Bearer battery staple"}
SDP = {**TOKEN, "Content-Type": "application/sdp"}
FIRST_CREDENTIALS = ["abcd", "0123456789012345678901"]
API_KEYS = "# people\ncorrect horse\nbattery staple # another\n"
CALLS = "/v1/realtime/calls"
SECRETS = "/v1/realtime/client_secrets"


class Edge:
    """The HTTP server under test; its transceivers are on ``ipc://`` in ``directory``."""

    def __init__(self, http: aiohttp.ClientSession, url: str, directory: Path) -> None:
        self.http = http
        self.url = url
        self.directory = directory
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.ledger = Ledger()
        self.transceivers = Directory()
        self.peers = Peers("edge", MEDIA)
        self.runner: web.AppRunner | None = None
        self.events: Events | None = None
        self.links: Transceivers
        self.placing: Placing
        self.api_keys: ApiKeys
        self.address: tuple[str, int]
        self.certificate: Certificate
        self.listener: Listener
        self.connections = connections_tally()

    async def ready(self, *numbers: int) -> None:
        """Waits until exactly these transceivers answer."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                async with self.http.get(self.url + "/readyz") as response:
                    body = await response.json()
                if [int(number) for number, up in body["transceivers"].items() if up] == list(numbers):
                    return
                await asyncio.sleep(0.02)

    async def place(self, sdp: Any, *, query: str = "", **headers: str) -> tuple[int, Any, str]:
        """Posts an offer. Returns status, headers and body."""
        async with self.http.post(self.url + CALLS + query, data=sdp, headers={**SDP, **headers}) as response:
            return response.status, response.headers, await response.text()

    async def secret(self, **wish: Any) -> dict[str, Any]:
        """The answer to whoever makes an ephemeral key."""
        async with self.http.post(self.url + SECRETS, json=wish, headers=TOKEN) as response:
            assert response.status == 200, await response.text()
            made: dict[str, Any] = await response.json()
            return made

    async def error(self, method: str, path: str, **options: Any) -> tuple[int, Any, dict[str, Any]]:
        """Status, headers and the error object, whose shape is always the same."""
        async with self.http.request(method, self.url + path, **options) as response:
            body = await response.json()
            assert set(body) == {"error"}
            assert set(body["error"]) == {"message", "type", "code", "param"}
            kind = {429: "requests"}.get(response.status, "invalid_request_error")
            assert body["error"]["type"] == ("server_error" if response.status >= 500 else kind)
            assert body["error"]["message"]
            return response.status, response.headers, body["error"]

    async def refused_socket(self, query: str, **options: Any) -> int:
        """The status with which an upgrade is refused."""
        try:
            async with self.http.ws_connect(self.url + "/v1/realtime" + query, **options):
                return 101
        except aiohttp.WSServerHandshakeError as e:
            return e.status


@asynccontextmanager
async def an_edge(
    directory: Path, *numbers: int, api_keys_text: str = API_KEYS, **settings: Any
) -> AsyncIterator[Edge]:
    (directory / "api-keys").write_text(api_keys_text)
    config = Config(edge={"advertise": f"{MEDIA[0]}:{MEDIA[1]}", **settings})
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_S)) as http:
        edge = Edge(http, "", directory)
        edge.ledger = Ledger(*limits(config.edge))

        def unasked(_: int, message: Message) -> None:
            if isinstance(message, Closed):
                edge.ledger.ended(message.ufrag)

        edge.transceivers = Directory(Transceiver(n, f"ipc://{directory}/{n}") for n in numbers)
        transceivers = edge.links = Transceivers(
            edge.transceivers, b"edge/signaling", KEYS, unasked=unasked, moved=edge.ledger.moved
        )
        events = edge.events = Events(edge.transceivers, b"edge/signaling/events", KEYS)
        responses = Tally(families.RESPONSES, ("201",))
        api_keys = edge.api_keys = ApiKeys(directory / "api-keys", logs.get())
        placing = edge.placing = Placing(transceivers, edge.ledger, config.edge)
        app = make_app(
            config.edge, transceivers, events, edge.ledger, api_keys, lambda: KEYS, responses, placing, edge.peers
        )
        edge.runner = web.AppRunner(app, shutdown_timeout=1)
        await edge.runner.setup()
        assert edge.runner.server is not None
        listening = socket.create_server(("127.0.0.1", 0))
        edge.certificate = Certificate(config.edge.tls_certificate, config.edge.tls_key, logs.get())
        edge.listener = Listener(
            listening,
            partial(Connection, edge.runner.server),
            lambda: edge.certificate.context,
            most=config.edge.connections,
            most_of_one=config.edge.connections_per_address,
            counts=edge.connections,
        )
        edge.address = listening.getsockname()
        edge.url = f"{'https' if edge.certificate.context else 'http'}://127.0.0.1:{edge.address[1]}"
        try:
            yield edge
        finally:
            await edge.listener.close()
            listening.close()
            await edge.runner.cleanup()
            await events.close()
            await transceivers.close()
            edge.context.destroy(linger=0)


class FakeTransceiver:
    """Speaks the wire's messages for as many sessions as come. ``said`` has every message that it got, by type, with
    ``events`` by ufrag apart; ``report`` is part of its health. ``refusal`` refuses what comes, and what is of a
    type in ``mute`` gets no answer."""

    def __init__(self, number: int, endpoint: str, versions: tuple[int, int] = (OLDEST, VERSION)) -> None:
        self._endpoint = endpoint
        self.number = number
        self.said: dict[str, list[dict[str, Any]]] = {}
        self.events: dict[str, list[str]] = {}
        self.peers: dict[str, bytes] = {}
        self.placed_by: dict[str, bytes] = {}
        self.refusal: tuple[str, str] | None = None
        self.handoff_refusals: dict[int | None, tuple[str, str]] = {}  # by where the call was to move, None for here
        self.mute: set[str] = set()
        self.report: Report | None = None
        self.ice: dict[str, tuple[str, Any]] = {}  # our ufrag and the client's credentials, by the call's ufrag
        self.watching: dict[str, Any] = {}  # fields of its answers to who watches
        self.moved: dict[str, int] = {}  # sessions that it gave away, and to whom
        self.versions = versions
        self.heard_in: list[int] = []  # the version of each message
        self.first = [json.dumps({"type": "session.created", "event_id": "event_1", "session": {"type": "realtime"}})]
        self.counts: Counter[str] = Counter()
        self.reading = asyncio.Event()
        self.reading.set()
        self._start()

    @property
    def sessions(self) -> int:
        return len(self.placed_by)

    async def tell(self, ufrag: str, type_: str, **fields: Any) -> None:
        """Sends something unasked, to those who opened or watch the session, or else to those who placed it."""
        peer = self.peers.get(ufrag) or self.placed_by[ufrag]
        await self._send(peer, self._said(type_, ufrag=ufrag, **fields))

    async def close_session(self, ufrag: str, reason: str) -> None:
        for peer in {p for p in (self.peers.pop(ufrag, None), self.placed_by.pop(ufrag, None)) if p}:
            await self._send(peer, self._said("session.closed", ufrag=ufrag, reason=reason))

    def give(self, ufrag: str, to: FakeTransceiver) -> None:
        """Hands a session to the other one, and tells nobody."""
        to.placed_by[ufrag] = self.placed_by.pop(ufrag)
        if ufrag in self.peers:
            to.peers[ufrag] = self.peers.pop(ufrag)
        self.moved[ufrag] = to.number
        to.moved.pop(ufrag, None)

    async def say(self, ufrag: str, *, event: str) -> None:
        """Sends an event of a session, whether it is still here or not."""
        await self._send(b"edge/signaling/events", self._said("session.event", ufrag=ufrag, event=event))

    async def say_moved(self, ufrag: str, to: FakeTransceiver) -> None:
        """Tells both links of the edge where the session is."""
        for peer in (b"edge/signaling", b"edge/signaling/events"):
            await self._send(peer, self._said("call.moved", ufrags=[ufrag], to=to.number))

    def _start(self) -> None:
        self._context = zmq.asyncio.Context()
        self._router = link.router(self._context, self._endpoint, KEYS)
        self._task = asyncio.create_task(self._run())

    async def start_again(self) -> None:
        """As another process."""
        await self.close()
        self._start()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._context.destroy(linger=0)

    def _said(self, type_: str, **fields: Any) -> bytes:
        return raw(type_, version=min(VERSION, self.versions[1]), **fields)

    async def _send(self, peer: bytes, message: bytes) -> None:
        while True:
            try:
                await self._router.send_multipart([peer, message])
                return
            except zmq.Again:  # this peer's link is full
                await asyncio.sleep(0.005)
            except zmq.ZMQError:  # it is gone
                return

    async def _run(self) -> None:
        while True:
            await self.reading.wait()
            peer, message = await self._router.recv_multipart()
            decoded = heard(message)
            assert isinstance(decoded, Said)
            self.heard_in.append(message[1])
            if decoded.type == "hello":
                known = self.versions[1] > 3
                await self._send(peer, hello_back(decoded, *self.versions) if known else refused_by_3(decoded))
                continue
            fields = decoded.fields
            if decoded.type == "session.event":
                self.events.setdefault(fields["ufrag"], []).append(fields["event"])
                continue
            self.counts[decoded.type] += 1
            self.said.setdefault(decoded.type, []).append(fields)
            if decoded.type in self.mute:
                continue
            await self.answer(peer, decoded.type, fields)

    async def answer(self, peer: bytes, type_: str, fields: dict[str, Any]) -> None:
        """Answers, now, what was asked."""
        for reply in self._replies(peer, type_, fields):
            await self._send(peer, self._said(**reply))

    def _replies(self, peer: bytes, type_: str, fields: dict[str, Any]) -> list[dict[str, Any]]:
        request, sealed = fields.get("request"), str(fields.get("ufrag"))
        if type_ == "health":
            told = {"report": msgspec.to_builtins(self.report)} if self.report else {}
            return [{"type_": "health", "request": request, "sessions": self.sessions, "agents": [], **told}]
        if self.refusal is not None and type_ in ("session.offer", "session.open"):
            code, message = self.refusal
            return [
                {"type_": "session.refused", "request": request, "code": code, "message": message, "param": "model"}
            ]
        if type_ == "session.check":
            return [{"type_": "session.checked", "request": request}]
        if type_ in ("session.offer", "session.open"):
            sealed = ufrag.seal(self.number, 1, KEYS.ufrag[1])
            self.placed_by[sealed] = peer
            if type_ == "session.offer":
                return [{"type_": "session.answer", "request": request, "ufrag": sealed, "sdp": "v=0\r\n"}]
            self.peers[sealed] = peer
            events = [{"type_": "session.event", "ufrag": sealed, "event": event} for event in self.first]
            return [{"type_": "session.opened", "request": request, "ufrag": sealed}, *events]
        if type_ == "session.list":
            found = [(name, "parrot") for name in self.placed_by]
            return [{"type_": "session.listed", "request": request, "sessions": found}]
        if type_ == "session.unwatch":
            self.peers.pop(sealed, None)
            return []
        if sealed in self.moved:
            no = {"code": "moved", "message": "it is elsewhere", "param": str(self.moved[sealed])}
            return [{"type_": "session.refused", "request": request, **no}]
        if sealed not in self.placed_by:
            no = {"code": "call_id_not_found", "message": "no such call", "param": "call_id"}
            return [{"type_": "session.refused", "request": request, **no}]
        if type_ == "session.ice":
            return [self._restarted(request, sealed, fields)]
        if type_ == "session.handoff":
            no = self.handoff_refusals.get((fields.get("to") or {}).get("id"))
            if no is not None:
                return [{"type_": "session.refused", "request": request, "code": no[0], "message": no[1]}]
            return [{"type_": "session.handed_off", "request": request, "agent": fields["agent"]}]
        if type_ == "session.watch":
            self.peers[sealed] = peer
            return [{"type_": "session.watching", "request": request, **self.watching}]
        self.placed_by.pop(sealed)
        self.peers.pop(sealed, None)
        return [{"type_": "session.ended", "request": request}]

    def _restarted(self, request: Any, sealed: str, fields: dict[str, Any]) -> dict[str, Any]:
        ours, theirs = self.ice.get(sealed, (sealed, FIRST_CREDENTIALS))
        if fields["match"] not in ("*", ours):
            no = {"code": "precondition_failed", "message": "stale", "param": "If-Match"}
            return {"type_": "session.refused", "request": request, **no}
        fragment = ""
        if fields["remote"] not in (None, theirs):
            ours, fragment = ufrag.seal(self.number, 1, KEYS.ufrag[1]), "a=ice-lite\r\n"
            self.ice[sealed] = (ours, fields["remote"])
        return {"type_": "session.ice", "request": request, "ufrag": ours, "fragment": fragment}


@asynccontextmanager
async def a_fake(
    directory: Path, *, versions: tuple[int, int] = (OLDEST, VERSION), **settings: Any
) -> AsyncIterator[tuple[Edge, FakeTransceiver]]:
    """An edge and the one transceiver that is played, and speaks these ``versions`` of the wire."""
    async with an_edge(directory, 1, **settings) as edge:
        fake = FakeTransceiver(1, f"ipc://{directory}/1", versions)
        try:
            await edge.ready(1)
            yield edge, fake
        finally:
            await fake.close()


@asynccontextmanager
async def two_fakes(directory: Path, **settings: Any) -> AsyncIterator[tuple[Edge, FakeTransceiver, FakeTransceiver]]:
    """An edge and two transceivers that are played."""
    async with an_edge(directory, 1, 2, **settings) as edge:
        fakes = [FakeTransceiver(n, f"ipc://{directory}/{n}") for n in (1, 2)]
        try:
            await edge.ready(1, 2)
            yield edge, fakes[0], fakes[1]
        finally:
            for fake in fakes:
                fake.reading.set()
                await fake.close()


async def until_connected(edge: Edge, fake: FakeTransceiver) -> None:
    """Waits for the links of events too, which ``/readyz`` does not ask."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await edge.refused_socket("", headers=TOKEN) == 101:
                break
            await asyncio.sleep(0.02)
    await eventually(lambda: not fake.placed_by and len(edge.ledger) == 0)
