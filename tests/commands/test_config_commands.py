"""Commands that cannot start: each says why in one line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from configuring import firsthop, one_line, written

from firsthop.cli import main
from runtime.config import rows

pytestmark = pytest.mark.usefixtures("no_settings")


@contextmanager
def taken(kind: socket.SocketKind) -> Iterator[str]:
    """An address that somebody else listens on."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield f"127.0.0.1:{sock.getsockname()[1]}"


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
