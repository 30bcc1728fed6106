"""Bad input to a worker: peers that speak otherwise, datagrams that cannot be sent, and logs that cannot be written
stop no media.
"""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgpack
import pytest
from paths import ROOT
from waiting import until
from working import MINE, OTHER, RX, TX, Bench, a_worker, check, gained, of

from runtime.stderr import LossyStream
from wire import frames
from wire.versions import OLDEST, VERSION

WIRE_ERRORS = "firsthop_worker_wire_errors_total"


def of_another_version(version: int) -> bytes:
    said: bytes = msgpack.packb([version, "data", b"\1\0", bytes(18), b"x"])
    return said


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with a_worker(tmp_path_factory.mktemp("w")) as bench:
        yield bench


def passes_media(bench: Bench, by: int = MINE) -> None:
    """Checks that media passes both ways."""
    client = bench.client()
    bench.proven(client, by=by)
    assert gained(bench, client, b"\x16up") == {"forwarded_flow": 1}
    until(lambda: bench.transceivers[by].has(b"\x16up"))
    bench.transceivers[by].send(frames.pack_batch([(of(client), b"down")]))
    assert client.recv(100) == b"down"


def test_a_transceiver_of_another_version_is_refused_in_one_line_and_others_go_on(tmp_path: Path) -> None:
    with a_worker(tmp_path) as bench:
        for i in range(50):
            bench.transceivers[MINE].send(of_another_version(VERSION + 1 + i % 2))
        until(lambda: bench.funnel(WIRE_ERRORS) == {"other_version": 50})
        passes_media(bench, by=OTHER)
        lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
        (line,) = [line for line in lines if line["level"] == "error"]
        assert line["transceiver"] == MINE
        assert f"wire version {VERSION + 1}, this side speaks {OLDEST} to {VERSION}" in line["why"]
        passes_media(bench, by=MINE)  # as soon as it has learnt to speak


def test_a_transceiver_sends_to_no_flow_but_its_own(bench: Bench) -> None:
    others = bench.client()
    bench.proven(others, by=OTHER)
    before = bench.funnel(TX)
    bench.transceivers[MINE].send(frames.pack_batch([(of(others), b"not yours")] * 1000))
    until(lambda: bench.funnel(TX) - before == {"not_its_flow": 1000})
    passes_media(bench, by=OTHER)


def test_what_is_too_long_or_empty_costs_nothing_else_in_its_batch(bench: Bench) -> None:
    client = bench.client()
    bench.proven(client)
    before = bench.funnel(RX)
    bench.to_worker(client, *[b"", bytes(60_000), b"\x16fine", bytes(2049)] * 10)
    moved = bench.funnel(RX) - before
    assert moved == {"empty": 10, "oversized": 20, "forwarded_flow": 10}
    sent = bench.funnel(TX)
    batch = [(of(client), b"one"), (of(client), bytes(65535)), (of(client), b""), (of(client), b"two")]
    bench.transceivers[MINE].send(frames.pack_batch(batch))
    assert [client.recv(100) for _ in range(3)] == [b"one", b"", b"two"]
    until(lambda: bench.funnel(TX) - sent == {"sent": 3, "unsendable": 1})


# --- logs


@contextmanager
def nowhere_to_write(kind: str) -> Iterator[int]:
    """A descriptor that takes nothing."""
    if kind == "full disk":
        fd = os.open("/dev/full", os.O_WRONLY)
        yield fd
        os.close(fd)
        return
    reading, writing = os.pipe()
    if kind == "reader gone":
        os.close(reading)
    else:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    if kind == "reader asleep":
        os.close(reading)


NOWHERE = ["full disk", "reader gone", "reader asleep"]


@pytest.mark.parametrize("kind", NOWHERE)
def test_a_log_that_cannot_be_written_stops_no_media(tmp_path: Path, kind: str) -> None:
    # It has one line to say before it begins: there is no key file.
    with nowhere_to_write(kind) as fd, a_worker(tmp_path, stderr=fd) as bench:
        bench.transceivers[MINE].send(of_another_version(1))
        until(lambda: bench.funnel(WIRE_ERRORS) == {"other_version": 1})
        passes_media(bench)
        assert gained(bench, bench.client(), check(MINE)) == {"forwarded_stun": 1}


@pytest.mark.parametrize("kind", NOWHERE)
def test_libraries_and_our_logger_neither_raise_nor_wait(kind: str) -> None:
    code = """
import logging
from runtime import logs
logs.configure("info", "json", process="t")
for _ in range(100):
    logs.get().error("x" * 5000)
    logging.getLogger("library").error("y" * 5000)
print("came through")
"""
    with nowhere_to_write(kind) as fd:
        done = subprocess.run(
            [sys.executable, "-c", code], stderr=fd, stdout=subprocess.PIPE, timeout=60, cwd=ROOT, check=False
        )
    assert done.stdout == b"came through\n"


def test_without_any_standard_error_nothing_is_written_anywhere(tmp_path: Path) -> None:
    code = "from runtime import logs; logs.configure('info', 'auto'); f = open('taken', 'w'); logs.get().error('x')"
    shell = ["sh", "-c", f'exec 2>&-; exec "$0" -c "{code}"', sys.executable]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(shell, timeout=60, cwd=tmp_path, env=env, check=False).returncode == 0
    assert (tmp_path / "taken").read_text() == ""


def test_what_can_be_written_is_written_whole(tmp_path: Path) -> None:
    text = "ä" * 50_000 + "\udc80\n"
    with (tmp_path / "log").open("w") as file:
        assert LossyStream(file).write(text) == len(text)
    assert (tmp_path / "log").read_bytes() == text.encode(errors="backslashreplace")
    memory = io.StringIO()
    LossyStream(memory).write("no descriptor")
    assert memory.getvalue() == "no descriptor"
    LossyStream(None).write("nowhere")


def test_a_number_that_is_somebody_elses_by_now_is_not_written_to(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        log, number = LossyStream(file), file.fileno()
    with (tmp_path / "other").open("w") as other:
        assert other.fileno() == number
        log.write("lost")
    assert (tmp_path / "other").read_text() == ""


# --- clocks


def asks_for_wall_time(path: Path) -> bool:
    names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return bool(
        names & {"time.time", "time.time_ns", "time.CLOCK_REALTIME", "time.gmtime", "time.localtime"}
        or imported & {"datetime", "time_ns", "gmtime", "localtime"}
    )


def test_nothing_on_the_path_of_media_asks_for_wall_time_but_the_age_of_a_batch() -> None:
    """So a clock that is set moves nothing: tests/edge/relay/test_uplink.py has what it does to the ages that are told,
    and tests/edge/xdp/test_shedding.py to those that a core sheds by."""
    path = [file for package in ("edge", "wire", "rtc", "transceiver") for file in (ROOT / package).glob("**/*.py")]
    assert len(path) > 40
    # Keys and lines of transcripts are dated for people, a sender report tells the time (RFC 3550), ephemeral keys
    # expire, an agent is asked what time it is, a probe of a way is known by when it was sent, and an engine that died
    # is started again by whoever looks at the same file: no media goes by any of these.
    dated = {"wire/keys.py", "wire/rotation.py", "transceiver/media/stream.py", "edge/signaling/access.py"}
    dated |= {"transceiver/agents/offline.py", "transceiver/agents/local.py", "transceiver/speech/brain.py"}
    dated |= {"transceiver/engine/starting.py", "transceiver/engine/web.py", "edge/between.py"}
    dated |= {"transceiver/records/files.py", "transceiver/records/transcript.py"}
    found = {str(file.relative_to(ROOT)) for file in path if asks_for_wall_time(file)}
    assert found - dated == {"edge/relay/uplink.py", "edge/relay/worker.py", "edge/relay/backbone.py"}
