"""The WHIP-shaped endpoint (RFC 9725), and what of the RFC it keeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from signaling_edge import FIRST_CREDENTIALS, MEDIA, SDP, TOKEN, Edge, FakeTransceiver, a_fake

from edge.peers import Peer
from runtime.config import Config

WHIP = "/whip/parrot"
FRAGMENT = {**TOKEN, "Content-Type": "application/trickle-ice-sdpfrag"}
CREDENTIALS = "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n".format(*FIRST_CREDENTIALS)
OTHERS = CREDENTIALS.replace("abcd", "wxyz")
CANDIDATE = CREDENTIALS + "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.9 5000 typ host\r\n"
SERVERS = (
    {"url": "stun:stun.example:3478"},
    {"url": "turn:turn.example?transport=udp", "username": "u", "credential": "p w"},
)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Edge, FakeTransceiver]]:
    async with a_fake(tmp_path, ice_servers=SERVERS) as both:
        yield both


async def published(edge: Edge) -> tuple[str, str]:
    """Location and ETag of a call."""
    async with edge.http.post(edge.url + WHIP, data="v=0", headers=SDP) as response:
        assert response.status == 201
        return response.headers["Location"], response.headers["ETag"]


async def test_a_post_is_answered_with_all_that_a_whip_client_needs(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    async with edge.http.post(edge.url + WHIP, data="v=0", headers=SDP) as response:
        assert response.status == 201
        assert response.content_type == "application/sdp"
        assert await response.text() == "v=0\r\n"
        assert response.headers["Location"].startswith(WHIP + "/rtc_")
        assert response.headers["ETag"].startswith('"')
        assert response.headers.getall("Link") == [
            '<stun:stun.example:3478>; rel="ice-server"',
            '<turn:turn.example?transport=udp>; rel="ice-server"; username="u"; credential="p w"; '
            'credential-type="password"',
        ]
    assert fake.said["session.offer"][-1]["agent"] == "parrot"


async def test_a_delete_ends_the_call_once(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    location, _ = await published(edge)
    async with edge.http.delete(edge.url + location, headers=TOKEN) as response:
        assert response.status == 200
    assert fake.sessions == 0
    assert (await edge.error("DELETE", location, headers=TOKEN))[0] == 404


async def test_another_type_is_415_and_is_told_what_may_be_posted(both: tuple[Edge, FakeTransceiver]) -> None:
    status, headers, _ = await both[0].error("POST", WHIP, json={}, headers=TOKEN)
    assert (status, headers["Accept-Post"]) == (415, "application/sdp")


async def test_without_a_key_nothing_is_done(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    for method, path in (("POST", WHIP), ("PATCH", WHIP + "/rtc_x"), ("DELETE", WHIP + "/rtc_x")):
        assert (await edge.error(method, path, data="v=0"))[0] == 401
    assert fake.sessions == 0


async def test_options_tell_what_may_be_posted_and_let_pages_read_it(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    async with edge.http.options(edge.url + WHIP, headers={"Origin": "https://app.example"}) as response:
        assert response.status == 204
        assert response.headers["Accept-Post"] == "application/sdp"
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        assert {"Location", "ETag", "Link", "Retry-After"} <= exposed
        assert {"PATCH", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        assert "If-Match" in response.headers["Access-Control-Allow-Headers"].split(", ")


@pytest.mark.parametrize(
    ("fragment", "if_match", "status"),
    [
        (CANDIDATE, "current", 204),
        (CANDIDATE, None, 204),
        (CREDENTIALS + "a=end-of-candidates\r\n", "current", 204),
        (CANDIDATE, '"stale"', 412),
        (CREDENTIALS, None, 428),
        (CREDENTIALS, '"stale"', 412),
        (CREDENTIALS, "*", 204),
        (CANDIDATE, "*", 204),
        (CREDENTIALS, "current", 204),
        (OTHERS, "*", 200),
        (OTHERS, "current", 200),
        (OTHERS, '"stale"', 412),
        (OTHERS, None, 428),
        ("a=ice-ufrag:wxyz\r\n", "*", 400),
        ("a=ice-ufrag:wxyz\r\na=ice-pwd:short\r\n", "*", 400),
        ("a=ice-ufrag:w:xyz\r\na=ice-pwd:0123456789012345678901\r\n", "*", 400),
        ("", None, 400),
        ("nonsense", "current", 400),
    ],
)
async def test_candidates_are_acknowledged_and_other_credentials_restart_ice(
    both: tuple[Edge, FakeTransceiver], fragment: str, if_match: str | None, status: int
) -> None:
    edge, _ = both
    location, etag = await published(edge)
    headers = dict(FRAGMENT)
    if if_match is not None:
        headers["If-Match"] = etag if if_match == "current" else if_match
    async with edge.http.patch(edge.url + location, data=fragment, headers=headers) as response:
        assert response.status == status


async def test_a_restart_has_another_etag_and_the_old_one_is_stale(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    location, etag = await published(edge)
    headers = {**FRAGMENT, "If-Match": etag}
    async with edge.http.patch(edge.url + location, data=OTHERS, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/trickle-ice-sdpfrag")
        assert await response.text() == "a=ice-lite\r\n"
        renewed = response.headers["ETag"]
    assert renewed != etag
    assert (await edge.error("PATCH", location, data=OTHERS, headers=headers))[0] == 412
    async with edge.http.patch(edge.url + location, data=OTHERS, headers={**FRAGMENT, "If-Match": renewed}) as response:
        assert response.status == 204  # the client's are the same: candidates that trickle
    assert fake.said["session.ice"][0]["remote"] == ["wxyz", FIRST_CREDENTIALS[1]]


async def test_answers_and_restarts_name_the_other_edges_that_are_well(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    others = [Peer(f"edge-{i}", (f"192.0.2.{i}", 3478), f"tcp://10.0.0.{i}:7450") for i in (2, 3)]
    edge.peers.know(others)
    edge.peers.heard("edge-3", time.monotonic() + 3600)
    location, _ = await published(edge)
    async with edge.http.patch(edge.url + location, data=OTHERS, headers={**FRAGMENT, "If-Match": "*"}) as response:
        assert response.status == 200
    for said in (fake.said["session.offer"][0], fake.said["session.ice"][0]):
        assert said["media"] == list(MEDIA)
        assert said["more_media"] == [["192.0.2.3", 3478]]


async def test_an_edge_that_drains_answers_with_other_edges_and_is_not_ready(
    both: tuple[Edge, FakeTransceiver],
) -> None:
    edge, fake = both
    edge.peers.know([Peer("edge-2", ("192.0.2.2", 3478), "tcp://10.0.0.2:7450")])
    edge.peers.heard("edge-2", time.monotonic() + 3600)
    edge.peers.draining = True
    await published(edge)
    assert fake.said["session.offer"][0]["media"] == ["192.0.2.2", 3478]
    assert "more_media" not in fake.said["session.offer"][0]
    async with edge.http.get(edge.url + "/readyz") as response:
        assert (response.status, (await response.json())["ready"]) == (503, False)
        assert response.headers["Retry-After"] == "2"
    async with edge.http.get(edge.url + "/healthz") as response:
        assert response.status == 200


async def test_a_fragment_of_another_type_is_415_and_of_another_call_404(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    location, _ = await published(edge)
    status, headers, _ = await edge.error("PATCH", location, data=CANDIDATE, headers=SDP)
    assert (status, headers["Accept-Patch"]) == (415, "application/trickle-ice-sdpfrag")
    assert (await edge.error("PATCH", WHIP + "/rtc_x", data=CANDIDATE, headers=FRAGMENT))[0] == 404


@pytest.mark.parametrize(
    "server",
    [
        {"url": "http://turn.example"},
        {"url": "turn:x>; rel=evil"},
        {"url": "turn:x", "credential": 'a"; rel="evil'},
        {"url": "turn:x", "username": "a\r\nSet-Cookie: b"},
        {"url": "turn:x", "credential": "a\\"},
        {},
    ],
)
def test_an_ice_server_that_would_break_its_header_is_no_configuration(server: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ice_servers"):
        Config(edge={"ice_servers": [server]})
