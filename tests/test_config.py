"""Configuration: file and environment, and what a person is told who got it wrong."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from working import free_port

from edge import supervisor as edge_supervisor
from firsthop.cli import main
from firsthop.preflight import check_edge, check_transceiver
from firsthop.status_cli import Host
from runtime import ports
from runtime.address import Address
from runtime.config import BROWSER_REFUSES, Config, load, rows
from runtime.errors import ConfigError
from runtime.supervision.child import ChildSpec
from transceiver import supervisor as transceiver_supervisor
from wire.keys import KeyFileError, new_file_text


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("FIRSTHOP_"):
            monkeypatch.delenv(name)


def written(directory: Path, text: str) -> Path:
    path = directory / "firsthop.toml"
    path.write_text(text)
    return path


def complaint(directory: Path, text: str) -> str:
    path = written(directory, text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said


# --- what is read ---


def test_without_a_file_every_key_has_its_default() -> None:
    assert load(None).model_dump() == Config().model_dump()
    assert load(None).edge.media == "127.0.0.1:3478"
    assert load(None).transceiver.max_sessions == 200


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[edge]\nmedia = "203.0.113.10:5000"\n'))
    assert config.edge.media == "203.0.113.10:5000"
    assert config.edge.http == Config().edge.http
    assert config.transceiver == Config().transceiver


def test_the_environment_goes_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, '[edge]\nmedia = "203.0.113.10:5000"\nname = "west"\n[log]\nlevel = "debug"\n')
    monkeypatch.setenv("FIRSTHOP_EDGE__MEDIA", "[2001:db8::1]:4000")
    monkeypatch.setenv("FIRSTHOP_LOG__LEVEL", "error")
    config = load(path)
    assert (config.edge.media, config.edge.name, config.log.level) == ("[2001:db8::1]:4000", "west", "error")


def test_lists_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHOP_EDGE__CORES", "[0, 1]")
    monkeypatch.setenv("FIRSTHOP_EDGE__TRANSCEIVERS", '[{"id": 3, "endpoint": "tcp://192.0.2.1:7400"}]')
    config = load(None)
    assert config.edge.cores == (0, 1)
    assert [(peer.id, peer.endpoint) for peer in config.edge.transceivers] == [(3, "tcp://192.0.2.1:7400")]


def test_variables_of_the_command_line_are_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHOP_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("FIRSTHOP_TOKEN", "secret")
    assert load(None).edge.model_dump() == Config().edge.model_dump()


def test_a_configuration_is_not_changed_once_it_is_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None).edge.name = "other"


def test_every_key_has_a_meaning() -> None:
    listed = list(rows())
    assert all(meaning for _, _, meaning in listed)
    assert len({key for key, _, _ in listed}) == len(listed)
    assert ("edge.media", "127.0.0.1:3478") in {(key, default) for key, default, _ in listed}


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[edge]\nmdeia = 1\n", "edge.mdeia: no such key"),
        ("[egde]\nmedia = 1\n", "egde: no such key"),
        ("media = 1\n", "media: no such key"),
        ("[[edge.transceivers]]\nid = 1\nendpoint = 'ipc:///x'\nport = 1\n", "edge.transceivers.0.port: no such key"),
        ("[[edge.transceivers]]\nid = 1\n", "edge.transceivers.0.endpoint:"),
        ("[[edge.transceivers]]\nid = 262144\nendpoint = 'ipc:///x'\n", "edge.transceivers.0.id:"),
        ("[[edge.transceivers]]\nid = 1\nendpoint = 'http://x'\n", "edge.transceivers.0.endpoint:"),
        ("[edge]\nmedia = 3478\n", "edge.media:"),
        ("[edge]\nmedia = 'edge.example:3478'\n", "edge.media: 'edge.example:3478' is not a numeric address"),
        ("[edge]\nmedia = '203.0.113.10'\n", "edge.media:"),
        ("[edge]\nmedia = '0.0.0.0:3478'\n", "edge.media: '0.0.0.0:3478': name one address"),
        ("[edge]\nmedia = '[::]:3478'\n", "edge.media:"),
        ("[edge]\nadvertise = '203.0.113.10:6000'\n", "edge.advertise: browsers send no media to port 6000"),
        ("[edge]\nname = 'a/b'\n", "edge.name:"),
        ("[edge]\nname = ''\n", "edge.name:"),
        ("[edge]\ncores = ['x']\n", "edge.cores.0:"),
        ("[edge]\nflow_entries = 1\n", "edge.flow_entries:"),
        ("[log]\nlevel = 'loud'\n", "log.level:"),
        ("[transceiver]\nmax_sessions = 0\n", "transceiver.max_sessions:"),
        ("[transceiver]\nid = -1\n", "transceiver.id:"),
    ],
)
def test_a_wrong_key_is_named_with_its_file_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    assert f": {named}" in complaint(tmp_path, text)


@pytest.mark.parametrize("text", ["[edge", "edge = ", "\0", "[edge]\nname = 'x'\nname = 'y'\n"])
def test_a_file_that_is_not_toml_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    complaint(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path / 'nowhere.toml'}: no such file \\(firsthop init makes one\\)$"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FIRSTHOP_EGDE__MEDIA", "127.0.0.1:3478", "environment variable FIRSTHOP_EGDE__MEDIA: no such section"),
        ("FIRSTHOP_EDGE__MDEIA", "127.0.0.1:3478", "environment: edge.mdeia: no such key"),
        ("FIRSTHOP_EDGE__MEDIA", "127.0.0.1:6000", "environment: edge.media: browsers send no media to port 6000"),
        ("FIRSTHOP_EDGE__CORES", "0,1", "environment: "),
        ("FIRSTHOP_EDGE", "{", "environment: "),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refused:
        load(None)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("port", sorted({1, 80, 443, 1023} | BROWSER_REFUSES))
def test_a_media_port_that_browsers_refuse_is_refused_here(tmp_path: Path, port: int) -> None:
    said = complaint(tmp_path, f"[edge]\nmedia = '203.0.113.10:{port}'\n")
    assert f"edge.media: browsers send no media to port {port}" in said


@pytest.mark.parametrize("port", [1024, 3478, 6001, 6500, 65535])
def test_other_media_ports_are_taken(tmp_path: Path, port: int) -> None:
    assert load(written(tmp_path, f"[edge]\nmedia = '203.0.113.10:{port}'\n")).edge.media.endswith(f":{port}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("192.0.2.1:0", ("192.0.2.1", 0)), ("[2001:db8::1]:3478", ("2001:db8::1", 3478)), ("[::]:65535", ("::", 65535))],
)
def test_an_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert Address(text).pair == expected


@pytest.mark.parametrize(
    "text",
    ["", ":", ":80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:x", "host:80", "[::1]"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a numeric address and port"):
        Address(text)


# --- the command ---


def firsthop(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit code, output and errors of the command; one that runs for ever is a failed test."""
    argv = [sys.executable, "-m", "firsthop", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def one_line(code: int, errors: str) -> str:
    """The one line of a command that could not start."""
    assert code == 2, errors
    assert errors.startswith("firsthop: ")
    assert errors.count("\n") == 1, errors
    assert errors.endswith("\n")
    return errors


@contextmanager
def taken(kind: socket.SocketKind) -> Iterator[str]:
    """An address that somebody else listens on."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def host(tmp_path: Path) -> dict[str, str]:
    """Settings with which an edge and a transceiver would start, but for one thing."""
    (tmp_path / "cluster.toml").write_text(new_file_text())
    (tmp_path / "api-keys").write_text("token\n")
    for name in ("cluster.toml", "api-keys"):
        (tmp_path / name).chmod(0o600)
    return {
        "FIRSTHOP_CLUSTER__KEYS": str(tmp_path / "cluster.toml"),
        "FIRSTHOP_EDGE__API_KEYS": str(tmp_path / "api-keys"),
        "FIRSTHOP_EDGE__RUN": str(tmp_path),
        "FIRSTHOP_EDGE__HTTP": f"127.0.0.1:{free_port()}",
        "FIRSTHOP_EDGE__TRANSCEIVERS": f'[{{"id": 1, "endpoint": "ipc://{tmp_path}/t"}}]',
        "FIRSTHOP_TRANSCEIVER__ENDPOINT": f"ipc://{tmp_path}/t",
    }


@pytest.mark.parametrize("command", ["edge", "transceiver"])
def test_a_bad_configuration_is_one_line_and_exit_code_2(tmp_path: Path, command: str) -> None:
    path = written(tmp_path, "[edge]\nmdeia = 1\n")
    code, output, errors = firsthop(command, "--config", str(path))
    assert one_line(code, errors) == f"firsthop: {path}: edge.mdeia: no such key\n"
    assert output == ""


@pytest.mark.parametrize("command", ["edge", "transceiver"])
def test_a_configuration_file_may_come_from_the_environment(tmp_path: Path, command: str) -> None:
    path = written(tmp_path, "[edge]\nmdeia = 1\n")
    code, _, errors = firsthop(command, FIRSTHOP_CONFIG_FILE=str(path))
    assert one_line(code, errors) == f"firsthop: {path}: edge.mdeia: no such key\n"


@pytest.mark.parametrize("command", ["edge", "transceiver"])
def test_a_missing_key_file_is_one_line_and_exit_code_2(host: dict[str, str], command: str) -> None:
    host["FIRSTHOP_CLUSTER__KEYS"] = "/nowhere/cluster.toml"
    code, _, errors = firsthop(command, **host)
    assert "/nowhere/cluster.toml: No such file" in one_line(code, errors)
    assert "firsthop keys new -o /nowhere/cluster.toml" in errors


def test_an_edge_whose_media_port_is_taken_says_so_in_one_line(host: dict[str, str]) -> None:
    with taken(socket.SOCK_DGRAM) as address:
        code, _, errors = firsthop("edge", **host, FIRSTHOP_EDGE__MEDIA=address)
    assert one_line(code, errors).startswith("firsthop: edge.media")
    assert address.rpartition(":")[2] in errors
    assert "the port is taken" in errors


def test_an_edge_whose_http_port_is_taken_says_so_in_one_line(host: dict[str, str]) -> None:
    with taken(socket.SOCK_STREAM) as address, taken(socket.SOCK_DGRAM) as free:
        # The media port is one that was free a moment ago.
        host["FIRSTHOP_EDGE__MEDIA"] = free.replace("127.0.0.1", "127.0.0.2")
        host["FIRSTHOP_EDGE__HTTP"] = address
        code, _, errors = firsthop("edge", **host)
    assert one_line(code, errors).startswith("firsthop: edge.http")
    assert address.rpartition(":")[2] in errors
    assert "the port is taken" in errors


def test_an_address_that_this_host_does_not_have_is_one_line(host: dict[str, str]) -> None:
    code, _, errors = firsthop("edge", **host, FIRSTHOP_EDGE__MEDIA="192.0.2.1:3478")
    assert one_line(code, errors).startswith("firsthop: edge.media")
    assert "this host does not have that address" in errors


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EDGE__TRANSCEIVERS", "[]", "edge.transceivers: at least one"),
        ("EDGE__API_KEYS", "/nowhere/keys", "edge.api_keys /nowhere/keys: "),
        ("EDGE__HTTP", "127.0.0.1:65536", "environment: edge.http: "),
        ("EDGE__METRICS", "127.0.0.1:65535", "edge.metrics 127.0.0.1:65535: signaling and every worker need"),
        (
            "EDGE__TRANSCEIVERS",
            '[{"id": 1, "endpoint": "tcp://nonsense"}]',
            "environment: edge.transceivers.0.endpoint: ",
        ),
        (
            "EDGE__TRANSCEIVERS",
            '[{"id": 1, "endpoint": "ipc:///a"}, {"id": 1, "endpoint": "ipc:///b"}]',
            "environment: edge.transceivers: two transceivers have the same id",
        ),
        ("EDGE__CORES", "[9999]", "edge.cores: this process may not use [9999]"),
        ("EDGE__TLS_KEY", "/nowhere/key.pem", "edge.tls_certificate and edge.tls_key: set both or neither"),
        ("EDGE__INTERFACE", "nosuch0", "edge.interface: this host has no interface 'nosuch0'"),
    ],
)
def test_what_an_edge_cannot_run_with_is_one_line(host: dict[str, str], name: str, value: str, said: str) -> None:
    host["FIRSTHOP_" + name] = value
    with taken(socket.SOCK_DGRAM) as free:
        host["FIRSTHOP_EDGE__MEDIA"] = free.replace("127.0.0.1", "127.0.0.2")
        code, _, errors = firsthop("edge", **host)
    assert one_line(code, errors).startswith(f"firsthop: {said}")


def test_a_transceiver_whose_endpoint_is_taken_says_so_in_one_line(host: dict[str, str]) -> None:
    with taken(socket.SOCK_STREAM) as address:
        code, _, errors = firsthop("transceiver", **{**host, "FIRSTHOP_TRANSCEIVER__ENDPOINT": f"tcp://{address}"})
    assert f"transceiver.endpoint tcp://{address}" in one_line(code, errors)


def test_a_new_key_file_is_printed_and_nothing_else() -> None:
    code, output, errors = firsthop("keys", "new")
    assert (code, errors) == (0, "")
    assert output.startswith('link = "')


def test_the_table_for_the_readme_has_every_key() -> None:
    code, output, _ = firsthop("config", "--markdown")
    assert code == 0
    assert all(f"| `{key}` |" in output for key, _, _ in rows())


def test_a_transceiver_whose_agent_is_not_there_says_so_in_one_line(host: dict[str, str]) -> None:
    code, _, errors = firsthop("transceiver", **{**host, "FIRSTHOP_TRANSCEIVER__AGENT": "nosuch"})
    assert one_line(code, errors).startswith("firsthop: transceiver.agent: no agent called 'nosuch'")


@pytest.mark.parametrize(
    "command", [["edge"], ["edge", "--check"], ["transceiver"], ["status"], ["keys", "rotate"], ["cores"]]
)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file (firsthop init makes one)"),
        ("folder", "Is a directory"),
        (b"\xff\xfe", "'utf-8' codec can't decode"),
        (b"[edge]\nmedia = 3478", "edge.media: "),
    ],
    ids=["missing", "a folder", "not text", "wrong"],
)
def test_every_command_says_in_one_line_what_is_wrong_with_its_configuration(
    tmp_path: Path, command: list[str], content: bytes | str | None, said: str
) -> None:
    path = tmp_path / "firsthop.toml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    result = CliRunner().invoke(main, [*command, "-c", str(path)], catch_exceptions=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # services hold signals back until they have begun
    assert result.stdout == ""
    assert one_line(result.exit_code, result.stderr).startswith(f"firsthop: {path}: {said}")


@pytest.mark.needs_root
def test_a_configuration_in_a_folder_that_this_user_may_not_enter_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    file = written(tmp_path, "")
    code = f"from pathlib import Path; from runtime.config import load; load(Path({str(file)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.setuid(65534); {code}"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == f"runtime.errors.ConfigError: {file}: Permission denied"


def test_rotating_a_file_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for path in (tmp_path / "cluster.toml", tmp_path / "none" / "cluster.toml"):
        code, _, errors = firsthop("keys", "rotate", "--file", str(path))
        assert one_line(code, errors).startswith(f"firsthop: {path}: No such file")


# --- ports


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
    own |= {"transceivers": [], "directory": ""}
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


# --- whatever is written in it

ODD = ["", "x", "/", "..", "\0", "a\nb", "é", "\x7f", "/dev/null", "127.0.0.1:0", "127.0.0.1:65535", "[::]:9400"]
ODD += ["[fe80::1%lo]:3478", "127.0.0.1:\u0663\u0664\u0667\u0668", "127.0.0.1:+80", "127.0.0.1: 80"]
ODD += ["tcp://127.0.0.1:65535", "tcp://[::1]", "ipc:///x9999999999999999999999", "ipc://", f"ipc://{'/y' * 90}"]
ODD += ["http://", "http://[", "http://a:99999", "ws://[::1", "wss://x/ y", "..", "agents.echo", "__init__", "x" * 5000]
SCALARS = st.one_of(
    st.sampled_from(ODD), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.sampled_from([0, 1, 65535])
)
NUMBERS = st.lists(st.sampled_from([0, 1, -1, 2**40]), max_size=3)
PEERS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([0, 1, 262143]), "endpoint": st.sampled_from(ODD)},
        optional={"processes": st.sampled_from([1, 2, 256])},
    ),
    max_size=2,
)
VALUES = st.one_of(SCALARS, NUMBERS, PEERS)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    return json.dumps(value)


@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from([key for key, _, _ in rows()]), VALUES, min_size=1, max_size=3))
def test_a_configuration_is_taken_or_refused_in_one_line_whatever_is_written_in_it(
    host: dict[str, str], tmp_path: Path, wished: dict[str, Any]
) -> None:
    """An exception of another kind than these two would be a traceback."""
    file = written(tmp_path, "".join(f"{key} = {toml(value)}\n" for key, value in wished.items()))
    said = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in host.items():
            patch.setenv(name, value)
        for key in wished:
            patch.delenv("FIRSTHOP_" + key.upper().replace(".", "__"), raising=False)
        patch.setattr(Path, "mkdir", lambda *_, **__: None)  # nothing is made outside of the test's own folder
        try:
            config = load(file)
            Host(config)
        except ConfigError as e:
            said.append(str(e))
        else:
            # As a child gets it.
            assert Config.model_validate_json(config.model_dump_json()).model_dump() == config.model_dump()
            for check in (check_edge, edge_supervisor.check, check_transceiver, transceiver_supervisor.check):
                try:
                    check(config)
                except (ConfigError, KeyFileError) as e:
                    said.append(str(e))
    assert not [line for line in said if not line or "\n" in line]
