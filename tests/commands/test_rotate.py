"""``firsthop keys rotate``: the command on a file, and the whole of it under calls that must not notice."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from observing import moved, received, xdp
from paths import SUPPORT
from privileges import NOBODY
from waiting import until

from firsthop import rotate
from firsthop.cli import main
from firsthop.status import Scrape
from firsthop.status_cli import Host
from lab.appliance import Appliance, Loopback, Place
from lab.network import Lab
from runtime import secretfile
from wire.keys import load, new_file_text
from wire.ufrag import key_id, ufrag_of_call


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file on a host where nothing of firsthop runs."""
    monkeypatch.setattr(Host, "look", lambda self: ({}, {}))
    path = tmp_path / "cluster.toml"
    path.write_text(new_file_text())
    path.chmod(0o600)
    return path


class Process:
    """One that reports the keys that ``keys()`` says, and calls under some of them."""

    def __init__(self, keys: Callable[[], list[int]], calls: dict[int, int] | None = None) -> None:
        self._keys = keys
        self._calls = calls or {}

    def scrape(self) -> Scrape:
        samples = {("firsthop_transceiver_key_sessions", str(i)): float(n) for i, n in self._calls.items()}
        for i, key in enumerate(self._keys()):
            samples["firsthop_ufrag_key", str(key), "accepted" if i else "sealing"] = 1.0
        return Scrape(0.0, samples)


def running(monkeypatch: pytest.MonkeyPatch, **processes: Process) -> None:
    monkeypatch.setattr(Host, "look", lambda self: ({name: p.scrape() for name, p in processes.items()}, {}))
    monkeypatch.setattr(rotate, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(rotate, "_LOOK_EVERY_S", 0.01)


def run(file: Path, *options: str) -> tuple[int, list[str], list[str]]:
    """Exit code, lines on standard output, lines on standard error."""
    result = CliRunner().invoke(main, ["keys", "rotate", "--file", str(file), *options], catch_exceptions=False)
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


def ids(file: Path) -> list[int]:
    return list(load(file).ufrag)


# --- on a file


def test_a_host_where_nothing_runs_is_rotated_at_once(file: Path) -> None:
    old = load(file)
    assert run(file) == (
        0,
        [
            "prepared: key 2 is accepted, and seals nothing yet",
            "promoted: key 2 seals; key 1 is accepted until the next rotation",
            "nothing of firsthop answers on this host",
        ],
        [],
    )
    new = load(file)
    assert list(new.ufrag) == [2, 1]
    assert (new.link, new.ufrag[1]) == (old.link, old.ufrag[1])
    assert new.ufrag[2] != old.ufrag[1]
    assert run(file)[1][0] == "prepared: key 3 is accepted, and seals nothing yet; dropped: key 1"
    assert ids(file) == [3, 2]


def test_step_by_step_it_says_what_comes_next(file: Path) -> None:
    code, said, _ = run(file, "--step")
    assert (code, ids(file)) == (0, [1, 2])
    assert f"next: copy {file} to every other host" in said[-1]
    assert 'firsthop_ufrag_key{id="2"}' in said[-1]
    code, said, _ = run(file, "--step")
    assert (code, ids(file)) == (0, [2, 1])
    assert said[-1] == f"next: copy {file} to every other host"


def test_json_says_the_same_to_programs_and_nothing_shows_a_key(file: Path) -> None:
    code, said, _ = run(file, "--json")
    assert code == 0
    assert json.loads("".join(said)) == {
        "ok": True,
        "file": str(file),
        "unasked": [],
        "asked": [],
        "steps": [
            {"name": "prepare", "key": 2, "dropped": [], "cut_off": 0},
            {"name": "promote", "key": 2, "dropped": [], "cut_off": 0},
        ],
        "sealing": 2,
        "accepted": [1],
        "next": None,
        "error": None,
    }
    secrets = [entry["key"] for entry in tomllib.loads(file.read_text())["ufrag"]]
    assert not any(secret in "".join(said) for secret in secrets)


def test_owner_and_mode_stay_and_nothing_else_is_left_in_the_folder(file: Path) -> None:
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 12345, 54321)
    before = file.stat()
    assert run(file)[0] == 0
    after = file.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert list(file.parent.iterdir()) == [file]


def test_a_link_to_the_file_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert run(link)[0] == 0
    assert link.is_symlink()
    assert ids(file) == [2, 1]


def refused(file: Path, *options: str, code: int = 1) -> str:
    """The one line that says why, after which the file is as it was."""
    before = file.read_bytes() if file.exists() else None
    got, said, errors = run(file, *options)
    assert (got, said) == (code, [])
    assert (file.read_bytes() if file.exists() else None) == before
    (line,) = errors
    assert line.startswith("firsthop: ")
    return line


def test_a_file_that_is_not_there_or_not_good_is_one_line_and_exit_code_2(file: Path, tmp_path: Path) -> None:
    assert "firsthop keys new" in refused(tmp_path / "none.toml", code=2)
    file.write_text(file.read_text() + 'note = "of a person"\n')
    assert "ufrag.note is not known" in refused(file, code=2)


def test_a_wrong_configuration_is_one_line_and_exit_code_2(file: Path, tmp_path: Path) -> None:
    assert "no such file" in refused(file, "--config", str(tmp_path / "none.toml"), code=2)


def test_a_folder_that_is_not_there_is_one_line(file: Path) -> None:
    assert "No such file" in refused(file.parent / "none" / "cluster.toml", code=2)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


AS_NOBODY = """
import sys
from firsthop.cli import main
main(["keys", "rotate", "--file", sys.argv[1]])
"""


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("owner", "file_mode", "folder_mode"),
    [(65534, 0o400, 0o777), (0, 0o666, 0o777), (65534, 0o600, 0o755)],
    ids=["read-only", "another's", "folder"],
)
def test_what_this_user_may_not_write_is_refused_and_stays(
    owner: int, file_mode: int, folder_mode: int, open_folder: Path
) -> None:
    file = open_folder / "cluster.toml"
    file.write_text(new_file_text())
    os.chown(file, owner, owner)
    file.chmod(file_mode)
    open_folder.chmod(folder_mode)
    before = file.read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(file)],
        **NOBODY,
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"firsthop: {file}: ")
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_disk_that_is_full_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(file)
    assert list(file.parent.iterdir()) == [file]


def test_two_rotations_do_not_run_at_once(file: Path) -> None:
    with secretfile.locked(file):
        assert "another rotation of" in refused(file)
    assert run(file)[0] == 0


# --- and the processes of the host


def test_every_process_that_answers_is_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def late() -> list[int]:
        nonlocal looks
        looks += 1
        return ids(file) if looks % 5 == 0 else [1]

    running(monkeypatch, supervisor=Process(lambda: ids(file)), transceiver=Process(late))
    code, said, _ = run(file)
    assert (code, said[-1]) == (0, "taken by supervisor, transceiver")
    assert looks == 10


def test_who_does_not_take_the_new_key_is_named_and_running_again_goes_on(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Process(lambda: [1])
    running(monkeypatch, supervisor=Process(lambda: ids(file)), worker_1=stuck, worker_0=stuck)
    code, said, (error,) = run(file)
    assert (code, ids(file)) == (1, [1, 2])
    assert said == ["prepared: key 2 is accepted, and seals nothing yet"]
    assert error.startswith("firsthop: worker_0, worker_1: key 2 was not taken within")
    assert "run this again to go on" in error
    # Still not: nothing moves.
    assert "worker_0, worker_1: other keys than in" in refused(file)
    running(monkeypatch, supervisor=Process(lambda: ids(file)))
    code, said, _ = run(file)
    assert (code, ids(file)) == (0, [2, 1])
    assert said[0] == "promoted: key 2 seals; key 1 is accepted until the next rotation"


def test_who_was_there_and_falls_silent_is_not_forgotten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    looks = iter(range(10**6))
    there = {"worker-0": Process(lambda: ids(file))}

    def look(_: Host) -> tuple[dict[str, Scrape], dict[str, str]]:
        return ({name: p.scrape() for name, p in there.items()} if next(looks) == 0 else {}), {}

    monkeypatch.setattr(Host, "look", look)
    code, _, (error,) = run(file)
    assert (code, ids(file)) == (1, [1, 2])
    assert "worker-0: key 2 was not taken" in error


def test_a_key_under_which_calls_live_is_dropped_only_by_force(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(file)[0] == 0
    calls = {1: 3, 2: 40}
    running(monkeypatch, transceiver=Process(lambda: ids(file), calls))
    assert "3 calls under key 1, which this would drop" in refused(file)
    code, said, _ = run(file, "--force")
    assert (code, ids(file)) == (0, [3, 2])
    assert said[0].endswith("; dropped: key 1, and 3 calls with it")


def test_a_host_that_is_not_alone_is_rotated_in_steps(file: Path, tmp_path: Path) -> None:
    config = tmp_path / "firsthop.toml"

    def told(text: str, *options: str) -> tuple[int, list[str], list[str]]:
        config.write_text(f'[cluster]\nkeys = "{file}"\n' + text)
        return run(file, "--config", str(config), *options)

    edge_host = '[[edge.transceivers]]\nid = 7\nendpoint = "tcp://203.0.113.9:7400"\n'
    code, _, (error,) = told(edge_host)
    assert (code, ids(file)) == (1, [1])
    assert "transceiver-7 cannot be asked from here: use --step" in error
    assert told(edge_host, "--step")[1][1].endswith("; not asked: transceiver-7")
    assert "the edge cannot be asked" in told('[transceiver]\nendpoint = "tcp://127.0.0.1:7400"\n')[2][0]
    # On this host, but nobody knows where it says how it is.
    hidden = '[[edge.transceivers]]\nid = 12\nendpoint = "ipc:///run/12"\n'
    assert "transceiver-12 cannot be asked" in told(hidden)[2][0]


# --- the real thing


def rotated(place: Place, appliance: Appliance, *options: str, expect: int = 0) -> dict[str, Any]:
    """The words of the command on that host."""
    argv = [sys.executable, "-m", "firsthop", "keys", "rotate", "--config", str(appliance.config_file), "--json"]
    process = place.popen([*argv, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == expect, (output, errors)
    said: dict[str, Any] = json.loads(output)
    assert (said["error"] is None) == (expect == 0)
    return said


def processes(appliance: Appliance) -> list[str]:
    workers = sorted(name for name in appliance.children() if name.startswith("worker-") and name != "worker-spare")
    return ["edge", "signaling", *workers, "transceiver"]


def held(appliance: Appliance, process: str) -> dict[str, str]:
    """The role of each key id."""
    return {key[1]: key[2] for key in appliance.metrics(process) if key[0] == "firsthop_ufrag_key"}


def calls_under(appliance: Appliance, key: int) -> int:
    return received(appliance, "transceiver", "firsthop_transceiver_key_sessions").get(str(key), 0)


def start_calls(place: Place, appliance: Appliance, *options: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--json", "--quiet", "--model", "echo"]
    argv += ["--token-file", str(appliance.token_file), *options]
    return place.popen(argv, stdout=subprocess.PIPE)


def end_calls(calls: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Hangs up, and returns what the caller said. None of its calls may have failed."""
    calls.send_signal(signal.SIGINT)
    output, _ = calls.communicate(timeout=120)
    said: dict[str, Any] = json.loads(output)
    assert calls.returncode == 0, said
    return said


def assert_nothing_lost(said: dict[str, Any]) -> list[int]:
    """The key of each call that was up."""
    up = [call for call in said["per_call"] if call["outcome"] == "ok"]
    assert [(call["frames"]["lost"], call["packets"]["lost"]) for call in up] == [(0, 0)] * len(up)
    return [key_id(ufrag_of_call(call["call_id"])) for call in up]


def test_keys_rotate_under_calls_and_nobody_hears_it(lab: Lab, appliance: Appliance) -> None:
    """The lab's hosts read the same file, as if it were copied at once."""
    before = xdp(appliance)
    old = start_calls(lab.client, appliance, "-n", "3", "--duration", "600")
    argv = [sys.executable, str(SUPPORT / "odd_caller.py"), appliance.url, str(appliance.token_file)]
    mover = lab.client.popen([*argv, "told", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert mover.stdin is not None
    assert mover.stdout is not None
    until(lambda: appliance.metrics("edge")[("firsthop_xdp_flows",)] == 4)
    until(lambda: calls_under(appliance, 1) == 4)
    stream = start_calls(lab.client, appliance, "-n", "1000", "--rate", "3", "--duration", "2")
    until(lambda: calls_under(appliance, 1) > 4)

    said = rotated(lab.edge, appliance, "--step")
    assert (said["sealing"], said["accepted"]) == (1, [2])
    assert {"supervisor", "signaling", "worker-0"} <= set(said["asked"])
    # From the edge's host a transceiver is asked where it is on the same.
    one_host = appliance.transceiver is appliance.edge
    assert said["unasked"] == ([] if one_host else ["transceiver-1"])
    assert ("transceiver-1" in said["asked"]) == one_host
    until(lambda: all(held(appliance, p) == {"1": "sealing", "2": "accepted"} for p in processes(appliance)))
    assert calls_under(appliance, 2) == 0
    said = rotated(appliance.transceiver, appliance, "--step")
    assert (said["sealing"], said["accepted"]) == (2, [1])
    assert "transceiver-1" in said["asked"]
    assert one_host or said["asked"] == ["transceiver-1"]
    until(lambda: all(held(appliance, p) == {"1": "accepted", "2": "sealing"} for p in processes(appliance)))
    until(lambda: calls_under(appliance, 2) > 0)

    # A caller of the old key is given another address by its NAT, and is found and answered there.
    mover.stdin.write(b"move\n")
    mover.stdin.flush()
    assert json.loads(mover.stdout.readline())["gap_ms"] < 1000
    until(lambda: calls_under(appliance, 1) == 4)
    error = rotated(appliance.transceiver, appliance, "--step", expect=1)["error"]
    assert "4 calls under key 1, which this would drop" in error
    hung_up = received(appliance, "transceiver", "firsthop_transceiver_sessions_ended_total")["hangup"] + 3
    until(lambda: received(appliance, "transceiver", "firsthop_transceiver_sessions_ended_total")["hangup"] >= hung_up)
    assert set(assert_nothing_lost(end_calls(stream))) == {1, 2}
    until(lambda: calls_under(appliance, 2) == 0)
    # Only calls of the old key are left: what is answered now are their checks, each twice.
    answered = received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")["stun_answered"]
    until(
        lambda: (
            received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")["stun_answered"]
            >= answered + 8
        )
    )
    assert assert_nothing_lost(end_calls(old)) == [1] * 3
    output, _ = mover.communicate(timeout=60)
    said = json.loads(output)
    # What was on its way to the old address is lost, 40 to 81 ms of it on an idle machine: no more than the gap may be.
    assert said["sent"] - said["returned"] <= 50

    until(lambda: calls_under(appliance, 1) == 0)
    said = rotated(appliance.transceiver, appliance, "--step")
    assert said["steps"] == [{"name": "prepare", "key": 3, "dropped": [1], "cut_off": 0}]
    until(lambda: all(held(appliance, p) == {"2": "sealing", "3": "accepted"} for p in processes(appliance)))
    refusals = {verdict for verdict, _ in moved(before, xdp(appliance))} & {"stun_bad_ufrag", "stun_bad_tag"}
    assert not refusals
    workers = [received(appliance, p, "firsthop_rx_worker_datagrams_total") for p in processes(appliance)[2:-1]]
    assert sum(worker["stun_bad_ufrag"] for worker in workers) == 0


def test_one_command_rotates_a_host_and_a_new_worker_knows_the_new_key(tmp_path: Path) -> None:
    here = Loopback()
    with Appliance(tmp_path, http_port=18080, media_port=13478) as appliance:
        call = start_calls(here, appliance, "--duration", "600")
        until(lambda: calls_under(appliance, 1) == 1)
        said = rotated(here, appliance)
        assert [step["name"] for step in said["steps"]] == ["prepare", "promote"]
        assert len(said["asked"]) == len(processes(appliance))
        assert all(held(appliance, p) == {"1": "accepted", "2": "sealing"} for p in processes(appliance))
        assert "1 call under key 1" in rotated(here, appliance, expect=1)["error"]
        assert assert_nothing_lost(end_calls(call)) == [1]

        # Its orders are as old as the supervisor; the file is not.
        appliance.children()["worker-0"].send_signal(signal.SIGKILL)
        until(lambda: received(appliance, "edge", "firsthop_edge_restarts_total")["worker-0"] == 1)
        appliance.wait_ready()
        until(lambda: held(appliance, "worker-0") == {"1": "accepted", "2": "sealing"})
        call = start_calls(here, appliance, "-n", "4", "--duration", "600")
        until(lambda: calls_under(appliance, 2) == 4)
        until(lambda: calls_under(appliance, 1) == 0)
        assert rotated(here, appliance)["sealing"] == 3
        assert assert_nothing_lost(end_calls(call)) == [2] * 4
        until(lambda: calls_under(appliance, 2) == 0)
        log = tmp_path / "edge.log"
        changed = 2 * (len(processes(appliance)) - 1)
        until(lambda: log.read_text().count('"ufrag keys changed"') >= changed)
