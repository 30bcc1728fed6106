"""The agent ``realtime`` in calls: another firsthop is the model server that it relays to."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from calling import finish, hang_up, start_call
from observing import sessions_of
from waiting import until

from lab.appliance import Appliance, Loopback

METRICS = "127.0.0.1:9700"  # of the house's transceiver; the upstream has the usual address


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("upstream"), http_port=18080, media_port=13478) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, upstream: Appliance) -> Iterator[Appliance]:
    ports: dict[str, Any] = {"http_port": 18090, "media_port": 13488, "metrics": "127.0.0.1:9600"}
    house = Appliance(tmp_path_factory.mktemp("house"), **ports, models=["realtime"])
    house.environment["transceiver"] = {
        "FIRSTHOP_AGENTS__REALTIME__URL": upstream.url.replace("http", "ws") + "/v1/realtime",
        "FIRSTHOP_AGENTS__REALTIME__MODEL": "parrot",
        "FIRSTHOP_AGENTS__REALTIME__KEY_FILE": str(upstream.token_file),
        "FIRSTHOP_TRANSCEIVER__METRICS": METRICS,
    }
    with house:
        yield house


def call(house: Appliance, seconds: int) -> subprocess.Popen[bytes]:
    return start_call(Loopback(), house, "--model", "realtime", "--duration", str(seconds))


def test_an_upstream_answers_and_is_interrupted(house: Appliance) -> None:
    audio = finish(call(house, 9))["audio"]
    assert audio["response_ms"]["samples"] >= 1
    assert audio["barge_in_ms"]["samples"] >= 1
    assert audio["packets"]["lost"] == 0


def packets_heard() -> int:
    """The packets of audio that have come to the house's transceiver."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=30) as response:
        page = response.read().decode()
    (count,) = re.findall(r'^firsthop_rx_transceiver_datagrams_total\{outcome="audio"\} (\S+)$', page, re.MULTILINE)
    return int(float(count))


def test_an_upstream_that_is_killed_costs_no_call(house: Appliance, upstream: Appliance) -> None:
    until(lambda: sessions_of(upstream, "transceiver") == 0)
    talking = call(house, 600)
    until(lambda: sessions_of(upstream, "transceiver") == 1)
    upstream.processes["transceiver"].kill()
    upstream.processes["transceiver"].wait()
    upstream.start("transceiver")
    # The call goes on, and its agent finds the model server again, which hears a whole turn and answers it.
    until(lambda: sessions_of(upstream, "transceiver") == 1)
    heard = packets_heard()
    until(lambda: packets_heard() >= heard + 500)
    audio = hang_up(talking)["audio"]
    assert audio["response_ms"]["samples"] >= 1
    assert audio["packets"]["lost"] == 0
