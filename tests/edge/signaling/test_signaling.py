"""Signaling over real HTTP, with a real transceiver behind a real link, or a ROUTER that plays one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from edge_run import RealEdge, a_real_edge, offer
from signaling_edge import CALLS, KEYS, MEDIA, SDP, TOKEN, a_fake
from waiting import eventually
from wiring import Said, heard, raw

from caller.offer import parse_answer
from edge import apikeys
from edge.signaling.bodies import MAX_BODY_BYTES
from runtime.errors import ConfigError
from wire import link, ufrag

# --- a call ---


async def test_an_offer_is_answered_with_201_and_a_relative_location(edge: RealEdge) -> None:
    status, headers, sdp = await edge.place(offer())
    assert status == 201
    assert headers["Content-Type"].partition(";")[0] == "application/sdp"
    answer = parse_answer(sdp)
    assert answer.address == MEDIA
    assert headers["Location"] == f"{CALLS}/{ufrag.call_id(answer.ufrag)}"
    assert edge.transceivers[1].sessions == 1


@pytest.mark.parametrize("content_type", ["application/sdp", "application/sdp; charset=utf-8", "Application/SDP"])
async def test_the_content_type_may_have_parameters(edge: RealEdge, content_type: str) -> None:
    assert (await edge.place(offer(), **{"Content-Type": content_type}))[0] == 201


@pytest.mark.parametrize("authorization", ["Bearer correct horse", "bearer correct horse", "BEARER  battery staple "])
async def test_every_token_of_the_list_is_taken(edge: RealEdge, authorization: str) -> None:
    assert (await edge.place(offer(), Authorization=authorization))[0] == 201


async def test_a_call_may_name_its_agent(edge: RealEdge) -> None:
    assert (await edge.place(offer(), query="?model=echo"))[0] == 201


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_call_is_ended_once(edge: RealEdge, method: str) -> None:
    _, headers, _ = await edge.place(offer())
    path = headers["Location"] + ("/hangup" if method == "POST" else "")
    async with edge.http.request(method, edge.url + path, headers=TOKEN) as response:
        assert response.status == 200
    status, _, error = await edge.error(method, path, headers=TOKEN)
    assert (status, error["code"]) == (404, "call_id_not_found")


# --- what is refused ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer correct"},
        {"Authorization": "Bearer # people"},
        {"Authorization": "correct horse"},
        {"Authorization": "Basic Y29ycmVjdDpob3JzZQ=="},
        {"Authorization": "Bearer corr\u00e9ct horse"},
        {"Authorization": "Bearer " + "x" * 4000},
    ],
)
async def test_without_a_token_of_the_list_nothing_is_done(edge: RealEdge, headers: dict[str, str]) -> None:
    for method, path in (("POST", CALLS), ("POST", f"{CALLS}/rtc_x/hangup"), ("DELETE", f"{CALLS}/rtc_x")):
        status, answered, error = await edge.error(
            method, path, data=offer(), headers={"Content-Type": "application/sdp", **headers}
        )
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert answered["WWW-Authenticate"] == "Bearer"
        assert "horse" not in error["message"]
    assert edge.transceivers[1].sessions == 0


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream", "x"])
async def test_another_content_type_is_415(edge: RealEdge, content_type: str) -> None:
    status, _, error = await edge.error("POST", CALLS, data=offer(), headers={**TOKEN, "Content-Type": content_type})
    assert (status, error["param"]) == (415, "content-type")
    assert "application/sdp" in error["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "v=0"),
        (b"{}", "v=0"),
        (b"v=0\r\nm=nonsense", "m=nonsense is not a media line"),
        (b"\xff\xfe", "UTF-8"),
        (b"v=0\r\ns=-\r\nt=0 0\r\n", "m=audio"),
        (offer().replace("opus", "G722").encode(), "opus/48000/2"),
        (offer().replace("a=ice-pwd", "a=x").encode(), "a=ice-pwd"),
    ],
    ids=["empty", "json", "malformed", "not text", "no audio", "no opus", "no password"],
)
async def test_an_offer_that_cannot_be_answered_is_400_and_says_why(edge: RealEdge, body: bytes, named: str) -> None:
    status, _, error = await edge.error("POST", CALLS, data=body, headers=SDP)
    assert (status, error["code"], error["param"]) == (400, "invalid_offer", "sdp")
    assert named in error["message"]
    assert edge.transceivers[1].sessions == 0


async def test_a_body_that_is_too_large_is_413(edge: RealEdge) -> None:
    large = offer().encode() + b"a=x\r\n" * (MAX_BODY_BYTES // 5)
    status, _, error = await edge.error("POST", CALLS, data=large, headers=SDP)
    assert (status, error["param"]) == (413, "body")
    assert str(MAX_BODY_BYTES) in error["message"]


async def test_the_largest_body_is_taken(edge: RealEdge) -> None:
    start = offer().encode()
    whole = start + b"a=x" + b"y" * (MAX_BODY_BYTES - len(start) - 5) + b"\r\n"
    assert len(whole) == MAX_BODY_BYTES
    assert (await edge.place(whole))[0] == 201


async def test_an_agent_that_is_not_there_is_404(edge: RealEdge) -> None:
    status, _, error = await edge.error("POST", CALLS + "?model=gpt", data=offer(), headers=SDP)
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "parrot" in error["message"]


@pytest.mark.parametrize(
    "call",
    [
        "rtc_",
        "rtc_short",
        "nonsense",
        "%00",
        "rtc_" + "A" * 24,
        "rtc_" + "%C3%A9" * 24,
        ufrag.call_id(ufrag.seal(1, 1, bytes(16))),
        ufrag.call_id(ufrag.seal(1, 1, KEYS.ufrag[1])),
    ],
    ids=["empty", "short", "nonsense", "nul", "unsealed", "not ascii", "another key", "never placed"],
)
async def test_an_unknown_call_is_404(edge: RealEdge, call: str) -> None:
    for method, path in (("POST", f"{CALLS}/{call}/hangup"), ("DELETE", f"{CALLS}/{call}")):
        status, _, error = await edge.error(method, path, headers=TOKEN)
        assert (status, error["code"], error["param"]) == (404, "call_id_not_found", "call_id")


@pytest.mark.parametrize("path", ["/", "/v1", CALLS + "/", CALLS + "/rtc_x/nothing", "/../etc/passwd"])
async def test_an_unknown_path_is_404(edge: RealEdge, path: str) -> None:
    assert (await edge.error("POST", path, headers=TOKEN))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", CALLS, {"GET", "POST"}),
        ("PUT", CALLS, {"GET", "POST"}),
        ("GET", f"{CALLS}/rtc_x", {"DELETE"}),
        ("PUT", "/healthz", None),
    ],
)
async def test_another_method_is_405_and_says_which_is_allowed(
    edge: RealEdge, method: str, path: str, allowed: set[str] | None
) -> None:
    status, headers, _ = await edge.error(method, path, headers=TOKEN)
    assert status == 405
    assert set(headers["Allow"].split(",")) == (allowed or {"GET", "HEAD"})


# --- transceivers that come and go ---


async def test_without_a_transceiver_a_call_is_503_and_works_when_it_is_back(edge: RealEdge) -> None:
    _, headers, _ = await edge.place(offer())
    await edge.stop(1)
    await edge.ready()
    for method, path in (("POST", CALLS), ("DELETE", headers["Location"])):
        status, answered, error = await edge.error(method, path, data=offer(), headers=SDP)
        assert (status, error["code"]) == (503, "transceiver_away")
        assert int(answered["Retry-After"]) > 0
    edge.start(1)
    await edge.ready(1)
    assert (await edge.place(offer()))[0] == 201
    # The old call went with the old process.
    status, _, error = await edge.error("DELETE", headers["Location"], headers=TOKEN)
    assert (status, error["code"]) == (404, "call_id_not_found")


async def test_readyz_says_which_transceiver_is_away_and_healthz_does_not_care(edge: RealEdge) -> None:
    await edge.stop(1)
    await edge.ready()
    async with edge.http.get(edge.url + "/readyz") as response:
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert await response.json() == {"ready": False, "transceivers": {"1": False}}
    async with edge.http.get(edge.url + "/healthz") as response:
        assert response.status == 200


async def test_strangers_who_ask_whether_it_is_ready_keep_no_transceiver_busy(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, fake):
        before = fake.counts["health"]

        async def ask() -> int:
            async with edge.http.get(edge.url + "/readyz") as response:
                return response.status

        started = time.monotonic()
        assert set(await asyncio.gather(*(ask() for _ in range(300)))) == {200}
        assert fake.counts["health"] - before <= 2 + 10 * (time.monotonic() - started)


async def test_a_full_transceiver_is_503(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1) as edge:
        edge.start(1, max_sessions=2)
        await edge.ready(1)
        assert [(await edge.place(offer()))[0] for _ in range(2)] == [201, 201]
        status, headers, error = await edge.error("POST", CALLS, data=offer(), headers=SDP)
        assert (status, error["code"]) == (503, "full")
        assert int(headers["Retry-After"]) > 0


async def test_calls_are_spread_and_pass_by_those_that_are_full_or_away(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1, 2, 3) as edge:
        edge.start(1, max_sessions=1)
        edge.start(2)
        await edge.ready(1, 2)
        placed = [await edge.place(offer()) for _ in range(6)]
        assert [status for status, _, _ in placed] == [201] * 6
        assert (edge.transceivers[1].sessions, edge.transceivers[2].sessions) == (1, 5)
        for _, headers, _ in placed:
            async with edge.http.delete(edge.url + headers["Location"], headers=TOKEN) as response:
                assert response.status == 200


async def test_a_call_of_a_transceiver_that_is_not_configured_is_503(edge: RealEdge) -> None:
    call = ufrag.call_id(ufrag.seal(2, 1, KEYS.ufrag[1]))
    status, _, error = await edge.error("DELETE", f"{CALLS}/{call}", headers=TOKEN)
    assert (status, error["code"]) == (503, "transceiver_away")


@pytest.mark.parametrize(
    "reply",
    [
        lambda request: b"\xc1",
        lambda request: json.dumps({"request": request}).encode(),
        lambda request: b"\x93\x01\xa7control\x80",
    ],
    ids=["not msgpack", "json", "another version"],
)
async def test_a_transceiver_that_talks_nonsense_is_away(
    tmp_path: Path, reply: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.links.transceivers._PATIENCE_S", 0.3)
    async with a_real_edge(tmp_path, 1) as edge:
        router = link.router(edge.context, f"ipc://{tmp_path}/1", KEYS)
        try:
            asked = asyncio.ensure_future(edge.error("POST", CALLS, data=offer(), headers=SDP))
            while not asked.done():
                if await asyncio.to_thread(router.poll, 50):
                    peer, *_ = router.recv_multipart()
                    router.send_multipart([peer, reply(1)])
            status, _, error = await asked
            assert (status, error["code"]) == (503, "transceiver_away")
        finally:
            router.close()


# --- CORS ---


async def test_a_preflight_allows_what_sdks_send(edge: RealEdge) -> None:
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-openai-agents-sdk",
    }
    async with edge.http.options(edge.url + CALLS, headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert {"POST", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
        allowed = set(response.headers["Access-Control-Allow-Headers"].lower().split(", "))
        assert {"authorization", "content-type", "x-openai-agents-sdk"} <= allowed
        assert response.headers["Vary"] == "Origin"


async def test_a_page_may_read_the_location_and_every_error(edge: RealEdge) -> None:
    origin = {"Origin": "https://app.example"}
    _, headers, _ = await edge.place(offer(), **origin)
    answers = [headers]
    for path in (CALLS, "/nowhere"):
        answers.append((await edge.error("POST", path, headers=origin))[1])
    for answered in answers:
        assert answered["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Location" in answered["Access-Control-Expose-Headers"].split(", ")


async def test_an_origin_that_is_not_allowed_gets_no_permission(tmp_path: Path) -> None:
    async with a_real_edge(tmp_path, 1, allowed_origins=("https://app.example",)) as edge:
        for origin, allowed in (
            ("https://app.example", True),
            ("https://evil.example", False),
            ("https://app.example.evil.example", False),
            ("null", False),
        ):
            async with edge.http.options(edge.url + CALLS, headers={"Origin": origin}) as response:
                assert ("Access-Control-Allow-Origin" in response.headers) is allowed
                assert ("Access-Control-Allow-Headers" in response.headers) is allowed
                assert response.headers["Vary"] == "Origin"


# --- the list of tokens ---


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_list_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path / 'keys'}: no key in it"):
        apikeys.load(tmp_path / "keys")


def test_a_list_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        apikeys.load(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tokens_are_not_kept_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("correct horse\n")
    assert b"horse" not in b"".join(apikeys.load(tmp_path / "keys"))


@pytest.mark.parametrize(
    "fields",
    [
        {"offer": 5},
        {"media": []},
        {"media": ["192.0.2.1", "x"]},
        {"media": None},
        {"agent": {}, "more": 1},
    ],
)
async def test_a_control_message_with_wrong_fields_is_refused_and_the_next_is_served(
    edge: RealEdge, fields: dict[str, object]
) -> None:
    peer = link.dealer(edge.context, f"ipc://{edge.directory}/1", b"edge/other", KEYS)
    good = {"request": 1, "offer": offer(), "agent": "", "media": ["192.0.2.1", 3478]}
    try:
        await eventually(lambda: peer.poll(0, zmq.POLLOUT))
        peer.send(raw("session.offer", **{**good, **fields}))
        peer.send(raw("session.end", request=2, ufrag=5))
        peer.send(raw("health", request=3))
        replies = {}
        for _ in range(3):
            await eventually(lambda: peer.poll(0))
            reply = heard(peer.recv())
            assert isinstance(reply, Said)
            replies[reply.fields["request"]] = reply
        assert [(replies[i].type, replies[i].fields["code"]) for i in (1, 2)] == [
            ("session.refused", "invalid_request")
        ] * 2
        assert (replies[3].type, replies[3].fields["sessions"]) == ("health", 0)
    finally:
        peer.close()
