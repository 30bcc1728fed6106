"""Playbooks where something is wrong with a host: what they say, what goes on meanwhile, how the next run recovers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rolling import NAMES, UNITS, Rollout, said, timed
from waiting import until

from lab.machines.hosts import Hosts
from lab.machines.image import image

pytestmark = [pytest.mark.trials, pytest.mark.needs_root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """Three hosts on which nothing is yet."""
    with Hosts(*NAMES, image=image()) as hosts:
        yield Rollout(hosts, tmp_path_factory.mktemp("rollout"))


@pytest.fixture(scope="module")
def before(rollout: Rollout) -> dict[str, str]:
    """What was on the hosts then."""
    return rollout.left()


@pytest.fixture
def running(rollout: Rollout) -> Rollout:
    """The hosts with everything installed and well."""
    rollout.settings = {}
    if "" in rollout.releases() or not rollout.ready():
        rollout.play("site.yml")
    return rollout


def test_a_host_that_cannot_have_xdp_is_told_and_a_taken_port_is_said(rollout: Rollout, before: dict[str, str]) -> None:
    edge = rollout.hosts["edge-1"]
    rollout.settings = {"edge_borrow_headers": False}
    kernel = edge.run("uname", "-r").strip()
    for link in ("build", "source"):
        edge.run("mv", f"/usr/lib/modules/{kernel}/{link}", f"/usr/lib/modules/{kernel}/no-{link}")
    refused = rollout.play("site.yml", ok=False)
    assert f"edge-1 has no headers for its kernel {kernel}, without which XDP cannot be compiled" in refused.words

    # Where there is no interface for it, and it has to be.
    rollout.settings = {"edge_media": f"{edge.address}:3478", "edge_xdp_required": True}
    refused = rollout.play("site.yml", "-e", "edge_interface=auto", ok=False)
    assert f"{edge.address} is on no network card of edge-1, so XDP is not attached" in refused.words

    # Headers that are borrowed, and another program at the edge's port.
    rollout.settings = {}
    listen = f"import socket, time; s = socket.create_server(('{edge.address}', 8080)); time.sleep(600)"
    with edge.popen(["python3", "-c", listen]) as taker:
        refused = rollout.play("site.yml", ok=False)
        assert f"edge.http: {edge.address} port 8080: the port is taken" in refused.words
        edge.run("pkill", "-f", "socket.create_server")
        taker.wait(60)
    rollout.play("site.yml")
    assert "xdp" in edge.run("ip", "link", "show", "eth0")
    for link in ("build", "source"):
        edge.run("test", "-e", f"/usr/lib/modules/{kernel}/{link}")
        edge.run("rm", f"/usr/lib/modules/{kernel}/no-{link}")


def test_a_key_that_others_can_read_or_that_is_another_is_put_right(running: Rollout) -> None:
    edge, gpu = running.hosts["edge-1"], running.hosts["gpu-2"]
    edge.run("chmod", "644", "/etc/firsthop/cluster.toml")
    edge.run("sh", "-c", f"! systemctl restart {UNITS['edge-1']}")
    assert "chmod 640" in edge.run(
        "journalctl", "--no-pager", "--output=cat", "--lines=20", f"--unit={UNITS['edge-1']}"
    )

    gpu.run("sh", "-c", "umask 077; /opt/firsthop/.venv/bin/firsthop keys new >/tmp/other.toml")
    gpu.run("sh", "-c", "cat /tmp/other.toml >/etc/firsthop/cluster.toml; rm /tmp/other.toml")
    gpu.run("systemctl", "stop", UNITS["gpu-2"])
    gpu.run("systemctl", "start", UNITS["gpu-2"])

    running.play("site.yml")
    assert edge.run("stat", "--format=%a %U %G", "/etc/firsthop/cluster.toml") == "640 root firsthop\n"
    assert len({running.hosts[name].run("sha256sum", "/etc/firsthop/cluster.toml") for name in NAMES}) == 1
    # The other key's transceivers are linked again: they take the calls when the others leave.
    running.hosts["gpu-1"].run("systemctl", "stop", UNITS["gpu-1"])
    try:
        until(running.ready)
        said(running.call("--duration", "1"))
    finally:
        running.hosts["gpu-1"].run("systemctl", "start", UNITS["gpu-1"])


def test_a_certificate_that_has_expired_does_not_get_to_an_edge(running: Rollout) -> None:
    certificate, key = running.folder / "tls.pem", running.folder / "tls.key"
    edge = running.hosts["edge-1"]
    pid = running.main("edge-1")
    make_certificate(certificate, key, edge.address, days=-1)
    running.settings = {"edge_tls_certificate": str(certificate), "edge_tls_key": str(key)}
    refused = running.play("site.yml", ok=False)
    assert f"{certificate} has expired, or does within a day" in refused.words
    assert edge.run("sh", "-c", "ls /etc/firsthop").split().count("tls.pem") == 0
    assert running.main("edge-1") == pid
    said(running.call("--duration", "1"))


def test_an_upgrade_in_which_a_host_dies_ends_there_and_the_next_run_goes_on(running: Rollout) -> None:
    running.wheel = running.build("0.1.1")
    calls = running.call("-n", "4", "--duration", "3000")
    until(lambda: running.live() == 4)
    dying = running.hosts["gpu-1"]

    def die() -> None:
        until(lambda: running.main("gpu-1") == "0")
        dying.cut_power()

    with timed("upgrade.yml, in which its first host dies"):
        stopped = running.play_until("upgrade.yml", "Stop it, once its calls are with others", die)
    assert stopped.code != 0
    assert stopped.counts["gpu-1"]["unreachable"] == 1
    assert "gpu-1 began to change the release and did not come through. gpu-2 was not touched." in stopped.words
    assert running.hosts["gpu-2"].run("readlink", "/opt/firsthop/.venv").count("0.1.0") == 1

    dying.boot()
    running.play("upgrade.yml")
    assert running.releases() == ["0.1.1"] * 3
    assert running.live() == 4
    calls.terminate()
    assert said(calls)["calls"]["ok"] == 4


def test_an_upgrade_that_was_cut_short_goes_on_and_one_that_does_not_come_up_is_taken_back(running: Rollout) -> None:
    running.wheel = running.build("0.1.2")
    running.play_until("upgrade.yml", "Start it")
    with timed("upgrade.yml after one that was cut short"):
        running.play("upgrade.yml")
    assert running.releases() == ["0.1.2"] * 3

    running.wheel = running.build("0.1.3", broken="transceiver/child.py")
    running.settings = {"upgrade_patience_s": 20}
    refused = running.play("upgrade.yml", ok=False)
    assert "did not come up with 0.1.3-" in refused.words
    assert "No other host was touched after it" in refused.words
    assert running.releases() == ["0.1.2"] * 3
    said(running.call("--duration", "1"))


def test_what_playbooks_have_made_is_taken_away_again(running: Rollout, before: dict[str, str]) -> None:
    with timed("remove.yml"):
        running.play("remove.yml")
    kernel = running.hosts["edge-1"].run("uname", "-r").strip()
    headers = (f"/usr/lib/modules/{kernel}", f"/usr/lib/modules/{kernel}/build", f"/usr/lib/modules/{kernel}/source")
    # The test's own, that were replaced by borrowed ones.
    before["edge-1"] = "\n".join(line for line in before["edge-1"].splitlines() if line not in headers)
    assert running.left() == before


def make_certificate(certificate: Path, key: Path, address: str, days: int) -> None:
    """A certificate of its own for an address, that ends in so many days."""
    private, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
