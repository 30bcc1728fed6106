"""The ICE servers that clients are told of, and credentials that a TURN server with the same secret takes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from signaling_edge import SDP, TOKEN, Edge, a_fake

from edge.signaling.turn.credentials import mint
from edge.signaling.turn.servers import IceServers
from edge.turnsecrets import load
from runtime import logs
from runtime.config import Config
from runtime.errors import ConfigError

ICE = "/v1/ice-servers"
SECRET = "north-by-northwest"
UDP, TLS = "turn:turn.example:3478?transport=udp", "turns:turn.example:443?transport=tcp"


def taken(secret: str, username: str, password: str) -> bool:
    """Whether a server with that secret takes the password."""
    mac = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return base64.b64decode(password, validate=True) == mac


def written(folder: Path, secret: str = SECRET, name: str = "turn-secret") -> Path:
    path = folder / name
    path.write_text(secret + "\n")
    path.chmod(0o600)
    return path


def servers(*rows: dict[str, Any], ttl_s: int = 600) -> IceServers:
    return IceServers(Config(edge={"ice_servers": rows}).edge.ice_servers, ttl_s, logs.get())


# --- credentials


def test_credentials_are_those_of_a_known_secret() -> None:
    # As `openssl dgst -sha1 -hmac north -binary | base64` has it.
    made = mint("north", "alice", 1_700_000_000.9, 3600)
    assert made.username == "1700003600:alice"
    assert made.password == "wjwSXO2ch1B6VaLTLMy2Avn5O9o="


@pytest.mark.parametrize(
    "text", ["", "short", "fifteen-letters", "two words are no secret", "a-secret-of-two\nlines-of-letters", "ä" * 20]
)
def test_a_file_that_holds_no_secret_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"secret_file .*turn-secret: expected one line"):
        load(written(tmp_path, text))


def test_a_file_that_is_missing_or_no_text_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"secret_file .*nowhere: No such file"):
        load(tmp_path / "nowhere")
    (tmp_path / "odd").write_bytes(b"\xff" * 32)
    with pytest.raises(ConfigError, match=r"secret_file .*odd: this is no text"):
        load(tmp_path / "odd")


# --- what is told


def test_servers_of_one_secret_stand_together_and_all_get_credentials(tmp_path: Path) -> None:
    secret = str(written(tmp_path))
    told = servers(
        {"url": "stun:stun.example"},
        {"url": UDP, "secret_file": secret},
        {"url": TLS, "secret_file": secret},
        {"url": "turn:other.example", "username": "u", "credential": "p"},
    ).configuration("alice", 1000)
    first, second, third = told["iceServers"]
    assert (first, third) == (
        {"urls": ["stun:stun.example"]},
        {"urls": ["turn:other.example"], "username": "u", "credential": "p"},
    )
    assert (second["urls"], second["username"]) == ([UDP, TLS], "1600:alice")
    assert taken(SECRET, second["username"], second["credential"])
    assert told["ttl"] == 600


def test_nothing_says_that_credentials_end_where_none_do() -> None:
    row = {"url": "turn:other.example", "username": "u", "credential": "p"}
    assert servers(row).configuration("alice", 0) == {
        "iceServers": [{"urls": ["turn:other.example"], "username": "u", "credential": "p"}]
    }
    assert servers().configuration("alice", 0) == {"iceServers": []}


def test_a_new_secret_is_used_at_once_and_a_broken_file_stops_no_other(tmp_path: Path) -> None:
    one, other = written(tmp_path), written(tmp_path, "south-by-southeast", "other")
    ours = servers({"url": UDP, "secret_file": str(one)}, {"url": TLS, "secret_file": str(other)})
    assert not ours.refresh()
    one.write_text("x")
    other.write_text("west-by-northwest")
    assert ours.refresh()
    first, second = ours.configuration("alice", 0)["iceServers"]
    assert taken(SECRET, first["username"], first["credential"])
    assert taken("west-by-northwest", second["username"], second["credential"])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"url": "turn:turn.example"}, "name secret_file, or username and credential"),
        ({"url": "turn:turn.example", "username": "u"}, "name secret_file, or username and credential"),
        (
            {"url": "turn:turn.example", "username": "u", "credential": "p", "secret_file": "/x"},
            "name secret_file, or username and credential",
        ),
        ({"url": "turn:turn.example", "username": "u", "secret_file": "/x"}, "name secret_file, or"),
        ({"url": "stun:stun.example", "secret_file": "/x"}, "a STUN server asks for no credentials"),
        ({"url": "stun:stun.example?transport=udp"}, "match pattern"),
        ({"url": "turn:turn.example?transport=sctp", "secret_file": "/x"}, "match pattern"),
        ({"url": "turn://turn.example", "secret_file": "/x"}, "match pattern"),
        ({"url": "turn:user@turn.example", "secret_file": "/x"}, "match pattern"),
    ],
)
def test_a_server_that_no_browser_takes_is_no_configuration(row: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Config(edge={"ice_servers": [row]})


# --- over HTTP


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    secret = str(written(tmp_path))
    rows = [{"url": url, "secret_file": secret} for url in (UDP, TLS)]
    async with a_fake(tmp_path, ice_servers=rows, turn_ttl_s=120, calls_per_minute=6, ephemeral_calls_per_minute=2) as (
        edge,
        _,
    ):
        yield edge


async def asked(edge: Edge, headers: dict[str, str]) -> dict[str, Any]:
    async with edge.http.get(edge.url + ICE, headers=headers) as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
        told: dict[str, Any] = await response.json()
        return told


async def test_a_page_is_told_what_it_gives_to_its_connection(edge: Edge) -> None:
    before = time.time()
    told = await asked(edge, TOKEN)
    assert told["ttl"] == 120
    (server,) = told["iceServers"]
    assert set(server) == {"urls", "username", "credential"}
    assert server["urls"] == [UDP, TLS]
    ends = int(server["username"].partition(":")[0])
    assert int(before) + 120 <= ends <= time.time() + 120
    assert taken(SECRET, server["username"], server["credential"])


async def test_an_ephemeral_key_has_one_name_and_each_asking_of_an_api_key_another(edge: Edge) -> None:
    key = (await edge.secret())["value"]
    labels = [
        [(await asked(edge, headers))["iceServers"][0]["username"].partition(":")[2] for _ in range(2)]
        for headers in ({"Authorization": f"Bearer {key}"}, TOKEN)
    ]
    assert labels[0][0] == labels[0][1]
    assert len({labels[0][0], *labels[1]}) == 3
    assert all(labels[0] + labels[1])


async def test_credentials_are_for_who_may_call_and_as_often(edge: Edge) -> None:
    for headers in ({}, {"Authorization": "Bearer nobody"}):
        assert (await edge.error("GET", ICE, headers=headers))[0] == 401
    key = (await edge.secret())["value"]
    mine = {"Authorization": f"Bearer {key}"}
    for _ in range(2):
        await asked(edge, mine)
    status, headers, error = await edge.error("GET", ICE, headers=mine)
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    assert int(headers["Retry-After"]) > 0
    for _ in range(4):
        await asked(edge, TOKEN)
    assert (await edge.error("GET", ICE, headers=TOKEN))[0] == 429
    # Who has asked for credentials has begun no call.
    assert (await edge.place("v=0"))[0] == 201


async def test_whip_clients_are_told_by_links_before_and_with_the_answer(edge: Edge) -> None:
    async with edge.http.options(edge.url + "/whip/parrot") as response:
        assert (response.status, response.headers.getall("Link", [])) == (204, [])
    async with edge.http.options(edge.url + "/whip/parrot", headers=TOKEN) as response:
        assert response.status == 204
        before = response.headers.getall("Link")
    async with edge.http.post(edge.url + "/whip/parrot", data="v=0", headers=SDP) as response:
        assert response.status == 201
        after = response.headers.getall("Link")
    for links in (before, after):
        assert [link.partition(">")[0].lstrip("<") for link in links] == [UDP, TLS]
        for link in links:
            _, rel, username, credential, kind = link.split("; ")
            assert (rel, kind) == ('rel="ice-server"', 'credential-type="password"')
            assert taken(SECRET, username.split('"')[1], credential.split('"')[1])
    status, _, _ = await edge.error("OPTIONS", "/whip/parrot", headers={"Authorization": "Bearer nobody"})
    assert status == 401


async def test_without_servers_a_page_is_told_so(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, _):
        assert await asked(edge, TOKEN) == {"iceServers": []}
