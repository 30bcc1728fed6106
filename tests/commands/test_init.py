"""``firsthop init``, and who may read the files that commands make and services start with."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hosting import ports, ready, run_of_ports
from waiting import until

from firsthop.cli import main
from firsthop.init import Host, Plan, plan_for, text
from firsthop.preflight import check_edge, check_transceiver
from runtime import secretfile
from runtime.config import load
from runtime.errors import ConfigError
from wire.exposure import exposure, too_open
from wire.keys import load as load_keys
from wire.keys import new_file_text

FIRSTHOP = [sys.executable, "-m", "firsthop"]
WISHES: dict[str, Any] = dict.fromkeys(("media", "http", "interface", "advertise", "certificate", "key"))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration from outside, and the usual umask, which lets everybody read."""
    for name in os.environ:
        if name.startswith("FIRSTHOP_"):
            monkeypatch.delenv(name)
    before = os.umask(0o022)
    yield
    os.umask(before)


def firsthop(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command: in this process where it starts no service, which is soon done."""
    if arguments[0] in ("init", "keys"):
        result = CliRunner().invoke(main, [str(each) for each in arguments], env=environment, catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)
    argv = [*FIRSTHOP, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that could do nothing."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("firsthop: ")
    return line


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what it writes


def test_init_asks_nothing_and_makes_files_that_others_cannot_read(tmp_path: Path) -> None:
    here = tmp_path / "etc"
    done = firsthop("init", "--dir", here, "--media", "127.0.0.1:5000")
    assert done.returncode == 0, done.stderr
    assert mode(here) == 0o750
    assert {path.name: mode(path) for path in here.iterdir()} == {
        "firsthop.toml": 0o640,
        "cluster.toml": 0o600,
        "api-keys": 0o600,
        "run": 0o700,
    }
    for path in here.iterdir():
        assert path.name == "run" or f"wrote  {path}" in done.stdout
    token = (here / "api-keys").read_text().strip()
    assert len(token) >= 32
    assert token not in done.stdout
    assert load_keys(here / "cluster.toml").sealing == 1
    config = load(here / "firsthop.toml")
    check_edge(config)
    check_transceiver(config)


def test_the_next_commands_are_three_and_are_the_same_as_json(tmp_path: Path) -> None:
    said = json.loads(firsthop("init", "--dir", tmp_path / "a", "--media", "127.0.0.1:5000", "--json").stdout)
    assert [argv[3] for argv in said["next"]] == ["transceiver", "edge", "call"]
    assert said["config"] == str(tmp_path / "a/firsthop.toml")
    assert sorted(said["wrote"]) == sorted(
        str(tmp_path / "a" / n) for n in ("firsthop.toml", "cluster.toml", "api-keys")
    )
    shown = firsthop("init", "--dir", tmp_path / "b", "--media", "127.0.0.1:5000").stdout
    assert f"transceiver -c {tmp_path / 'b/firsthop.toml'}\n" in shown


def test_two_hosts_have_other_secrets(tmp_path: Path) -> None:
    for name in "ab":
        assert firsthop("init", "--dir", tmp_path / name, "--media", "127.0.0.1:5000").returncode == 0
    for file in ("cluster.toml", "api-keys"):
        assert (tmp_path / "a" / file).read_text() != (tmp_path / "b" / file).read_text()


@pytest.mark.parametrize("name", ["firsthop.toml", "cluster.toml", "api-keys"])
def test_init_overwrites_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    line = one_line(firsthop("init", "--dir", tmp_path))
    assert f"{tmp_path / name} is there already" in line
    assert "--keep" in line
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_init_takes_another_hosts_secrets_when_told_to_keep_them(tmp_path: Path) -> None:
    keys = tmp_path / "cluster.toml"
    secretfile.create(keys, new_file_text())
    before = keys.read_text()
    done = firsthop("init", "--dir", tmp_path, "--media", "127.0.0.1:5000", "--keep")
    assert done.returncode == 0, done.stderr
    assert f"kept   {keys}" in done.stdout
    assert keys.read_text() == before
    assert load(tmp_path / "firsthop.toml").cluster.keys == keys


@pytest.mark.parametrize(
    ("secret", "permissions", "said"), [("nonsense", 0o600, "not TOML"), ("", 0o644, "everybody can read it")]
)
def test_secrets_that_no_service_would_start_with_are_not_kept(
    tmp_path: Path, secret: str, permissions: int, said: str
) -> None:
    keys = tmp_path / "cluster.toml"
    keys.write_text(secret or new_file_text())
    keys.chmod(permissions)
    assert said in one_line(firsthop("init", "--dir", tmp_path, "--keep"))
    assert list(tmp_path.iterdir()) == [keys]


@pytest.mark.parametrize("folder", ["/proc/firsthop", "/dev/null/firsthop"])
def test_a_folder_that_cannot_be_made_is_one_line(folder: str) -> None:
    assert f"{folder}" in one_line(firsthop("init", "--dir", folder))


def test_a_folder_too_deep_for_sockets_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    assert "107 bytes" in one_line(firsthop("init", "--dir", tmp_path / ("x" * 100)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--media", "edge.example:3478"], "is not a numeric address"),
        (["--media", "0.0.0.0:3478"], "name one address"),
        (["--media", "127.0.0.1:6000"], "browsers send no media to port 6000"),
        (["--http", "127.0.0.1:0"], "port 0"),
        (["--http", "127.0.0.1"], "is not a numeric address"),
        (["--advertise", "203.0.113.1:22"], "browsers send no media to port 22"),
        (["--tls-certificate", __file__], "both or neither"),
        (["--user", "nobody-of-that-name"], "no user nobody-of-that-name"),
    ],
)
def test_an_option_that_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, options: list[str], said: str
) -> None:
    done = firsthop("init", "--dir", tmp_path / "etc", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_root
def test_files_may_be_made_for_the_user_of_the_units(tmp_path: Path) -> None:
    here = tmp_path / "etc"
    assert firsthop("init", "--dir", here, "--media", "127.0.0.1:5000", "--user", "nobody").returncode == 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (here, *here.iterdir())} == {(65534, 65534)}
    assert mode(here / "cluster.toml") == 0o600


# --- what it finds out


def planned(host: Host, **wishes: Any) -> tuple[Plan, dict[str, Any]]:
    plan = plan_for(host, Path("/etc/firsthop"), **{**WISHES, **wishes})
    return plan, tomllib.loads(text(plan))


def test_root_on_a_host_with_a_route_gets_its_address_its_interface_and_a_core_for_each_call_maker() -> None:
    host = Host(
        "203.0.113.10",
        {"127.0.0.1": "lo", "203.0.113.10": "ens5"},
        frozenset(["ens5"]),
        [0, 1, 2, 3, 4, 5, 6, 7],
        root=True,
    )
    _, config = planned(host)
    assert config["edge"]["media"] == "203.0.113.10:3478"
    assert config["edge"]["interface"] == "ens5"
    assert config["edge"]["http"] == "127.0.0.1:8080"
    assert config["edge"]["cores"] == [0, 1]
    assert config["transceiver"]["cores"] == [2, 3, 4, 5, 6, 7]
    assert config["edge"]["transceivers"][0]["processes"] == 6
    # What is a default is not said.
    assert not {"run", "api_keys", "name", "pins"} & config["edge"].keys()
    assert "cluster" not in config


def test_who_cannot_attach_xdp_has_no_interface_configured() -> None:
    host = Host("203.0.113.10", {"203.0.113.10": "ens5"}, frozenset(["ens5"]), [0], root=False)
    _, config = planned(host)
    assert "interface" not in config["edge"]
    assert "cores" not in config["edge"] | config["transceiver"]


def test_a_host_without_a_route_is_its_own_and_has_no_xdp() -> None:
    _, config = planned(Host("127.0.0.1", {"127.0.0.1": "lo"}, frozenset(), [0, 1], root=True))
    assert (config["edge"]["media"], config["edge"].get("interface")) == ("127.0.0.1:3478", None)


def test_in_a_container_there_is_no_xdp_unless_it_is_asked_for() -> None:
    host = Host("172.17.0.2", {"172.17.0.2": "eth0"}, frozenset(), [0], root=True)
    assert "interface" not in planned(host)[1]["edge"]
    assert planned(host, interface="eth0")[1]["edge"]["interface"] == "eth0"


def test_an_address_of_version_6_is_written_in_brackets() -> None:
    host = Host("2001:db8::5", {"2001:db8::5": "eth0"}, frozenset(["eth0"]), [0], root=True)
    _, config = planned(host)
    assert (config["edge"]["media"], config["edge"]["interface"]) == ("[2001:db8::5]:3478", "eth0")


def test_a_certificate_puts_signaling_on_the_media_address() -> None:
    host = Host("203.0.113.10", {}, frozenset(), [0], root=True)
    _, config = planned(host, certificate=Path("/c.pem"), key=Path("/k.pem"))
    assert config["edge"]["http"] == "203.0.113.10:8443"
    assert (config["edge"]["tls_certificate"], config["edge"]["tls_key"]) == ("/c.pem", "/k.pem")


def test_this_host_is_found_without_asking() -> None:
    host = Host.found()
    assert host.cpus == sorted(os.sched_getaffinity(0))
    assert host.interfaces["127.0.0.1"] == "lo"
    assert host.address == "127.0.0.1" or host.address in host.interfaces


# --- and that it works


@contextmanager
def running(*argvs: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with ExitStack() as ended, log.open("ab") as errors:
        for argv in argvs:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env={**os.environ, **environment}
            )
            ended.callback(process.wait, 60)
            ended.callback(process.send_signal, signal.SIGTERM)
        yield


def test_what_init_writes_runs_and_answers_a_call(tmp_path: Path) -> None:
    """As a person would: init, and then the three commands that it says."""
    (media,), (http,) = ports(1, socket.SOCK_DGRAM), ports(1)
    here, log = tmp_path / "etc", tmp_path / "log"
    places = ["--media", f"127.0.0.1:{media}", "--http", f"127.0.0.1:{http}"]
    said = json.loads(firsthop("init", "--dir", here, *places, "--json").stdout)
    count = len(os.sched_getaffinity(0))
    first = run_of_ports(2 * count + 4)
    environment = {
        "FIRSTHOP_EDGE__METRICS": f"127.0.0.1:{first}",
        "FIRSTHOP_TRANSCEIVER__METRICS": f"127.0.0.1:{first + count + 2}",
    }
    transceiver, edge, call = said["next"]
    with running(transceiver, edge, environment=environment, log=log):
        until(lambda: ready(http))
        done = subprocess.run([*call, "--duration", "1"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (done.stdout, done.stderr, log.read_text())
        assert "1 of 1 calls good" in done.stdout
        assert firsthop("status", "-c", said["config"], **environment).returncode == 0
    assert "Traceback" not in log.read_text()


# --- who may read secrets


@pytest.mark.parametrize(
    ("owner", "permissions", "refused"),
    [
        (1000, 0o600, False),
        (1000, 0o400, False),
        (1000, 0o700, False),
        (1000, 0o640, True),
        (1000, 0o620, True),
        (1000, 0o604, True),
        (1000, 0o602, True),
        (0, 0o600, False),
        (0, 0o640, False),
        (0, 0o440, False),
        (0, 0o660, True),
        (0, 0o644, True),
        (0, 0o602, True),
    ],
)
def test_only_its_owner_reads_a_secret_and_a_group_where_that_is_root(
    owner: int, permissions: int, refused: bool
) -> None:
    assert bool(too_open(permissions, owner)) == refused


def test_what_is_wrong_and_what_to_do_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.touch(0o600)
    assert exposure(path) == ""
    path.chmod(0o644)
    assert exposure(path) == f"everybody can read it: chmod 600 '{path}'"
    path.chmod(0o622)
    assert exposure(path) == f"everybody can change it: chmod 600 '{path}'"
    path.chmod(0o660)
    assert exposure(path).startswith("its group can ")
    assert exposure(tmp_path / "nothing") == ""
    assert exposure(Path("/dev/null")) == ""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The configuration of a host, with every file of secrets that there is."""
    assert firsthop("init", "--dir", tmp_path / "etc", "--media", "127.0.0.1:5000").returncode == 0
    here = tmp_path / "etc"
    for name in ("tls.key", "pipeline-key", "realtime-key", "redis-password"):
        secretfile.create(here / name, "secret\n")
    config = here / "firsthop.toml"
    config.write_text(
        config.read_text().replace("# tls_", "tls_")
        + f'[agents.pipeline]\nkey_file = "{here}/pipeline-key"\n[agents.realtime]\nkey_file = "{here}/realtime-key"\n'
        + f'[directory]\nredis = "redis://127.0.0.1"\npassword_file = "{here}/redis-password"\n'
    )
    return config


@pytest.mark.parametrize("permissions", [0o644, 0o604, 0o660, 0o602])
@pytest.mark.parametrize(
    ("command", "key", "name"),
    [
        ("edge", "cluster.keys", "cluster.toml"),
        ("edge", "edge.api_keys", "api-keys"),
        ("edge", "edge.tls_key", "tls.key"),
        ("edge", "directory.password_file", "redis-password"),
        ("transceiver", "directory.password_file", "redis-password"),
        ("transceiver", "cluster.keys", "cluster.toml"),
        ("transceiver", "agents.pipeline.key_file", "pipeline-key"),
        ("transceiver", "agents.realtime.key_file", "realtime-key"),
    ],
)
def test_a_service_starts_with_no_secret_that_others_can_get_at(
    host: Path, command: str, key: str, name: str, permissions: int
) -> None:
    check = {"edge": check_edge, "transceiver": check_transceiver}[command]
    config = load(host)
    check(config)
    path = host.parent / name
    path.chmod(permissions)
    with pytest.raises(ConfigError, match=rf"^{key}: {path}: .* can .* it: chmod 6[04]0 {path}$"):
        check(config)


@pytest.mark.parametrize("command", [["edge"], ["edge", "--check"], ["transceiver"]])
def test_the_command_says_so_in_one_line(host: Path, command: list[str]) -> None:
    (host.parent / "cluster.toml").chmod(0o644)
    line = one_line(firsthop(*command, "-c", host))
    assert line.endswith(f"everybody can read it: chmod 600 {host.parent / 'cluster.toml'}")


def test_a_key_file_of_an_agent_that_is_not_there_is_said_at_the_start(host: Path) -> None:
    (host.parent / "realtime-key").unlink()
    assert "agents.realtime.key_file: " in one_line(firsthop("transceiver", "-c", host))


def test_keys_new_writes_for_its_owner_alone_and_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    done = firsthop("keys", "new", "-o", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mode(path) == 0o600
    before = path.read_text()
    assert load_keys(path).sealing == 1
    assert "is there already" in one_line(firsthop("keys", "new", "-o", path))
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]
    assert "No such file" in one_line(firsthop("keys", "new", "-o", tmp_path / "none/cluster.toml"))


def test_keys_new_narrows_the_file_that_a_shell_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    with path.open("w") as made:
        assert mode(path) == 0o644
        subprocess.run([*FIRSTHOP, "keys", "new"], stdout=made, check=True, timeout=60)
    assert mode(path) == 0o600
    assert load_keys(path).sealing == 1


@pytest.mark.needs_root
def test_keys_new_leaves_a_file_that_a_group_of_roots_may_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.touch()
    path.chmod(0o640)
    with path.open("w") as made:
        subprocess.run([*FIRSTHOP, "keys", "new"], stdout=made, check=True, timeout=60)
    assert mode(path) == 0o640


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o644])
def test_a_rotation_keeps_the_permissions_and_says_what_is_wrong_with_them(tmp_path: Path, permissions: int) -> None:
    path = tmp_path / "cluster.toml"
    secretfile.create(path, new_file_text(), mode=permissions)
    # A host where nothing of firsthop answers.
    first = run_of_ports(3)
    places = {"EDGE__METRICS": f"127.0.0.1:{first}", "TRANSCEIVER__METRICS": f"127.0.0.1:{first + 1}"}
    settings = {f"FIRSTHOP_{name}": value for name, value in places.items()}
    done = firsthop("keys", "rotate", "--file", path, **settings, FIRSTHOP_TRANSCEIVER__ID="99")
    assert done.returncode == 0, done.stderr
    assert mode(path) == permissions
    assert ("chmod 600" in done.stderr) == (permissions == 0o644)
