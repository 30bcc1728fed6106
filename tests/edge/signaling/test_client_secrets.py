"""Ephemeral keys: what they carry, what they allow, and who made them."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from signaling_edge import CALLS, KEYS, OTHER_TOKEN, SDP, SECRETS, TOKEN, Edge, FakeTransceiver, a_fake, an_edge

from edge.apikeys import ApiKeys
from edge.signaling.ephemeral_keys import (
    MAX_SESSION_BYTES,
    MAX_TOKEN_BYTES,
    EphemeralKey,
    EphemeralKeys,
    ExpiredError,
    ForgedError,
)
from runtime import logs

NOW = 1_700_000_000.0
TOKENS = EphemeralKeys(KEYS.client_secrets())
GRANT = EphemeralKey("a" * 18, "parrot", {"type": "realtime", "instructions": "sing"}, int(NOW) + 600)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Edge, FakeTransceiver]]:
    async with a_fake(tmp_path) as both:
        yield both


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}", "Content-Type": "application/sdp"}


# --- the key itself ---


def test_a_key_holds_what_was_put_into_it() -> None:
    assert TOKENS.open(TOKENS.make(GRANT), NOW) == GRANT


def test_every_edge_of_the_cluster_opens_it_also_after_the_ufrag_keys_have_changed() -> None:
    later = replace(KEYS, ufrag={2: bytes(16)}, sealing=2)
    assert EphemeralKeys(later.client_secrets()).open(TOKENS.make(GRANT), NOW) == GRANT


def test_another_cluster_does_not_and_the_link_secret_is_not_the_key_itself() -> None:
    value = TOKENS.make(GRANT)
    for secret in (replace(KEYS, link=bytes(31) + b"\1").client_secrets(), KEYS.link):
        with pytest.raises(ForgedError):
            EphemeralKeys(secret).open(value, NOW)


def test_it_expires_on_the_second() -> None:
    value = TOKENS.make(GRANT)
    assert TOKENS.open(value, GRANT.expires_at - 0.001) == GRANT
    with pytest.raises(ExpiredError):
        TOKENS.open(value, GRANT.expires_at)


def test_nobody_reads_the_session_in_it_and_it_needs_no_escape_in_a_header() -> None:
    value = TOKENS.make(GRANT)
    assert "sing" not in value
    assert value.startswith("ek_")
    assert value.replace("_", "").replace("-", "").isalnum()


def test_no_key_that_was_changed_or_cut_is_opened() -> None:
    value = TOKENS.make(GRANT)
    changed = [value[:i] + ("A" if value[i] != "A" else "B") + value[i + 1 :] for i in range(3, len(value) - 1)]
    cut = [value[:i] for i in range(len(value))]
    others = [value + "=", value + "A", value + "\n", value[3:], "ek_", "ek_ " + value[3:], value + "!", "é" * 9]
    for forged in changed + cut + others:
        with pytest.raises(ForgedError):
            TOKENS.open(forged, NOW)


def test_the_largest_session_fits_and_one_more_byte_does_not() -> None:
    noise = random.Random(1)
    text = "".join(
        noise.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&()*+,-./:;<=>?@[]^_`{|}~")
        for _ in range(MAX_SESSION_BYTES - len('{"i":""}'))
    )
    largest = replace(GRANT, session={"i": text})
    value = TOKENS.make(largest)
    assert len(value) <= MAX_TOKEN_BYTES
    assert TOKENS.open(value, NOW) == largest
    with pytest.raises(ValueError, match="larger than"):
        TOKENS.make(replace(GRANT, session={"i": text + "x"}))


# --- making one ---


async def test_a_secret_is_made_with_what_was_asked_for(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    session = {"type": "realtime", "model": "parrot", "instructions": "sing"}
    made = await edge.secret(expires_after={"anchor": "created_at", "seconds": 60}, session=session)
    token = TOKENS.open(made["value"], 0)
    assert (token.model, token.session, token.expires_at) == ("parrot", session, made["expires_at"])
    assert session.items() <= made["session"].items()
    default = await edge.secret()
    assert 530 <= default["expires_at"] - made["expires_at"] <= 600


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[" * 60000, "body"),
        (b'{"session": {"x": NaN}}', "body"),
        (b'{"session": 5}', "session"),
        (b'{"session": {"type": "other"}}', "session.type"),
        (b'{"session": {"type": []}}', "session.type"),
        (b'{"session": {"model": 5}}', "session.model"),
        (b'{"session": {"model": "a\\u0000b"}}', "session.model"),
        (b'{"session": {"x": "\\ud800"}}', "session"),
        (b'{"session": {"x": 1' + b"0" * 40 + b"}}", "session"),
        (b'{"session": {"x": ' + b"[" * 600 + b"]" * 600 + b"}}", "session"),
        (b'{"session": {"x": "' + b"y" * MAX_SESSION_BYTES + b'"}}', "session"),
        (b'{"expires_after": {"seconds": 9}}', "expires_after.seconds"),
        (b'{"expires_after": {"seconds": 7201}}', "expires_after.seconds"),
        (b'{"expires_after": {"seconds": "60"}}', "expires_after.seconds"),
        (b'{"expires_after": {"anchor": "now"}}', "expires_after.anchor"),
        (b'{"expires_after": 5}', "expires_after"),
    ],
)
async def test_what_cannot_be_made_is_400_and_names_the_field(
    both: tuple[Edge, FakeTransceiver], body: bytes, param: str
) -> None:
    headers = {**TOKEN, "Content-Type": "application/json"}
    status, _, error = await both[0].error("POST", SECRETS, data=body, headers=headers)
    assert (status, error["param"]) == (400, param)


async def test_an_ephemeral_key_makes_no_other(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    made = await edge.secret()
    status, _, error = await edge.error("POST", SECRETS, json={}, headers={"Authorization": f"Bearer {made['value']}"})
    assert (status, error["code"]) == (401, "invalid_api_key")


# --- using one ---


async def test_its_model_and_session_are_the_calls_as_often_as_it_is_used(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    session = {"type": "realtime", "model": "parrot", "instructions": "sing"}
    made = await edge.secret(session=session)
    for query in ("", "?model=parrot"):
        assert (await edge.place("v=0\r\n", query=query, **bearer(made["value"])))[0] == 201
        assert (fake.said["session.offer"][-1]["agent"], fake.said["session.offer"][-1]["session"]) == (
            "parrot",
            session,
        )


async def test_the_session_beside_the_offer_does_not_override_it(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    made = await edge.secret(session={"type": "realtime", "instructions": "sing"})
    form = aiohttp.FormData()
    form.add_field("sdp", "v=0\r\n", content_type="application/sdp")
    form.add_field("session", json.dumps({"instructions": "shout", "voice": "low"}), content_type="application/json")
    headers = {"Authorization": f"Bearer {made['value']}"}
    async with edge.http.post(edge.url + CALLS, data=form, headers=headers) as response:
        assert response.status == 201
    session = {"type": "realtime", "instructions": "sing", "voice": "low"}
    assert fake.said["session.offer"][-1]["session"] == session


async def test_it_is_for_its_own_model_alone(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    made = await edge.secret(session={"model": "parrot"})
    form = aiohttp.FormData({"session": '{"model": "echo"}'})
    form.add_field("sdp", "v=0\r\n", content_type="application/sdp")
    for options in ({"data": "v=0", "params": {"model": "echo"}}, {"data": form}):
        headers = bearer(made["value"])
        if "params" not in options:
            del headers["Content-Type"]
        status, _, error = await edge.error("POST", CALLS, headers=headers, **options)
        assert (status, error["code"], error["param"]) == (403, "model_not_found", "model")
    assert await edge.refused_socket("?model=echo", headers=bearer(made["value"])) == 403
    assert fake.sessions == 0


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (lambda value: value[:-9], "invalid_api_key"),
        (lambda value: value[:40] + ("A" if value[40] != "A" else "B") + value[41:], "invalid_api_key"),
        (lambda _: "ek_" + "A" * 23000, "invalid_api_key"),
        (lambda _: EphemeralKeys(bytes(32)).make(GRANT), "invalid_api_key"),
        (lambda _: TOKENS.make(replace(GRANT, expires_at=1)), "token_expired"),
        # The API key that made it has been taken out of the file.
        (lambda _: TOKENS.make(replace(GRANT, expires_at=1 << 40)), "invalid_api_key"),
    ],
    ids=["cut", "changed", "long", "another cluster", "expired", "its key is gone"],
)
async def test_a_bad_one_is_401(both: tuple[Edge, FakeTransceiver], forge: Any, code: str) -> None:
    edge, fake = both
    value = forge((await edge.secret())["value"])
    status, headers, error = await edge.error("POST", CALLS, data="v=0", headers=bearer(value))
    assert (status, error["code"]) == (401, code)
    assert headers["WWW-Authenticate"] == "Bearer"
    assert await edge.refused_socket("?model=parrot", headers=bearer(value)) == 401
    assert fake.sessions == 0


async def test_it_ends_the_calls_that_it_placed_and_no_others(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    mine, other = (await edge.secret())["value"], (await edge.secret())["value"]
    _, placed, _ = await edge.place("v=0", **bearer(mine))
    _, by_key, _ = await edge.place("v=0")
    for value, location in ((other, placed["Location"]), (mine, by_key["Location"])):
        for method, path in (("DELETE", location), ("POST", location + "/hangup")):
            status, _, error = await edge.error(method, path, headers=bearer(value))
            assert (status, error["code"]) == (404, "call_id_not_found")
    assert fake.sessions == 2
    async with edge.http.post(edge.url + placed["Location"] + "/hangup", headers=bearer(mine)) as response:
        assert response.status == 200
    async with edge.http.delete(edge.url + by_key["Location"], headers=OTHER_TOKEN) as response:
        assert response.status == 200


# --- the body of a call ---


async def test_an_offer_may_come_with_its_session(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    for filename in (None, "offer"):
        form = aiohttp.FormData()
        form.add_field("sdp", "v=0\r\n", content_type="application/sdp", filename=filename)
        form.add_field("session", '{"type": "realtime", "model": "echo"}', filename=filename)
        async with edge.http.post(edge.url + CALLS + "?dcid=7", data=form, headers=TOKEN) as response:
            assert response.status == 201
        said = fake.said["session.offer"][-1]
        assert (said["offer"], said["agent"]) == ("v=0\r\n", "echo")
        assert (said["session"], said["dcid"]) == ({"type": "realtime", "model": "echo"}, 7)


async def test_a_call_without_a_session_says_nothing_of_one(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    assert (await edge.place("v=0"))[0] == 201
    assert "session" not in fake.said["session.offer"][-1]


@pytest.mark.parametrize("dcid", ["", "-1", "65535", "x", "1.0", "999999", "٣"])
async def test_a_channel_id_that_is_none_is_400(both: tuple[Edge, FakeTransceiver], dcid: str) -> None:
    status, _, error = await both[0].error("POST", CALLS, params={"dcid": dcid}, data="v=0", headers=SDP)
    assert (status, error["param"]) == (400, "dcid")


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "multipart/form-data", 400),
        (b"nonsense", "multipart/form-data; boundary=x", 400),
        (b"--x\r\n\r\nv=0\r\n--x--\r\n", "multipart/form-data; boundary=x", 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="session"\r\n\r\n{}\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
        ),
        (b'--x\r\nContent-Disposition: form-data; name="sdp"\r\n\r\nv=0', "multipart/form-data; boundary=x", 400),
        (b"v=0" * (4 << 20), "application/sdp", 413),
        (
            b'--x\r\nContent-Disposition: form-data; name="sdp"\r\n\r\n' + b"v" * (10 << 20),
            "multipart/form-data; boundary=x",
            413,
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="sdp"; filename="f"\r\n\r\n' + b"v" * (10 << 20),
            "multipart/form-data; boundary=x",
            413,
        ),
    ],
)
async def test_a_body_that_is_broken_or_huge_is_refused(
    both: tuple[Edge, FakeTransceiver], body: bytes, content_type: str, status: int
) -> None:
    edge, fake = both
    answered, _, _ = await edge.error(
        "POST", CALLS, data=io.BytesIO(body), headers={**TOKEN, "Content-Type": content_type}
    )
    assert answered == status
    assert fake.sessions == 0


async def test_junk_in_headers_is_refused_in_the_same_shape(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, _ = both
    for headers in ({"Authorization": "Bearer \u00ff\u2028"}, {"Authorization": "ek_", "Origin": "x" * 2000}):
        assert (await edge.error("POST", CALLS, data="v=0", headers=headers))[0] == 401


# --- the list of API keys ---


async def test_a_key_that_is_added_is_taken_and_one_that_is_removed_is_not(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\ntwo\n")
    keys = ApiKeys(tmp_path / "keys", logs.get())
    one, two = keys.find("one"), keys.find("two")
    assert one
    assert two
    assert one != two
    assert not keys.refresh()
    (tmp_path / "keys").write_text("two\nthree\n")
    assert keys.refresh()
    assert keys.find("one") is None
    assert not keys.has(one)
    assert keys.find("two") == two
    assert keys.find("three")
    for broken in ("", "# nothing\n"):
        (tmp_path / "keys").write_text(broken)
        assert not keys.refresh()
        assert keys.find("two") == two
    (tmp_path / "keys").unlink()
    assert not keys.refresh()
    assert keys.find("three")


async def test_an_edge_without_transceivers_refuses_calls_and_makes_secrets(tmp_path: Path) -> None:
    async with an_edge(tmp_path) as edge:
        assert (await edge.secret())["value"].startswith("ek_")
        status, _, error = await edge.error("POST", CALLS, data="v=0", headers=SDP)
        assert (status, error["code"]) == (503, "no_transceiver")


async def test_the_largest_key_fits_into_a_header(both: tuple[Edge, FakeTransceiver]) -> None:
    edge, fake = both
    session = {"i": random.Random(2).randbytes(7 << 10).hex() + random.Random(3).randbytes(1000).hex()}
    value = (await edge.secret(session=session))["value"]
    assert len(value) > 8190  # where servers commonly stop reading
    assert (await edge.place("v=0", **bearer(value)))[0] == 201
    assert fake.said["session.offer"][-1]["session"] == session
    protocols = ("realtime", f"openai-insecure-api-key.{value}")
    assert await edge.refused_socket("", protocols=protocols) in (101, 503)  # the link of events may not be up yet
