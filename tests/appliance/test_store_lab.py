"""Hosts that find each other by Redis: transceivers come and go by themselves, and Redis may do as it likes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from another import new_calls, ready, started_third
from calling import finish, start_call
from observing import at_work, received
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab
from lab.redis_server import RedisServer

pytestmark = pytest.mark.needs_root

TTL_S = 2.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """It is reached by a path, which is the same on all hosts of the lab."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as server:
        yield server


def section(redis: RedisServer) -> str:
    return f'[directory]\nredis = "{redis.url}"\nprefix = "lab"\nttl_s = {TTL_S}\n'


@pytest.fixture
def house(lab: Lab, tmp_path: Path, redis: RedisServer) -> Iterator[Appliance]:
    """An appliance whose edge is told of no transceiver."""
    house = Appliance(tmp_path, lab=lab)
    before, _, after = house.config_file.read_text().partition("[[edge.transceivers]]")
    _, _, others = after.partition("[transceiver]")
    house.config_file.write_text(f"{before}[transceiver]{others}{section(redis)}")
    with house:
        yield house


def published(redis: RedisServer) -> set[str]:
    with redis.client(decode_responses=True) as client:
        return {key for key in client.keys("lab:*:*")}


def age_s(house: Appliance) -> float:
    with suppress(OSError):
        return house.metrics("signaling")[("firsthop_directory_age_seconds",)]
    return -1.0


def test_transceivers_and_redis_come_and_go_while_calls_go_on(lab: Lab, house: Appliance, redis: RedisServer) -> None:
    serving = at_work(house)
    everybody = {"lab:transceiver:1", "lab:transceiver:3", "lab:edge:edge"}
    with ExitStack() as ending:
        calls = start_call(lab.client, house, "-n", "4", "--model", "echo", "--duration", "300")
        ending.callback(calls.wait)
        ending.callback(calls.kill)
        assert ready(house) == {1}

        # Another begins, and gets calls.
        third, _ = ending.enter_context(started_third(lab, house, section(redis)))
        until(lambda: ready(house) == {1, 3})
        until(lambda: 3 in new_calls(lab, house, 4))
        until(lambda: published(redis) == everybody)

        # Redis dies: all goes on, and the edge says how old it is what it knows.
        redis.kill()
        until(lambda: age_s(house) > TTL_S)
        assert ready(house) == {1, 3}
        new_calls(lab, house, 4)

        # It comes back empty, and is full again.
        redis.start()
        until(lambda: published(redis) == everybody)
        until(lambda: 0 <= age_s(house) < TTL_S)
        assert ready(house) == {1, 3}

        # A transceiver dies, and is asked no more.
        third.kill()
        third.wait()
        until(lambda: ready(house) == {1} and published(redis) == everybody - {"lab:transceiver:3"})
        assert set(new_calls(lab, house, 2)) == {1}
        assert at_work(house) == serving

        # Who begins while Redis is away knows what the edge knew.
        redis.kill()
        house.children()["signaling"].kill()
        until(lambda: at_work(house).get("signaling") not in (None, serving["signaling"]))
        until(lambda: ready(house) == {1})

        # Calls went on all the while, and nothing of theirs met a link that was down.
        for worker in [name for name in serving if name != "signaling"]:
            counted = received(house, worker, "firsthop_rx_worker_datagrams_total")
            assert (counted["link_down"], counted["unknown_transceiver"]) == (0, 0)
        calls.send_signal(signal.SIGINT)
        assert finish(calls)["calls"]["ok"] == 4
