"""Calls from an office whose firewall lets nothing through but TCP to port 443: over coturn's TLS, with credentials of
signaling's, by a browser and by aiortc. And what coturn refuses to whoever has credentials."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioice.stun
import aioice.turn
import pytest
from browser import OFFERS_TONE, chromium
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from office import UDP_TOO, an_office
from playwright.async_api import Browser
from privileges import cannot_run, nft
from pyroute2 import IPRoute

from edge.signaling.turn.credentials import mint
from lab.appliance import Appliance
from lab.certificate import certificate
from lab.coturn import Coturn, CoturnError
from lab.network import Host, Lab

pytestmark = pytest.mark.needs_root

MEDIA = "198.51.100.1"  # a public address, for browsers send no media to port 443 of others

# ``call`` places a call to the agent echo, over relays alone or by whatever way there is; ``hears`` says how it is when
# so many packets have come.
CALLS = (
    OFFERS_TONE
    + """
let pc;
async function call(token, iceTransportPolicy) {
  const headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const told = await (await fetch("/v1/ice-servers", {headers})).json();
  pc = new RTCPeerConnection({...told, iceTransportPolicy});
  await offersTone(pc);
  const url = "/v1/realtime/calls?model=echo";
  const placed = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers});
  await pc.setRemoteDescription({type: "answer", sdp: await placed.text()});
  return told.iceServers.flatMap((server) => server.urls);
}
async function hears(packets) {
  for (;;) {
    const it = await now();
    if (it.state === "connected" && it.packets >= packets && it.kind) return it;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
async function now() {
  const stats = [...(await pc.getStats()).values()];
  const heard = stats.find((it) => it.type === "inbound-rtp") ?? {};
  const chosen = stats.find((it) => it.type === "transport")?.selectedCandidatePairId;
  const pair = stats.find((it) => it.id === chosen);
  const local = stats.find((it) => it.id === pair?.localCandidateId) ?? {};
  const remote = stats.find((it) => it.id === pair?.remoteCandidateId) ?? {};
  return {state: pc.connectionState, packets: heard.packetsReceived ?? 0, kind: local.candidateType,
          over: local.relayProtocol, url: local.url, port: remote.port, protocol: remote.protocol};
}
"""
)


@dataclass(frozen=True, slots=True)
class Relayed:
    """The appliance, a relay on the client host and one on the edge's own, and the office."""

    appliance: Appliance
    far: Coturn
    beside: Coturn
    office: Host
    secret: str
    certificate: Path

    def credentials(self, ttl_s: int = 600) -> tuple[str, str]:
        made = mint(self.secret, "tester", time.time(), ttl_s)
        return made.username, made.password


def key_hash(path: Path) -> str:
    """The hash of a certificate's key, as Chromium's switch wants it."""
    public = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    der = public.public_bytes(serialization.Encoding.DER, form)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def have(address: str, interface: str) -> None:
    with IPRoute() as ip:
        ip.addr("add", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=32)


@pytest.fixture(scope="module")
def relayed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    folder = tmp_path_factory.mktemp("relayed")
    tls = certificate(folder, lab.edge.address, lab.client.address)
    secret = secrets.token_urlsafe(24)
    file = folder / "turn-secret"
    file.write_text(secret + "\n")
    file.chmod(0o600)
    same = {"secret": secret, "peers": [MEDIA], "tls": tls}
    far = Coturn(lab.client, folder / "far", **same)
    beside = Coturn(lab.edge, folder / "beside", port=3479, tls_port=5349, **same)
    told = [{"url": url, "secret_file": str(file)} for url in (far.udp_url, far.tls_url, beside.udp_url)]
    edge = {"media": f"{MEDIA}:443", "tls_certificate": str(tls[0]), "tls_key": str(tls[1]), "ice_servers": told}
    lab.edge.inside(lambda: have(MEDIA, lab.edge_interface))
    lab.route_to(lab.edge, MEDIA)
    try:
        with far, beside, Appliance(folder, lab=lab, http_port=443, **edge) as appliance, an_office(lab) as office:
            yield Relayed(appliance, far, beside, office, secret, tls[0])
    except CoturnError as e:
        cannot_run(str(e))


# --- calls


def test_the_office_lets_nothing_out_but_tcp_to_port_443(relayed: Relayed, lab: Lab) -> None:
    def sends(kind: socket.SocketKind, port: int) -> bool:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.settimeout(1)
            try:
                sock.connect((lab.client.address, port))
                sock.send(b"x")
            except OSError:
                return False
            return True

    def tried() -> dict[str, bool]:
        return {
            "udp 3478": sends(socket.SOCK_DGRAM, 3478),
            "udp 443": sends(socket.SOCK_DGRAM, 443),
            "tcp 3478": sends(socket.SOCK_STREAM, 3478),
            "tcp 443": sends(socket.SOCK_STREAM, 443),
        }

    assert relayed.office.inside(tried) == {"udp 3478": False, "udp 443": False, "tcp 3478": False, "tcp 443": True}


@pytest.fixture
async def browser(relayed: Relayed, lab: Lab, tmp_path: Path) -> AsyncIterator[Browser]:
    switches = [
        f"--ignore-certificate-errors-spki-list={key_hash(relayed.certificate)}",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    async with chromium(lab, tmp_path, *switches, host=relayed.office) as browser:
        yield browser


async def test_chromium_calls_from_the_office_over_tls_and_over_udp_where_port_443_is_open(
    relayed: Relayed, browser: Browser
) -> None:
    page = await browser.new_page()
    await page.goto(relayed.appliance.url + "/healthz")
    await page.add_script_tag(content=CALLS)

    async def called(policy: str) -> tuple[list[str], dict[str, Any]]:
        async with asyncio.timeout(60):
            urls = await page.evaluate("(args) => call(...args)", [relayed.appliance.token, policy])
            now = await page.evaluate("hears(50)")
        await page.evaluate("pc.close()")
        return urls, now

    urls, now = await called("relay")
    assert urls == [relayed.far.udp_url, relayed.far.tls_url, relayed.beside.udp_url]
    assert (now["kind"], now["over"], now["url"]) == ("relay", "tls", relayed.far.tls_url)

    # The demo's page is told of relays too.
    with a_demo_page(relayed) as url:
        await page.goto(f"{url}?relay=1")
        await page.wait_for_function("() => document.querySelector('#agent').options.length === 1", timeout=60_000)
        await page.get_by_role("button", name="Connect").click()
        await page.wait_for_function("() => window.firsthop.stats.packets_received > 50", timeout=60_000)
        await page.get_by_role("button", name="Hang up").click()
        await page.wait_for_function("() => window.firsthop.state === 'ended'", timeout=60_000)

    nft(relayed.office, UDP_TOO)
    await page.goto(relayed.appliance.url + "/healthz")
    await page.add_script_tag(content=CALLS)
    _, now = await called("all")
    assert now["kind"] != "relay"
    assert (now["protocol"], now["port"]) == ("udp", 443)


@contextmanager
def a_demo_page(relayed: Relayed) -> Iterator[str]:
    """The URL of the demo's page, which is served in the office itself."""
    argv = [sys.executable, "-m", "demo.page", "--edge", relayed.appliance.url, "--agents", "echo", "--port", "8088"]
    argv += ["--token-file", str(relayed.appliance.token_file)]
    server = relayed.office.popen(argv, stdout=subprocess.PIPE, env=trusting(relayed))
    assert server.stdout is not None
    with server.stdout as said:
        yield said.readline().decode().strip()
        server.terminate()
        server.wait()


def trusting(relayed: Relayed) -> dict[str, str]:
    """The environment of a program that trusts the certificate."""
    return {**os.environ, "SSL_CERT_FILE": str(relayed.certificate)}


def aiortc_calls(relayed: Relayed, host: Host, beginning: str) -> dict[str, Any]:
    script = Path(__file__).with_name("call_relayed.py")
    argv = [sys.executable, str(script), relayed.appliance.url, relayed.appliance.token, beginning]
    done = subprocess.run(host.command(argv), capture_output=True, text=True, timeout=120, env=trusting(relayed))
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_aiortc_calls_from_the_office_over_tls(relayed: Relayed) -> None:
    assert aiortc_calls(relayed, relayed.office, "turns:") == {"kinds": ["relay"], "heard": 50}


def test_a_relay_on_the_edges_own_host_serves_as_well(relayed: Relayed, lab: Lab) -> None:
    assert aiortc_calls(relayed, lab.client, relayed.beside.udp_url) == {"kinds": ["relay"], "heard": 50}


# --- what coturn refuses


def test_coturn_understands_all_of_its_configuration(relayed: Relayed) -> None:
    assert "Bad configuration format" not in relayed.far.log
    assert "CLI listener" not in relayed.far.log


class Client(aioice.turn.TurnClientUdpProtocol):
    """A client of the far relay, over UDP, on its own host."""

    @classmethod
    async def made(cls, relayed: Relayed, username: str, password: str) -> Client:
        server = (relayed.far.address, relayed.far.port)
        loop = asyncio.get_running_loop()
        _, client = await loop.create_datagram_endpoint(
            lambda: cls(server, username, password, lifetime=600, channel_refresh_time=500), remote_addr=server
        )
        return client


def code(e: aioice.stun.TransactionFailed) -> int:
    """The code of the error with which the relay refuses."""
    return int(e.response.attributes["ERROR-CODE"][0])


def test_it_relays_to_media_of_edges_and_to_nobody_else(relayed: Relayed, lab: Lab) -> None:
    refused = (
        *("127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "8.8.8.8"),
        *(lab.client.address, lab.edge.address, lab.transceiver.address, lab.edge_inner_address),
    )

    async def asked() -> dict[str, int]:
        client = await Client.made(relayed, *relayed.credentials())
        await client.connect()
        said = {}
        for n, peer in enumerate((*refused, MEDIA)):
            try:
                await client.channel_bind(0x4000 + n, (peer, 3478))
                said[peer] = 0
            except aioice.stun.TransactionFailed as e:
                said[peer] = code(e)
        await client.delete()
        return said

    said = lab.client.inside(lambda: asyncio.run(asked()))
    assert said == {**dict.fromkeys(refused, 403), MEDIA: 0}


def test_credentials_that_ended_or_are_of_another_secret_are_refused(relayed: Relayed, lab: Lab) -> None:
    async def asked(username: str, password: str) -> int:
        client = await Client.made(relayed, username, password)
        try:
            await client.connect()
        except aioice.stun.TransactionFailed as e:
            return code(e)
        finally:
            client.transport.close()
        return 0

    other = mint("another-secret-altogether", "tester", time.time(), 600)
    good, ended = relayed.credentials(), relayed.credentials(ttl_s=-60)
    longer = (good[0].replace(":", "0:"), good[1])  # ten times as late, with the same password
    tried = [good, ended, longer, (other.username, other.password)]
    said = [lab.client.inside(lambda who=who: asyncio.run(asked(*who))) for who in tried]
    assert said == [0, 401, 401, 401]


def test_one_name_has_so_many_allocations_whatever_its_credentials(relayed: Relayed, lab: Lab) -> None:
    async def asked() -> list[int]:
        clients, said = [], []
        for n in range(65):
            made = mint(relayed.secret, "crowd", time.time(), 600 + n)
            client = await Client.made(relayed, made.username, made.password)
            try:
                await client.connect()
                clients.append(client)
            except aioice.stun.TransactionFailed as e:
                said.append(code(e))
                client.transport.close()
        for client in clients:
            await client.delete()
        return [len(clients), *said]

    assert lab.client.inside(lambda: asyncio.run(asked())) == [64, 486]
