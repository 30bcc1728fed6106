"""The commands that look before something runs: doctor, and config show and check."""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from configuring import firsthop, one_line, written
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from firsthop import clocks, examining
from firsthop.clocks import Reading
from runtime.address import Address, Endpoint
from runtime.config import Edge, load
from transceiver import compiled
from wire.express import door_of

pytestmark = pytest.mark.usefixtures("no_settings")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a host on which everything that can be asked for anywhere is well."""
    keys, api_keys = tmp_path / "cluster.toml", tmp_path / "api-keys"
    _, text, _ = firsthop("keys", "new")
    for path, content in ((keys, text), (api_keys, "token\n")):
        path.write_text(content)
        path.chmod(0o600)
    return written(
        tmp_path,
        f'[cluster]\nkeys = "{keys}"\n[edge]\napi_keys = "{api_keys}"\nrun = "{tmp_path}"\n'
        f'media = "127.0.0.1:3478"\nhttp = "127.0.0.1:8081"\nmetrics = "127.0.0.1:9400"\n'
        f'[[edge.ice_servers]]\nurl = "turn:turn.example"\nusername = "u"\ncredential = "hush"\n'
        f'[[edge.transceivers]]\nid = 1\nendpoint = "ipc://{tmp_path}/t.sock"\n',
    )


def told(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of doctor, and its findings by subject."""
    code, output, _ = firsthop("doctor", "--config", str(path), "--json")
    return code, {finding["subject"]: finding for finding in json.loads(output)}


def test_doctor_tells_that_a_transceiver_is_away_and_when_it_is_there(config: Path, tmp_path: Path) -> None:
    code, found = told(config)
    assert (code, found["transceiver 1"]["state"]) == (3, "wrong")
    assert "t.sock" in found["transceiver 1"]["seen"]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "t.sock"))
        sock.listen()
        _, found = told(config)
    assert found["transceiver 1"]["state"] == "ok"


def test_doctor_tells_who_can_read_a_secret_and_what_to_do(config: Path, tmp_path: Path) -> None:
    (tmp_path / "api-keys").chmod(0o644)
    code, found = told(config)
    assert (code, found["edge.api_keys"]["state"], found["cluster.keys"]["state"]) == (3, "wrong", "ok")
    assert found["edge.api_keys"]["what_to_do"] == f"chmod 600 {tmp_path}/api-keys"


def test_doctor_prints_a_line_for_each_thing(config: Path) -> None:
    _, output, _ = firsthop("doctor", "--config", str(config))
    subjects = {line[8:].partition(":")[0] for line in output.splitlines() if not line.startswith(" ")}
    assert subjects == set(told(config)[1])
    assert {"clock", "cluster.keys", "edge.media", "edge.http", "edge.metrics", "transceiver 1"} <= subjects


def test_doctor_of_a_configuration_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "[edge]\nmdeia = 1\n")
    code, _, errors = firsthop("doctor", "--config", str(path))
    assert one_line(code, errors) == f"firsthop: {path}: edge.mdeia: no such key\n"


@pytest.mark.parametrize(("release", "state"), [("6.1.0-31-amd64", "ok"), ("5.9.0", "ok"), ("5.8.18", "wrong")])
def test_a_kernel_that_is_too_old_is_told(release: str, state: str) -> None:
    assert examining.kernel(release).state == state


def test_an_interface_is_told_by_driver_and_queues(tmp_path: Path) -> None:
    eth0 = tmp_path / "eth0"
    for queue in ("rx-0", "rx-1", "tx-0"):
        (eth0 / "queues" / queue).mkdir(parents=True)
    (eth0 / "operstate").write_text("up\n")
    (tmp_path / "drivers/ixgbe").mkdir(parents=True)
    (eth0 / "device").mkdir()
    (eth0 / "device/driver").symlink_to(tmp_path / "drivers/ixgbe")
    there, queues = examining.interface("eth0", 2, tmp_path)
    assert (there.state, there.seen, queues.state) == ("ok", "eth0, driver ixgbe", "ok")
    there, queues = examining.interface("eth0", 3, tmp_path)
    assert (queues.state, queues.what_to_do.startswith("ethtool -L eth0 combined 3")) == ("warning", True)
    (eth0 / "operstate").write_text("down\n")
    assert next(examining.interface("eth0", 1, tmp_path)).what_to_do == "ip link set eth0 up"
    (missing,) = examining.interface("eth1", 1, tmp_path)
    assert (missing.state, "eth0" in missing.what_to_do) == ("wrong", True)


def test_pins_in_no_bpf_filesystem_are_told(tmp_path: Path) -> None:
    assert examining.bpffs(tmp_path / "firsthop").state == "warning"


def test_a_port_that_another_program_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address.of(*taken.getsockname())
        found = examining.tcp_port("edge.http", address)
        answered = examining.endpoint("edge b", Endpoint(f"tcp://{address}"))
    assert f"{address} is taken" in found.seen
    assert answered.state == "ok"
    assert examining.tcp_port("edge.http", Address("192.0.2.1:80")).state == "wrong"
    assert examining.udp_port("edge.media", Address("127.0.0.1:0")).state == "ok"


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (10, "warning"), (-1, "wrong")])
def test_a_certificate_is_told_by_its_end(tmp_path: Path, days: int, state: str) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=100))
        .not_valid_after(NOW + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "tls.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    assert examining.certificate(path, NOW.timestamp()).state == state
    path.write_text("no certificate")
    assert examining.certificate(path, NOW.timestamp()).state == "wrong"


@pytest.mark.parametrize(
    ("sizes", "state", "todo"),
    [
        ({"rmem_max": 8 << 20, "wmem_max": 4 << 20}, "ok", ""),
        (
            {"rmem_max": 212992, "wmem_max": 4 << 20},
            "warning",
            "sysctl -w net.core.rmem_max=8388608, and in /etc/sysctl.d",
        ),
        ({"rmem_max": 8 << 20}, "warning", ""),
    ],
    ids=["enough", "the kernel's own", "a container"],
)
def test_small_socket_buffers_are_told(tmp_path: Path, sizes: dict[str, int], state: str, todo: str) -> None:
    for name, size in sizes.items():
        (tmp_path / name).write_text(f"{size}\n")
    found = examining.buffers(tmp_path)
    assert (found.state, found.what_to_do) == (state, todo)


@pytest.mark.parametrize(
    ("reading", "apart_s", "state"),
    [
        # Whole seconds, and an answer that took 2 s: what cannot be told apart is well.
        (Reading(1000, 1001, 1000.9, 1002.9), 0, "ok"),
        (Reading(1000, 1001, 1004.5, 1005.0), -3.5, "warning"),
        (Reading(1010, 1011, 1004.5, 1005.0), 5.0, "warning"),
        (Reading(1400, 1400, 1000, 1000.1), 399.9, "wrong"),
    ],
)
def test_a_clock_is_told_by_the_least_that_it_can_be_apart(reading: Reading, apart_s: float, state: str) -> None:
    assert reading.apart_s == pytest.approx(apart_s)
    assert clocks.finding("gpu-1", reading).state == state


@pytest.mark.parametrize(
    ("behind_s", "state"), [(0, "ok"), (3600, "wrong"), (None, "warning")], ids=["the same", "an hour", "no time"]
)
def test_another_hosts_clock_is_read_from_what_serves_its_metrics(behind_s: int | None, state: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                date = formatdate(time.time() - (behind_s or 0), usegmt=True)
                header = f"Date: {date}\r\n" if behind_s is not None else "Date: tomorrow\r\n"
                connection.sendall(f"HTTP/1.1 200 OK\r\n{header}Content-Length: 0\r\n\r\n".encode())

        answering = threading.Thread(target=answer)
        answering.start()
        found = clocks.asked(Address.of(*listening.getsockname()))
        answering.join()
    assert (found.state, found.subject) == (state, "clock of 127.0.0.1")


def test_a_host_that_does_not_say_its_time_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = Address.of(*listening.getsockname())
    assert clocks.asked(address).state == "warning"


def test_clocks_are_asked_for_on_the_other_hosts_alone(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[edge]\nname = "a"\nmedia = "192.0.2.1:3478"\nmetrics = "192.0.2.1:9401"\n'
        '[transceiver]\nmetrics = "192.0.2.1:9501"\n'
        '[[edge.edges]]\nname = "a"\nmedia = "192.0.2.1:3478"\nendpoint = "tcp://192.0.2.1:7450"\n'
        '[[edge.edges]]\nname = "b"\nmedia = "192.0.2.2:3478"\nendpoint = "tcp://192.0.2.2:7450"\n'
        '[[edge.transceivers]]\nid = 1\nendpoint = "tcp://192.0.2.1:7400"\n'
        '[[edge.transceivers]]\nid = 2\nendpoint = "tcp://192.0.2.3:7400"\nprocesses = 2\n'
        '[[edge.transceivers]]\nid = 9\nendpoint = "ipc:///run/t.sock"\n',
    )
    assert clocks.others(load(path)) == {"192.0.2.2": "192.0.2.2:9401", "192.0.2.3": "192.0.2.3:9501"}


def test_what_is_in_force_is_shown_without_passwords(config: Path) -> None:
    code, output, _ = firsthop("config", "show", "--config", str(config), FIRSTHOP_EDGE__NAME="e2")
    assert code == 0
    assert 'edge.name = "e2"' in output
    assert 'edge.http = "127.0.0.1:8081"' in output
    assert "edge.placement" not in output
    assert "hush" not in output
    _, everything, _ = firsthop("config", "show", "--all", "--config", str(config))
    assert 'edge.placement = "latency"' in everything
    _, text, _ = firsthop("config", "show", "--json", "--config", str(config))
    assert "hush" not in text
    assert json.loads(text)["edge"]["placement"] == "latency"


def test_a_configuration_is_checked_for_each_service_that_it_has(config: Path, tmp_path: Path) -> None:
    code, output, errors = firsthop("config", "check", "--config", str(config))
    assert (code, output) == (0, "edge would run\n"), errors
    config.write_text(config.read_text() + f'[transceiver]\nagent = "nosuch"\nendpoint = "ipc://{tmp_path}/t.sock"\n')
    code, _, errors = firsthop("config", "check", "--config", str(config))
    assert one_line(code, errors).startswith("firsthop: transceiver.agent: no agent called 'nosuch'")


def test_doctor_tells_whether_media_can_go_past_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_runs", lambda: True)
    here = {"id": 1, "endpoint": Endpoint("ipc:///run/t.sock")}
    edge = Edge(run=tmp_path, express="auto", transceivers=[here])
    found = examining.express(edge)
    assert (found.state, f"{tmp_path}/edge.express: No such file" in found.seen) == ("warning", True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(door_of(tmp_path, "edge")))
        door.listen()
        assert examining.express(edge).seen == f"{tmp_path}/edge.express answers"
    away = {"id": 1, "endpoint": Endpoint("tcp://10.0.0.5:7400")}
    assert "no transceiver of this host" in examining.express(Edge(express="auto", transceivers=[away])).seen
    assert examining.express(Edge(express="off", transceivers=[here])).seen.startswith("off")


@pytest.mark.parametrize(
    ("chosen", "state", "seen"),
    [
        (Path("/made"), "ok", "compiled"),
        (compiled.NEVER, "ok", "Python's own, because no compiled form was made"),
        (compiled.OFF, "ok", "Python's own, because FIRSTHOP_COMPILED is off"),
        (compiled.STALE, "warning", "Python's own, because the compiled form is of another source"),
    ],
)
def test_doctor_tells_which_form_of_the_code_packets_go_through(
    monkeypatch: pytest.MonkeyPatch, chosen: Path | str, state: str, seen: str
) -> None:
    monkeypatch.setattr(compiled, "choose", lambda: chosen)
    found = examining.code()
    assert (found.state, found.seen) == (state, seen)
    assert ("transceiver.compiled.build" in found.what_to_do) == (state == "warning")
