"""Clients' mistakes: each is a 4xx that names it, from a real transceiver behind a real edge."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from edge_run import RealEdge, offer
from signaling_edge import CALLS, DEADLINE_S, SDP, SECRETS, TOKEN, Edge, a_fake

from edge.signaling.bodies import merged

WS = "/v1/realtime"
SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 24}


def with_session(session: Any) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("sdp", offer(), content_type="application/sdp")
    form.add_field("session", json.dumps(session), content_type="application/json")
    return form


SESSIONS: list[tuple[dict[str, Any], str]] = [
    ({"voice": "alloy"}, "session.voice"),
    ({"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}}}, "turn_detection"),
    ({"audio": {"output": {"voice": 5}}}, "session.audio.output.voice"),
    ({"audio": []}, "session.audio"),
    ({"instructions": 5}, "session.instructions"),
    ({"output_modalities": ["smell"]}, "session.output_modalities[0]"),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "session.tools[0].type"),
    ({"tools": [{"type": "web_search"}]}, "session.tools[0].type"),
    ({"type": "transcription"}, "session.type"),
    ({"type": "other"}, "session.type"),
]


@pytest.mark.parametrize(("session", "param"), SESSIONS, ids=lambda value: str(value)[:40])
async def test_a_session_that_is_none_is_400_where_it_is_used_and_where_a_key_is_made_of_it(
    edge: RealEdge, session: dict[str, Any], param: str
) -> None:
    for path, options in ((CALLS, {"data": with_session(session)}), (SECRETS, {"json": {"session": session}})):
        status, _, error = await edge.error("POST", path, headers=TOKEN, **options)
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert param in error["param"]
        assert error["code"] in ("invalid_value", "invalid_type", "unknown_parameter", "missing_required_parameter")
    assert edge.transceivers[1].sessions == 0


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("invalid_value", 400, "invalid_request_error"),
        ("invalid_type", 400, "invalid_request_error"),
        ("unknown_parameter", 400, "invalid_request_error"),
        ("missing_required_parameter", 400, "invalid_request_error"),
        ("unsupported_content_type", 400, "invalid_request_error"),
        ("string_above_max_length", 400, "invalid_request_error"),
        ("invalid_offer", 400, "invalid_request_error"),
        ("locked", 403, "invalid_request_error"),
        ("model_not_found", 404, "invalid_request_error"),
        ("rate_limit_exceeded", 429, "requests"),
        ("full", 503, "server_error"),
        ("name_taken", 503, "server_error"),
        ("surprise", 502, "server_error"),
        ("invalid_request", 502, "server_error"),
        ("internal_error", 500, "server_error"),
    ],
)
async def test_each_refusal_of_a_transceiver_has_its_status(tmp_path: Path, code: str, status: int, kind: str) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        fake.refusal = (code, "no")
        answered, headers, error = await edge.error("POST", CALLS, data="v=0", headers=SDP)
        assert (answered, error["type"], error["code"], error["param"]) == (status, kind, code, "model")
        assert ("Retry-After" in headers) is (status in (429, 503))


@pytest.mark.parametrize("intent", ["transcription", "translation", "x y"])
async def test_another_kind_of_session_is_refused_clearly(edge: RealEdge, intent: str) -> None:
    for method, path, headers in (
        ("POST", CALLS, SDP),
        ("POST", "/whip/parrot", SDP),
        ("GET", WS, {**TOKEN, **SOCKET}),
    ):
        status, _, error = await edge.error(method, path, params={"intent": intent}, data=offer(), headers=headers)
        assert (status, error["code"], error["param"]) == (400, "invalid_value", "intent")
    assert edge.transceivers[1].sessions == 0


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"])
async def test_a_header_of_a_handshake_that_is_no_text_is_400(edge: RealEdge, name: str) -> None:
    assert await raw_status(edge, {**TOKEN, **SOCKET, name: SOCKET[name] + "?"}) == 400


async def test_an_expectation_that_is_no_text_is_417(edge: RealEdge) -> None:
    assert await raw_status(edge, {"Expect": "?"}) == 417


async def raw_status(edge: RealEdge, headers: dict[str, str]) -> int:
    """The status for a request in which each question mark is a byte that is no UTF-8."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode().replace(b"?", b"\x8c")
    reader, writer = await asyncio.open_connection(*edge.address)
    writer.write(b"GET %s HTTP/1.1\r\nHost: edge\r\n%s\r\n" % (WS.encode(), head))
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), DEADLINE_S)
    writer.close()
    return int(answer.split()[1])


async def test_a_key_of_a_websocket_beyond_ascii_is_400(edge: RealEdge) -> None:
    headers = {**TOKEN, **SOCKET, "Sec-WebSocket-Key": "é" * 24}
    status, _, error = await edge.error("GET", WS, headers=headers)
    assert (status, error["code"], error["param"]) == (400, "invalid_handshake", "Sec-WebSocket-Key")
    assert edge.transceivers[1].sessions == 0


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?model=parrot&model=echo", "model"),
        ("?dcid=1&dcid=2", "dcid"),
        ("?model=a%20b", "model"),
        ("?model=%C3%A9", "model"),
        ("?model=%FF", "model"),
        ("?model=%00", "model"),
        ("?model=" + "m" * 129, "model"),
        ("?dcid=%31%2C", "dcid"),
    ],
)
async def test_an_odd_query_is_400(edge: RealEdge, query: str, param: str) -> None:
    url = aiohttp.client.URL(edge.url + CALLS + query, encoded=True)
    async with edge.http.post(url, data=offer(), headers=SDP) as response:
        error = (await response.json())["error"]
        assert (response.status, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize("path", [WS + "?call_id=a&call_id=b", WS + "?model=a&model=b"])
async def test_a_socket_with_two_of_one_is_400(edge: RealEdge, path: str) -> None:
    assert (await edge.error("GET", path, headers={**TOKEN, **SOCKET}))[0] == 400


@pytest.mark.parametrize(
    "parts",
    [
        [("sdp", "v=0"), ("sdp", "v=0")],
        [("sdp", "v=0"), ("session", "{}"), ("session", "{}")],
        [("session", "{}")],
        [("sdp", "v=0"), ("session", "")],
        [("sdp", "v=0"), ("session", "[]")],
        [("sdp", "v=0"), ("session", '{"type": "realtime", "type": "realtime"}')],
        [("sdp", "v=0"), ("session", '{"max_output_tokens": 1e999}')],
        [("sdp", "v=0"), ("session", '{"max_output_tokens": -Infinity}')],
        [("sdp", ""), ("session", "{}")],
        [("offer", "v=0")],
        [('sdp"; filename="f', "v=0\n"), ("session", "{")],
        [("sdp", "v=0"), ("session\"; filename*=\"utf-8''%ff", "{")],
        [],
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam")
async def test_odd_parts_are_400(edge: RealEdge, parts: list[tuple[str, str]]) -> None:
    text = "".join(f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{value}\r\n' for n, value in parts)
    headers = {**TOKEN, "Content-Type": "multipart/form-data; boundary=x"}
    status, _, error = await edge.error("POST", CALLS, data=f"{text}--x--\r\n", headers=headers)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["param"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(({"Content-Encoding": encoding}, 415) for encoding in ("br", "gzip", "deflate", "zstd", "x")),
        ({"Content-Type": "multipart/form-data; boundary=" + "b" * 100}, 400),
        ({"Content-Type": "multipart/mixed; boundary=x"}, 415),
        ({"Expect": "tea"}, 417),
    ],
    ids=str,
)
async def test_odd_headers_of_a_body_are_refused(edge: RealEdge, headers: dict[str, str], status: int) -> None:
    answered, _, error = await edge.error("POST", CALLS, data=offer(), headers={**SDP, **headers})
    assert (answered, error["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize(
    "part",
    [
        b'Content-Disposition: form-data; name="sdp"\r\nContent-Encoding: gzip\r\n\r\nabc',
        b'Content-Disposition: form-data; name="sdp"\r\nContent-Transfer-Encoding: base64\r\n\r\n!',
        b'Content-Disposition: form-data; name="sdp"\r\nContent-Transfer-Encoding: nonsense\r\n\r\nv=0',
        b'Content-Disposition: form-data; name="sdp"\r\nContent-Type: text/plain; charset=nonsense\r\n\r\nv=0',
        b'Content-Disposition: form-data; name="sdp"\r\n\r\n\xff',
        b"Content-Disposition: \xff\r\n\r\nv=0",
        b"Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nz\r\n--y--",
        b"X: " + b"y" * 9000 + b"\r\n\r\nv=0",
        b"\r\nv=0",
        b"",
    ],
    ids=lambda value: repr(value)[:60],
)
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam")
async def test_an_odd_part_is_400(edge: RealEdge, part: bytes) -> None:
    headers = {**TOKEN, "Content-Type": "multipart/form-data; boundary=x"}
    body = b"--x\r\n" + part + b"\r\n--x--\r\n"
    status, _, error = await edge.error("POST", CALLS, data=body, headers=headers)
    assert (status, error["type"]) == (400, "invalid_request_error")


async def test_an_unknown_expectation_has_the_shape_of_any_error_wherever_it_is(edge: RealEdge) -> None:
    for path in (CALLS, "/nowhere", "/healthz"):
        assert (await edge.error("POST", path, headers={**TOKEN, "Expect": "tea"}))[0] == 417


async def test_what_a_client_accepts_and_adds_does_not_matter(edge: RealEdge) -> None:
    for accept in ("application/sdp", "text/html", "x;;q=,", ""):
        assert (await edge.place(offer(), query="?utm_source=x", Accept=accept))[0] == 201


async def test_head_and_options_are_answered_as_any_method_is(edge: RealEdge) -> None:
    for path, status in ((WS, 405), (CALLS, 405), ("/nowhere", 404), ("/healthz", 200), ("/openapi.json", 200)):
        async with edge.http.head(edge.url + path) as response:
            assert response.status == status
    for path, status in ((CALLS, 204), (WS, 204), ("/nowhere", 404)):
        async with edge.http.options(edge.url + path, headers={"Origin": "https://a.example"}) as response:
            assert response.status == status
            assert "Access-Control-Allow-Origin" in response.headers


# --- ephemeral keys ---


async def made(edge: Edge | RealEdge, **wish: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await edge.secret(**wish))['value']}"}


def test_what_a_key_says_of_a_session_stands_at_every_depth() -> None:
    key = {"audio": {"output": {"voice": "low"}, "input": {"turn_detection": None}}, "tools": []}
    asked = {
        "instructions": "shout",
        "tools": [{"name": "f"}],
        "audio": {
            "output": {"voice": "high", "speed": 1.5},
            "input": {"turn_detection": {"type": "server_vad"}, "format": {"type": "audio/pcmu"}},
        },
    }
    assert merged(asked, key) == {
        "instructions": "shout",
        "tools": [],
        "audio": {
            "output": {"voice": "low", "speed": 1.5},
            "input": {"turn_detection": None, "format": {"type": "audio/pcmu"}},
        },
    }
    for odd in (5, None, [], {"output": 5}):
        assert merged({"audio": odd}, key)["audio"]["output"] == {"voice": "low"}


@pytest.mark.parametrize(
    ("locked", "told"),
    [(["instructions"], ["instructions"]), (True, ["instructions"]), (["tools"], ["tools"])],
    ids=str,
)
async def test_what_the_minter_locked_is_told_to_the_transceiver_and_is_not_the_holders_to_replace(
    tmp_path: Path, locked: Any, told: list[str]
) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        answer = await edge.secret(session={"model": "parrot", "instructions": "sing"}, locked=locked)
        assert sorted(answer["locked"]) == told
        key = {"Authorization": f"Bearer {answer['value']}"}
        status, _, error = await edge.error("POST", CALLS, data=with_session({told[0]: "x"}), headers=key)
        assert (status, error["code"], error["param"]) == (403, "locked", f"session.{told[0]}")
        assert (await edge.place("v=0", **key))[0] == 201
        assert sorted(fake.said["session.offer"][-1]["locked"]) == told
        while await edge.refused_socket("", headers=key) != 101:
            pass
        assert sorted(fake.said["session.open"][-1]["locked"]) == told


@pytest.mark.parametrize(
    ("locked", "param"),
    [
        (["instruction"], "locked[0]"),
        (["tools", "no such part"], "locked"),
        ("tools", "locked"),
        ([5], "locked"),
        (1, "locked"),
        (["tools"] * 33, "locked"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_lock_on_what_is_no_part_of_a_session_makes_no_key(edge: RealEdge, locked: Any, param: str) -> None:
    status, _, error = await edge.error("POST", SECRETS, json={"session": {}, "locked": locked}, headers=TOKEN)
    assert (status, error["param"]) == (400, param)


async def test_a_key_is_made_while_no_transceiver_can_look_at_its_session(edge: RealEdge) -> None:
    await edge.stop(1)
    await edge.ready()
    key = await made(edge, session={"voice": "alloy"})
    edge.start(1)
    await edge.ready(1)
    status, _, error = await edge.error("POST", CALLS, data=offer(), headers={**SDP, **key})
    assert (status, error["param"]) == (400, "session.voice")


# --- which agents a key may use ---


async def refusals(edge: Edge, model: str, headers: dict[str, str]) -> list[int]:
    """Of a call, of one with a session, of WHIP, of a socket, and of an ephemeral key."""
    sdp = {**headers, "Content-Type": "application/sdp"}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{CALLS}?model={model}", {"data": "v=0", "headers": sdp}),
        ("POST", CALLS, {"data": with_session({"model": model}), "headers": headers}),
        ("POST", f"/whip/{model}", {"data": "v=0", "headers": sdp}),
        ("GET", f"{WS}?model={model}", {"headers": {**headers, **SOCKET}}),
        ("POST", SECRETS, {"json": {"session": {"model": model}}, "headers": headers}),
    ]
    found = []
    for method, path, options in asked:
        status, _, error = await edge.error(method, path, **options)
        assert (error["code"], error["param"]) in {("model_not_found", "model"), ("model_not_found", "session.model")}
        found.append(status)
    return found


async def test_a_key_uses_the_agents_behind_it_or_those_of_the_configuration(tmp_path: Path) -> None:
    keys = "correct horse models=offline,parrot # people\nbattery staple\nanything models=*\n"
    async with a_fake(tmp_path, api_keys_text=keys, models=("echo", "parrot")) as (edge, fake):
        assert await refusals(edge, "echo", TOKEN) == [404] * 5
        assert await refusals(edge, "offline", {"Authorization": "Bearer battery staple"}) == [404] * 5
        assert "session.offer" not in fake.said
        for token, model, agent in (
            ("correct horse", "parrot", "parrot"),
            ("correct horse", "", "offline"),
            ("battery staple", "echo", "echo"),
            ("battery staple", "", ""),
            ("anything", "pipeline", "pipeline"),
            ("anything", "", ""),
        ):
            assert (await edge.place("v=0", query=f"?model={model}", Authorization=f"Bearer {token}"))[0] == 201
            assert fake.said["session.offer"][-1]["agent"] == agent


async def test_an_ephemeral_key_uses_no_agent_that_its_api_key_may_not_use_now(tmp_path: Path) -> None:
    async with a_fake(tmp_path, api_keys_text="correct horse models=offline,parrot\n") as (edge, _):
        bound = await made(edge, session={"model": "parrot"})
        free = await made(edge)
        assert (await edge.place("v=0", query="?model=parrot", **free))[0] == 201
        assert (await edge.error("POST", CALLS + "?model=echo", data="v=0", headers={**SDP, **free}))[0] == 404
        (tmp_path / "api-keys").write_text("correct horse models=offline\n")
        assert edge.api_keys.refresh()
        status, _, error = await edge.error("POST", CALLS, data="v=0", headers={**SDP, **bound})
        assert (status, error["code"]) == (404, "model_not_found")


async def test_without_a_word_in_the_configuration_no_agent_reaches_out_or_comes_of_another_package(
    tmp_path: Path,
) -> None:
    async with a_fake(tmp_path) as (edge, _):
        for model in ("pipeline", "realtime", "another"):
            assert await refusals(edge, model, TOKEN) == [404] * 5
