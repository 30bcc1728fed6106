"""The documents' own steps, from nothing to the first call and to services: what they say is what runs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner
from hosting import ports, ready, run_of_ports
from paths import OPERATIONS, README, ROOT, steps
from waiting import until

from firsthop.cli import main


def test_the_readmes_steps_lead_to_a_call_on_a_host_where_nothing_is(tmp_path: Path) -> None:
    """With another folder and other ports than this machine's own, and on loopback; else as it stands there."""
    setup, init, *services, call = steps(README, "From a bare host to a first call")
    assert setup == ["scripts/setup"]
    assert (ROOT / setup[0]).stat().st_mode & 0o111
    (media,), (http,) = ports(1, socket.SOCK_DGRAM), ports(1)
    count = len(os.sched_getaffinity(0))
    first = run_of_ports(2 * count + 4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTHOP_")} | {
        "FIRSTHOP_EDGE__METRICS": f"127.0.0.1:{first}",
        "FIRSTHOP_TRANSCEIVER__METRICS": f"127.0.0.1:{first + count + 2}",
    }

    def here(argv: list[str], *more: str) -> list[str]:
        assert argv[0] == ".venv/bin/firsthop"
        changed = [each.replace("/etc/firsthop", str(tmp_path / "etc")) for each in argv[1:]]
        changed = [each.replace("127.0.0.1:8080", f"127.0.0.1:{http}") for each in changed]
        return [sys.executable, "-m", "firsthop", *changed, *more]

    places = ["--dir", str(tmp_path / "etc"), "--media", f"127.0.0.1:{media}", "--http", f"127.0.0.1:{http}"]
    subprocess.run(here(init, *places), env=environment, check=True, timeout=60)
    log = tmp_path / "log"
    with ExitStack() as ended, log.open("ab") as errors:
        for service in services:
            process = subprocess.Popen(here(service), env=environment, stdin=subprocess.DEVNULL, stderr=errors)
            ended.callback(process.wait, 60)
            ended.callback(process.send_signal, signal.SIGTERM)
        until(lambda: ready(http))
        done = subprocess.run(here(call, "--duration", "1"), env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout, log.read_text())
    assert [argv[1] for argv in services] == ["transceiver", "edge"]
    assert "Traceback" not in log.read_text()


def test_the_units_and_the_steps_that_install_them_agree() -> None:
    commands = [" ".join(argv) for argv in steps(OPERATIONS, "Services")]
    units = {path.name: path.read_text() for path in (ROOT / "systemd").glob("*.service")}
    assert set(units) == {"firsthop-edge.service", "firsthop-transceiver@.service"}
    for text in units.values():
        (user,) = re.findall(r"^User=(.*)$", text, re.MULTILINE)
        (start,) = re.findall(r"^ExecStart=(\S+) .* --config (\S+)$", text, re.MULTILINE)
        assert start[1] == "/etc/firsthop/firsthop.toml"
        assert f"{start[0]} init --user {user}" in commands
        python = start[0].removesuffix("bin/firsthop")
        assert f"/usr/bin/python3 -m venv --system-site-packages {python.rstrip('/')}" in commands
        assert f"cp {python}share/firsthop/systemd/firsthop* /etc/systemd/system/" in commands
        assert any(command.startswith("useradd ") and command.endswith(f" {user}") for command in commands)
    (enabled,) = [command for command in commands if "enable" in command]
    assert {f"{name.partition('@')[0]}" for name in enabled.split()[3:]} == {"firsthop-transceiver", "firsthop-edge"}


@pytest.mark.parametrize(
    "line",
    [
        line
        for line in (README.read_text() + OPERATIONS.read_text()).splitlines()
        if re.match(r"(\S*/)?firsthop [a-z]", line)
    ],
)
def test_a_command_in_the_documents_has_options_that_there_are(line: str) -> None:
    argv = shlex.split(line, comments=True)
    names = [word for word in argv[1:3] if re.fullmatch(r"[a-z]+", word)]
    groups = {"keys", "cores", "config"}
    command = names[:2] if names[0] in groups and len(names) > 1 else names[:1]
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0, done.stderr
    for option in [word for word in argv if word.startswith("-")]:
        assert re.search(rf"(^|[ ,]){re.escape(option)}\b", done.stdout), option
