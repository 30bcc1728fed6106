"""The server behind the demo's page: it passes calls on with the token, and only for pages of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from demo.page import FILES, MAX_BODY_BYTES, application

CALLS = "/v1/realtime/calls"
# What the page's files may name: the namespace of its pictures, and itself.
NAMED = {"http://www.w3.org/2000/svg", "http://localhost"}
SDP = {"Content-Type": "application/sdp"}


class Upstream:
    """An edge's signaling that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None, str | None, bytes]] = []
        self.answer = web.Response

    async def handle(self, request: web.Request) -> web.Response:
        headers = request.headers
        self.asked.append(
            (
                request.method,
                str(request.rel_url),
                headers.get("Authorization"),
                headers.get("Content-Type"),
                await request.read(),
            )
        )
        if request.query.get("model") == "full":
            error = {"error": {"message": "every place is taken"}}
            return web.json_response(error, status=503, headers={"Retry-After": "7", "X-Request-Id": "r1"})
        if request.path == CALLS:
            location = {"Location": f"{CALLS}/rtc_abc-_1", "Set-Cookie": "edge=1"}
            return web.Response(status=201, text="v=0 answer", content_type="application/sdp", headers=location)
        return web.Response()


async def start(app: web.Application) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    edge = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", edge.handle)
    runner, port = await start(app)
    yield edge, f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def page(upstream: tuple[Upstream, str]) -> AsyncIterator[aiohttp.ClientSession]:
    runner, port = await start(application(upstream[1], "sesame", ["parrot", "echo"]))
    async with aiohttp.ClientSession(f"http://localhost:{port}") as session:
        yield session
    await runner.cleanup()


@pytest.fixture
def edge(upstream: tuple[Upstream, str]) -> Upstream:
    return upstream[0]


async def test_call_goes_to_the_edge_with_the_token_and_comes_back_with_its_location(
    page: aiohttp.ClientSession, edge: Upstream
) -> None:
    async with page.post(f"{CALLS}?model=parrot", data=b"v=0 offer", headers=SDP) as answer:
        assert answer.status == 201
        assert answer.content_type == "application/sdp"
        assert answer.headers["Location"] == f"{CALLS}/rtc_abc-_1"
        assert "Set-Cookie" not in answer.headers
        assert await answer.text() == "v=0 answer"
    assert edge.asked == [("POST", f"{CALLS}?model=parrot", "Bearer sesame", "application/sdp", b"v=0 offer")]


async def test_hangup_and_delete_go_to_the_edge(page: aiohttp.ClientSession, edge: Upstream) -> None:
    async with page.post(f"{CALLS}/rtc_abc-_1/hangup") as answer:
        assert answer.status == 200
    async with page.delete(f"{CALLS}/rtc_abc-_1") as answer:
        assert answer.status == 200
    assert [(method, path) for method, path, *_ in edge.asked] == [
        ("POST", f"{CALLS}/rtc_abc-_1/hangup"),
        ("DELETE", f"{CALLS}/rtc_abc-_1"),
    ]


async def test_ice_servers_are_asked_for_with_the_token(page: aiohttp.ClientSession, edge: Upstream) -> None:
    async with page.get("/v1/ice-servers") as answer:
        assert answer.status == 200
    assert [asked[:3] for asked in edge.asked] == [("GET", "/v1/ice-servers", "Bearer sesame")]


async def test_full_edge_keeps_its_status_its_words_and_when_to_return(page: aiohttp.ClientSession) -> None:
    async with page.post(f"{CALLS}?model=full", data=b"v=0", headers=SDP) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "7"
        assert answer.headers["X-Request-Id"] == "r1"
        assert (await answer.json())["error"]["message"] == "every place is taken"


async def test_browsers_own_token_is_not_passed_on(page: aiohttp.ClientSession, edge: Upstream) -> None:
    async with page.post(CALLS, data=b"v=0", headers=SDP | {"Authorization": "Bearer mine"}):
        assert edge.asked[0][2] == "Bearer sesame"


async def test_only_calls_are_passed_on(page: aiohttp.ClientSession, edge: Upstream) -> None:
    for path in ("/v1/realtime/client_secrets", f"{CALLS}/a%2F..%2F..%2Fsecrets/hangup", "/metrics"):
        async with page.post(path) as answer:
            assert answer.status in (404, 405)
    assert edge.asked == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "localhost:1", "localhost.evil:{port}"]
)
async def test_name_that_is_not_this_machine_is_refused(page: aiohttp.ClientSession, edge: Upstream, host: str) -> None:
    port = page._base_url.port  # type: ignore[union-attr]
    for path in ("/", "/agents"):
        async with page.get(path, headers={"Host": host.format(port=port)}) as answer:
            assert answer.status == 403
            assert f"http://localhost:{port}" in (await answer.json())["error"]["message"]
    async with page.post(CALLS, headers=SDP | {"Host": host.format(port=port)}) as answer:
        assert answer.status == 403
    assert edge.asked == []


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
async def test_every_name_of_this_machine_is_served(page: aiohttp.ClientSession, name: str) -> None:
    own = f"{name}:{page._base_url.port}"  # type: ignore[union-attr]
    async with page.get("/agents", headers={"Host": own}) as answer:
        assert await answer.json() == ["parrot", "echo"]
    async with page.post(CALLS, data=b"v=0", headers=SDP | {"Host": own, "Origin": f"http://{own}"}) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "https://localhost:{port}"])
async def test_post_from_another_origin_is_refused(page: aiohttp.ClientSession, edge: Upstream, origin: str) -> None:
    origin = origin.format(port=page._base_url.port)  # type: ignore[union-attr]
    async with page.post(CALLS, data=b"v=0", headers=SDP | {"Origin": origin}) as answer:
        assert answer.status == 403
        assert (await answer.json())["error"]["code"] == "wrong_origin"
    assert edge.asked == []


async def test_offer_larger_than_any_browsers_is_refused(page: aiohttp.ClientSession, edge: Upstream) -> None:
    async with page.post(CALLS, data=bytes(MAX_BODY_BYTES + 1), headers=SDP) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "body_too_large"
    async with page.post(CALLS, data=bytes(MAX_BODY_BYTES), headers=SDP) as answer:
        assert answer.status == 201
    assert len(edge.asked) == 1


async def test_edge_that_is_away_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
        runner, port = await start(application(away, "sesame", ["parrot"]))
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"http://localhost:{port}{CALLS}", data=b"v=0", headers=SDP) as answer,
            ):
                assert answer.status == 502
                assert away in (await answer.json())["error"]["message"]
        finally:
            await runner.cleanup()


async def test_page_loads_nothing_from_elsewhere(page: aiohttp.ClientSession) -> None:
    kinds = {".html": "text/html", ".js": "javascript", ".css": "css"}
    files = [file for file in sorted(FILES.iterdir()) if file.suffix in kinds]
    assert len(files) > 3
    for file in files:
        async with page.get("/" if file.name == "page.html" else f"/{file.name}") as answer:
            assert answer.status == 200, file.name
            assert kinds[file.suffix] in answer.headers["Content-Type"]
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert policy[0] == "default-src 'none'"
            assert {source for rule in policy for source in rule.split()[1:]} == {"'none'", "'self'", "data:"}
        assert set(re.findall(r"https?://[^\s'\"`]+", file.read_text())) <= NAMED
    async with page.get("/healthz") as answer:
        assert await answer.json() == {"status": "ok"}


async def test_command_serves_until_sigterm_and_exits_clean(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "demo.page", "--edge", "http://127.0.0.1:9", "--token-file", str(token), "--port", str(port)]
    server = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while True:
                try:
                    async with session.get(f"http://localhost:{port}/healthz") as answer:
                        assert answer.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
    finally:
        server.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(server.communicate(), 10)
    assert server.returncode == 0
    assert errors == b""


async def test_missing_token_file_is_one_line(tmp_path: Path) -> None:
    command = ["-m", "demo.page", "--edge", "http://127.0.0.1:9", "--token-file", str(tmp_path / "none")]
    server = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    _, errors = await asyncio.wait_for(server.communicate(), 20)
    assert server.returncode == 1
    assert b"token" in errors
    assert errors.count(b"\n") == 1
