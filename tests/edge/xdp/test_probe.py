"""A packet that arrives without having been sent, and that a firewall keeps back as it would keep back media."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable

import packets as p
import pytest
from privileges import InNamespace

from edge.xdp.probe import frame, probe, sources
from wire import address

pytestmark = pytest.mark.needs_root
TOKEN = bytes(range(32))


BESIDE, FAR = sources(p.EDGE)


def heard(
    in_namespace: InNamespace, prepare: Callable[[], object] = lambda: None, source: tuple[str, int] = BESIDE
) -> list[bytes]:
    """Who was heard to send the token to a socket at ``fh0``, when something had been prepared there."""
    found: list[bytes] = []

    def inside() -> None:
        prepare()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((p.EDGE, 0))
            sock.settimeout(2)
            probe("fh0", p.EDGE, sock.getsockname()[1], TOKEN, source)
            try:
                said, sender = sock.recvfrom(100)
            except TimeoutError:
                return
            assert said == TOKEN
            found.append(address.pack(*sender))

    in_namespace(inside)
    return found


def test_it_comes_from_beside_the_host(in_namespace: InNamespace) -> None:
    assert heard(in_namespace) == [address.pack("198.18.0.0", 9)]


def test_or_from_far_away_where_there_is_a_route(in_namespace: InNamespace) -> None:
    def route() -> None:
        subprocess.run(["ip", "route", "add", "default", "dev", "fh0"], check=True)

    assert heard(in_namespace, route, FAR) == [address.pack("192.0.2.1", 9)]


def test_or_from_a_client_as_his_media_does(in_namespace: InNamespace) -> None:
    assert heard(in_namespace, source=("198.18.0.77", 40001)) == [address.pack("198.18.0.77", 40001)]


def test_what_the_host_does_not_let_in_is_not_heard(in_namespace: InNamespace) -> None:
    """A rule that has no such packet delivered stands for a firewall's."""

    def closed() -> None:
        subprocess.run(["ip", "rule", "add", "iif", "fh0", "pref", "1", "prohibit"], check=True)
        subprocess.run(["ip", "rule", "del", "pref", "0"], check=True)
        subprocess.run(["ip", "rule", "add", "pref", "2", "table", "local"], check=True)

    assert heard(in_namespace, closed) == []


@pytest.mark.parametrize(("source", "host"), [("198.18.0.2", p.EDGE), (p.CLIENT_V6, p.EDGE_V6)])
@pytest.mark.parametrize("payload", [TOKEN, TOKEN[:31]])
def test_its_checksums_are_right(source: str, host: str, payload: bytes) -> None:
    made = frame(bytes(6), source, host, 40000, payload)
    assert p.udp_sum(made) == 0
    if ":" not in host:
        assert p.checksum(made[14:34]) == 0
