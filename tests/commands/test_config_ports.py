"""Ports in the configuration: each process has its own, and two that would clash are refused before anything starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from configuring import complaint, firsthop, one_line, written

from firsthop.preflight import check_edge
from runtime import ports
from runtime.address import Address
from runtime.config import Config, load
from runtime.errors import ConfigError
from runtime.supervision.child import ChildSpec

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("edge.http", "[edge]\nhttp = '127.0.0.1:0'\n"),
        ("edge.metrics", "[edge]\nmetrics = '[::]:0'\n"),
        ("transceiver.metrics", "[transceiver]\nmetrics = '127.0.0.1:0'\n"),
        ("transceiver.endpoint", "[transceiver]\nendpoint = 'tcp://127.0.0.1:0'\n"),
        ("edge.transceivers.0.endpoint", "[[edge.transceivers]]\nid = 1\nendpoint = 'tcp://127.0.0.1:0'\n"),
    ],
)
def test_a_port_that_nobody_would_find_is_refused(tmp_path: Path, key: str, text: str) -> None:
    assert f": {key}: " in complaint(tmp_path, text)
    assert "port 0" in complaint(tmp_path, text)


def test_each_process_has_a_port_of_its_own() -> None:
    first = Address("[2001:db8::1]:9400")
    edge = [first, ports.signaling(first), *(ports.worker(first, i) for i in range(3))]
    assert [each.port for each in edge] == list(ports.of_edge(first, 3)) == [9400, 9401, 9402, 9403, 9404]
    assert edge[4] == "[2001:db8::1]:9404"
    last = Address("127.0.0.1:65534")
    assert ports.process(last, 0).port == ports.of_transceiver(last, 1)[-1] == 65535
    for past_the_last in (lambda: ports.process(last, 1), lambda: ports.worker(last, 0)):
        with pytest.raises(ConfigError, match=r"metrics 127\.0\.0\.1:65534: .* need"):
            past_the_last()


HERE = "[[edge.transceivers]]\nid = 1\nendpoint = 'ipc:///run/firsthop/transceiver-1.sock'\n"
EDGE = "[edge]\ncores = [0, 1]\nmetrics = '127.0.0.1:9400'\n"


@pytest.mark.parametrize(
    ("text", "between"),
    [
        ("[edge]\ncores = [0]\nhttp = '127.0.0.1:9402'\n" + HERE, ("edge.http", "edge.metrics")),
        ("[edge]\ncores = [0]\nhttp = '0.0.0.0:9400'\n" + HERE, ("edge.http", "edge.metrics")),
        (EDGE + HERE + "[transceiver]\nmetrics = '127.0.0.1:9403'\n", ("edge.metrics", "transceiver.metrics")),
        (
            EDGE + HERE + "[transceiver]\nmetrics = '127.0.0.1:9398'\ncores = [0, 1]\n",
            ("edge.metrics", "transceiver.metrics"),
        ),
        (EDGE + HERE + "[transceiver]\nmetrics = '127.0.0.1:8080'\n", ("edge.http", "transceiver.metrics")),
    ],
)
def test_ports_that_two_would_have_are_refused_before_anything_starts(
    tmp_path: Path, text: str, between: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").touch(0o600)
    monkeypatch.setenv("FIRSTHOP_CLUSTER__KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("FIRSTHOP_EDGE__API_KEYS", str(tmp_path / "keys"))
    config = load(written(tmp_path, text))
    with pytest.raises(ConfigError, match=f"{between[0]} .* and {between[1]} .* overlap: choose others"):
        check_edge(config)


@pytest.mark.parametrize(
    "text",
    [
        # Another host's, in a file that both have.
        EDGE + "[[edge.transceivers]]\nid = 1\nendpoint = 'tcp://10.0.0.5:7400'\n"
        "[transceiver]\nendpoint = 'tcp://10.0.0.5:7400'\nmetrics = '127.0.0.1:9400'\n",
        EDGE + HERE + "[transceiver]\nmetrics = '127.0.0.1:9404'\n",
        EDGE + HERE + "[transceiver]\nmetrics = '127.0.0.2:9400'\n",
        "[edge]\nmedia = '127.0.0.1:8443'\nhttp = '127.0.0.1:8443'\n" + HERE,  # UDP and TCP
    ],
)
def test_ports_that_are_apart_are_taken(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").touch(0o600)
    monkeypatch.setenv("FIRSTHOP_CLUSTER__KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("FIRSTHOP_EDGE__API_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("FIRSTHOP_EDGE__RUN", str(tmp_path))
    check_edge(load(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoint = 'tcp://127.0.0.1:65535'\ncores = [0, 1]\n", "transceiver.endpoint tcp://127.0.0.1:65535"),
        ("metrics = '127.0.0.1:65535'\ncores = [0]\n", "transceiver.metrics 127.0.0.1:65535"),
        ("id = 2\n", "transceiver.id: ipc:///run/firsthop/transceiver-1.sock is 2 here and 1 in edge.transceivers"),
        ("endpoint = 'ipc:///nowhere/deep/1.sock'\n", "transceiver.endpoint: no files can be made in /nowhere/deep"),
    ],
)
def test_what_a_transceiver_cannot_run_with_is_one_line(
    host: dict[str, str], tmp_path: Path, text: str, said: str
) -> None:
    (file := tmp_path / "transceiver.toml").write_text(HERE + "[transceiver]\n" + text)
    del host["FIRSTHOP_TRANSCEIVER__ENDPOINT"], host["FIRSTHOP_EDGE__TRANSCEIVERS"]
    code, _, errors = firsthop("transceiver", "-c", str(file), **host)
    assert one_line(code, errors).startswith(f"firsthop: {said}")


def test_a_child_whose_file_went_away_says_so_in_one_line(tmp_path: Path) -> None:
    config = Config(edge={"api_keys": tmp_path / "gone", "run": tmp_path}, log={"format": "json"})
    keys = {"ufrag": {"1": "00" * 16}, "sealing": 1, "link": "00" * 32}
    ours, theirs = os.pipe()
    own = {"config": config.model_dump_json(), "metrics": ["127.0.0.1", 0], "instance": "", "keys": keys}
    own |= {"transceivers": [], "directory": "", "found": ""}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        own["socket"] = listening.fileno()
        done = subprocess.run(
            [sys.executable, "-m", "edge.signaling"],
            input=ChildSpec("signaling", own, {"level": "info", "form": "json"}, ours).dump().decode(),
            pass_fds=(listening.fileno(), ours),
            capture_output=True,
            text=True,
            timeout=120,
        )
    for end in (ours, theirs):
        os.close(end)
    assert done.returncode == 2
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert f"edge.api_keys {tmp_path / 'gone'}: No such file" in said[-1]["why"]
