"""Bounds on what clients leave half-done: headers, bodies, answers, handshakes and connections end and have a size."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from signaling_edge import CALLS, DEADLINE_S, Edge, a_fake, an_edge
from waiting import eventually

import edge.signaling.connection as connection
from edge.signaling.connection import MAX_HEAD_BYTES

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = f"POST {CALLS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer correct horse\r\n".encode()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with an_edge(tmp_path) as edge:
        yield edge


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def sent(edge: Edge, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*edge.address)
    writer.write(data)
    return reader, writer


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Reads until the connection is closed."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.")
    assert b"application/json" in answer.partition(b"\r\n\r\n")[0]
    assert b'{"error": {"message": "' in answer
    return int(answer.split()[1])


# --- headers


@pytest.mark.parametrize(
    "begin",
    [b"", GET, b"GE", GET + b"\r\n" + GET],
    ids=["nothing", "a header", "half a line", "after a request"],
)
async def test_headers_that_do_not_come_end_the_connection(
    edge: Edge, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_IDLE_S", 0.3)
    reader, writer = await sent(edge, begin)
    await all_of(reader)
    writer.close()
    await eventually(lambda: len(edge.listener) == 0)


async def test_a_header_that_drips_ends_the_connection_all_the_same(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_IDLE_S", 0.3)
    reader, writer = await sent(edge, GET)
    async with asyncio.timeout(DEADLINE_S):
        while not reader.at_eof() and not writer.is_closing():
            writer.write(b"X: y\r\n")
            await asyncio.sleep(0.02)
            if len(edge.listener) == 0:
                break
    await eventually(lambda: len(edge.listener) == 0)
    writer.close()


@pytest.mark.parametrize(("size", "code"), [(200, 400), (20_000, 431)], ids=["too many", "too large"])
async def test_headers_without_an_end_are_refused_before_they_cost_memory(
    edge: Edge, size: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.3)
    reader, writer = await sent(edge, GET)
    answer = asyncio.create_task(reader.readuntil(b"}}"))
    before = rss_bytes()
    written = 0
    with suppress(ConnectionError):
        while written < 8 << 20 and not answer.done():
            writer.write(b"X-" + b"y" * size + b": z\r\n")
            await writer.drain()
            written += size
    assert rss_bytes() - before < 4 << 20
    async with asyncio.timeout(DEADLINE_S):
        assert status(await answer) == code
    writer.close()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (GET + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (GET + (b"X: " + b"y" * 8000 + b"\r\n") * 5 + b"\r\n", 431),
        (GET + (b"X: " + b"y" * 8000 + b"\r\n") * 25 + b"\r\n", 431),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (GET + b"X: y\r\n" * 200 + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (GET + b"X: a\0b\r\n\r\n", 400),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (POST + b"Content-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_what_is_no_request_is_refused_in_the_same_shape_and_not_logged(
    edge: Edge,
    request_: bytes,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.3)
    reader, writer = await sent(edge, request_)
    assert status(await all_of(reader)) == code
    writer.close()
    assert not caplog.records
    assert "Traceback" not in capsys.readouterr().out


async def test_headers_that_are_too_large_are_refused_behind_a_request_too(edge: Edge) -> None:
    large = GET + (b"X: " + b"y" * 8000 + b"\r\n") * 5 + b"\r\n"
    reader, writer = await sent(edge, GET + b"\r\n" + large + GET + b"\r\n")
    answers = (await all_of(reader)).split(b"HTTP/1.")
    assert [answer[2:5] for answer in answers[1:]] == [b"200", b"431"]
    writer.close()


async def test_requests_that_do_not_wait_for_answers_are_answered_in_order(edge: Edge) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await sent(edge, ask * 50 + GET + b"Connection: close\r\n\r\n")
    answers = (await all_of(reader)).split(b"HTTP/1.1 ")
    assert [answer[:3] for answer in answers[1:]] == [b"200", b"404"] * 50 + [b"200"]
    writer.close()


# --- bodies and answers


async def test_a_body_that_does_not_come_is_408(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.signaling.bodies._BODY_S", 0.2)
    monkeypatch.setattr(connection, "_LINGER_S", 0.2)
    head = POST + b"Content-Type: application/sdp\r\nContent-Length: 100\r\n\r\nv=0"
    for path in (CALLS, CALLS + "x"):
        reader, writer = await sent(edge, head.replace(CALLS.encode(), path.encode()))
        assert status(await all_of(reader)) == (408 if path == CALLS else 404)
        writer.close()
    await eventually(lambda: len(edge.listener) == 0)


async def test_who_reads_no_answers_is_cut_off(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_STALL_S", 0.3)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(edge.address)
    sock.setblocking(False)
    try:
        asking = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30

        async def ask() -> None:
            while True:
                await asyncio.get_running_loop().sock_sendall(sock, asking)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask(), DEADLINE_S)
        await eventually(lambda: len(edge.listener) == 0)
    finally:
        sock.close()


async def test_a_slow_reader_that_reads_is_served_whole(edge: Edge) -> None:
    reader, writer = await sent(edge, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    whole = b""
    async with asyncio.timeout(DEADLINE_S):
        while data := await reader.read(500):
            whole += data
            await asyncio.sleep(0.002)
    assert whole.endswith(b"}")
    writer.close()


# --- connections


async def test_one_address_has_so_many_connections_and_another_its_own(tmp_path: Path) -> None:
    async with an_edge(tmp_path, connections_per_address=3) as edge:
        await edge.http.close()
        await eventually(lambda: len(edge.listener) == 0)
        opened = [await sent(edge, GET) for _ in range(5)]
        await eventually(lambda: edge.connections["address_full"] == 2)
        assert len(edge.listener) == 3
        other = socket.create_connection(edge.address, source_address=("127.0.0.2", 0))
        await eventually(lambda: len(edge.listener) == 4)
        for _, writer in opened:
            writer.close()
        await eventually(lambda: len(edge.listener) == 1)
        again = await sent(edge, GET + b"Connection: close\r\n\r\n")
        assert b"ok" in await all_of(again[0])
        again[1].close()
        other.close()


async def test_there_are_so_many_connections_in_all(tmp_path: Path) -> None:
    async with an_edge(tmp_path, connections=16, connections_per_address=0) as edge:
        opened = [await sent(edge, GET) for _ in range(20)]
        await eventually(lambda: edge.connections["full"] > 0 and len(edge.listener) <= 16)
        for _, writer in opened:
            writer.close()


async def test_a_websocket_counts_until_it_is_closed(tmp_path: Path) -> None:
    async with a_fake(tmp_path) as (edge, _):
        before = len(edge.listener)
        async with asyncio.timeout(DEADLINE_S):
            while await edge.refused_socket("", headers={"Authorization": "Bearer correct horse"}) != 101:
                pass
        await eventually(lambda: len(edge.listener) <= before + 1)


def test_exhausted_descriptors_are_one_line_and_connections_are_taken_again(tmp_path: Path) -> None:
    code = """
import asyncio, os, resource, socket, sys
from edge.signaling.listener import Listener, connections_tally
from runtime import logs
logs.configure("info", "json")

class Peer(asyncio.Protocol):
    def __init__(self, lost): self.lost = lost
    def connection_made(self, transport): transport.write(b"here")
    def connection_lost(self, exc): self.lost()

async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    listener = Listener(listening, Peer, lambda: None, most=1000, most_of_one=0, counts=connections_tally())
    # The client's end of each connection is made first, so it is the server's that finds no descriptor.
    held = []
    first = socket.socket()
    while True:
        try: held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError: break
    first.setblocking(False)
    await asyncio.get_running_loop().sock_connect(first, listening.getsockname())
    await asyncio.sleep(2.5)
    for fd in held: os.close(fd)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(first, 4), 30) == b"here"
    await listener.close()

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "no connection can be taken" in done.stderr


async def test_half_open_requests_with_large_headers_have_a_bound_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.3)
    async with an_edge(tmp_path, connections_per_address=0) as edge:
        opened = [await sent(edge, GET) for _ in range(20)]
        await eventually(lambda: len(edge.listener) >= 20)
        before = rss_bytes()
        # As much as aiohttp would keep of each: a megabyte of headers, none of them too long.
        for _, writer in opened:
            for _ in range(128):
                writer.write(b"X: " + b"y" * 8000 + b"\r\n")
        await eventually(lambda: len(edge.listener) <= 1)
        for _, writer in opened:
            writer.close()
        assert rss_bytes() - before < 20 * (1 << 19)
