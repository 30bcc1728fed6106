"""A transceiver host that dies as a whole, or is cut off: its calls are over and everybody is told, the others go on,
and new calls go elsewhere at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from calling import finish, lost_in, start_call
from observing import cores, transceiver_of
from operating import HANGUP, all_of, asked, calls_in, held, kill_host, logged, until_all_is_well
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root
LAB_TRANSCEIVERS = 2

HOSTS = ("transceiver", "transceiver-2")
LOST = ("firsthop_signaling_lost_calls_total", "transceiver_gone")
# A WebSocket beside a call: prints when it watches, and then the events' types and the code with which it is closed.
_SIDEBAND = """
import asyncio, sys, aiohttp
async def main(url, key, call):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        socket = await http.ws_connect(f"{url}/v1/realtime?call_id={call}")
        print("watching", flush=True)
        async for message in socket:
            print(message.json()["type"], flush=True)
        print(socket.close_code)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def house(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with a supervised transceiver on each of two hosts: 1 and 2."""
    folder = tmp_path_factory.mktemp("hosts")
    one = cores()[:1]
    with Appliance(folder, lab=lab, transceiver_cores=one, cores=one, placement="spread") as appliance:
        yield appliance


def calls_at_both(lab: Lab, house: Appliance, n: int) -> tuple[subprocess.Popen[bytes], list[str]]:
    """So many calls that stand, some at either host. Returns them, and the ids of those at the second one."""
    for _ in range(10):
        before = came(house)
        all_in = sum(before) + n
        calls = start_call(lab.client, house, "-n", str(n), "--model", "echo", "--duration", "600")
        until(lambda all_in=all_in: sum(held(house)) == n and sum(came(house)) == all_in)
        if min(held(house)) > 0:
            return calls, calls_in(house, "transceiver-2")[before[1] :]
        all_of(calls)
        until(lambda: held(house) == [0, 0])
    raise AssertionError("one host gets no calls")


def came(house: Appliance) -> list[int]:
    """The number of calls that have come up at each host."""
    return [len(calls_in(house, host)) for host in HOSTS]


def lost(house: Appliance) -> int:
    return int(house.metrics("signaling")[LOST])


def are_given_up(house: Appliance, calls: int) -> None:
    """Returns when the edge has given so many calls up."""
    until(lambda: lost(house) >= calls)


def come_and_go(lab: Lab, house: Appliance) -> subprocess.Popen[bytes]:
    """Four new calls a second from now on, each of a second. Returns when the first are up."""
    before = sum(came(house))
    options = ("-n", "2000", "--model", "echo", "--duration", "1", "--rate", "4")
    calls = start_call(lab.client, house, *options)
    until(lambda: sum(came(house)) > before)
    return calls


def none_was_refused(said: dict[str, Any]) -> None:
    assert not [call["error"] for call in said["per_call"] if call["failed_phase"] == "signaling"]


def hang_up_at_the_edge(house: Appliance, call: str) -> int:
    return asked(house, "edge", HANGUP.format(call), post=True)[0]


def is_used(lab: Lab, house: Appliance) -> None:
    """Returns when the second host gets calls."""

    def gets_one() -> bool:
        said = finish(start_call(lab.client, house, "-n", "3", "--model", "echo", "--duration", "1"))
        return 2 in {transceiver_of(house, call["call_id"]) for call in said["per_call"]}

    until_all_is_well(house, ("edge",), {1, 2})
    until(gets_one)


@contextmanager
def a_sideband(lab: Lab, house: Appliance, call: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", _SIDEBAND, house.url, house.token, call]
    process = lab.client.popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_host_is_killed(lab: Lab, house: Appliance) -> None:
    calls, its_own = calls_at_both(lab, house, 4)
    coming, before = come_and_go(lab, house), lost(house)
    with a_sideband(lab, house, its_own[0]) as sideband:
        kill_host(house, "transceiver-2")
        told, _ = sideband.communicate(timeout=DEADLINE_S)
    assert told.split()[-1] == b"1011"
    are_given_up(house, before + len(its_own))
    assert [hang_up_at_the_edge(house, call) for call in its_own] == [404] * len(its_own)
    assert logged(house, "edge", "a transceiver is gone, and its calls with it") == 1
    none_was_refused(all_of(coming))
    for call in all_of(calls)["per_call"]:
        if call["call_id"] in its_own:
            assert "404" in call["error"]
        else:
            assert (call["outcome"], lost_in(call)) == ("ok", 0)
    house.start("transceiver-2")
    is_used(lab, house)


def test_a_host_is_cut_off_and_comes_back(lab: Lab, house: Appliance) -> None:
    calls, its_own = calls_at_both(lab, house, 4)
    coming, before = come_and_go(lab, house), lost(house)
    lab.cables(plugged=False)
    are_given_up(house, before + len(its_own))
    assert hang_up_at_the_edge(house, its_own[0]) == 404
    none_was_refused(all_of(coming))
    lab.cables(plugged=True)
    is_used(lab, house)
    # It was away for less time than a caller waits: nothing had died there.
    assert hang_up_at_the_edge(house, its_own[0]) == 200
    said = all_of(calls)
    assert [call["call_id"] for call in said["per_call"] if call["error"]] == its_own[:1]


@pytest.mark.trials
def test_ten_times_a_host_dies(lab: Lab, house: Appliance) -> None:
    """How soon it is known, and what becomes of calls that are placed meanwhile."""
    for cut in (False, True):
        known_s, outcomes = [], Counter[str]()
        for _ in range(5):
            calls, its_own = calls_at_both(lab, house, 10)
            coming, before = come_and_go(lab, house), lost(house)
            began = time.monotonic()
            if cut:
                lab.cables(plugged=False)
            else:
                kill_host(house, "transceiver-2")
            are_given_up(house, before + len(its_own))
            known_s.append(time.monotonic() - began)
            said = all_of(coming)
            outcomes.update(call["failed_phase"] or call["outcome"] for call in said["per_call"])
            all_of(calls)
            if cut:
                lab.cables(plugged=True)
            else:
                house.start("transceiver-2")
            is_used(lab, house)
            until(lambda: held(house) == [0, 0])
        how = "cut off" if cut else "killed"
        print(f"{how}: its calls were given up after {', '.join(f'{s:.1f}' for s in sorted(known_s))} s")
        print(f"  calls that came meanwhile, by what became of them or where they failed: {dict(outcomes)}")
        assert max(known_s) < 10
        assert not outcomes["signaling"]
