"""The agent ``realtime`` in calls: another firsthop is the model server that it relays to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import finish, start_call
from observing import sessions_of
from waiting import until

from lab.appliance import Appliance, Loopback


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Appliance]:
    (directory := tmp_path / "upstream").mkdir()
    with Appliance(directory, http_port=18080, media_port=13478) as upstream:
        yield upstream


@pytest.fixture
def house(tmp_path: Path, upstream: Appliance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Appliance]:
    monkeypatch.setenv("FIRSTHOP_AGENTS__REALTIME__URL", upstream.url.replace("http", "ws") + "/v1/realtime")
    monkeypatch.setenv("FIRSTHOP_AGENTS__REALTIME__MODEL", "parrot")
    monkeypatch.setenv("FIRSTHOP_AGENTS__REALTIME__KEY_FILE", str(upstream.token_file))
    monkeypatch.setenv("FIRSTHOP_TRANSCEIVER__METRICS", "127.0.0.1:9700")
    (directory := tmp_path / "house").mkdir()
    ports: dict[str, Any] = {"http_port": 18090, "media_port": 13488, "metrics": "127.0.0.1:9600"}
    with Appliance(directory, **ports, models=["realtime"]) as house:
        yield house


def call(house: Appliance, seconds: int) -> subprocess.Popen[bytes]:
    return start_call(Loopback(), house, "--model", "realtime", "--duration", str(seconds))


def test_an_upstream_answers_and_is_interrupted(house: Appliance) -> None:
    audio = finish(call(house, 9))["audio"]
    assert audio["response_ms"]["samples"] >= 1
    assert audio["barge_in_ms"]["samples"] >= 1
    assert audio["packets"]["lost"] == 0


def test_an_upstream_that_is_killed_costs_no_call(
    house: Appliance, upstream: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    talking = call(house, 20)
    until(lambda: sessions_of(upstream, "transceiver") == 1)
    upstream.processes["transceiver"].kill()
    upstream.processes["transceiver"].wait()
    monkeypatch.delenv("FIRSTHOP_TRANSCEIVER__METRICS")
    upstream.start("transceiver")
    # The call goes on, and its agent finds the model server again.
    until(lambda: sessions_of(upstream, "transceiver") == 1)
    audio = finish(talking)["audio"]
    assert audio["response_ms"]["samples"] >= 1
    assert audio["packets"]["lost"] == 0
