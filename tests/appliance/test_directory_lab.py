"""A running edge takes transceivers in and lets them go: no process is replaced, no call and no WebSocket is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from another import a_third, gets_calls, ready
from calling import finish, kill_the_supervisor, lost_in, spread_calls, whole
from observing import at_work, received, sessions
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab
from runtime.config import load

pytestmark = pytest.mark.needs_root

# Two sessions over WebSockets, one at each transceiver. Says when they have begun, and, when standard input is closed,
# how they answer. Somebody has to read all the time, for the edge asks whether the client is there.
_SOCKETS = """
import asyncio, sys, aiohttp
async def read(socket, said):
    async for message in socket:
        await said.put(message.json()["type"])
    await said.put("closed")
async def main(url, key):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http, asyncio.TaskGroup() as group:
        said = asyncio.Queue()
        sockets = [await http.ws_connect(url + "/v1/realtime?model=offline") for _ in range(2)]
        for socket in sockets:
            group.create_task(read(socket, said))
        print(await said.get(), await said.get(), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for socket in sockets:
            await socket.send_str('{"type": "input_audio_buffer.clear"}')
        print(await said.get(), await said.get(), flush=True)
        for socket in sockets:
            await socket.close()
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def house(two_cores: Appliance) -> Iterator[Appliance]:
    """The appliance, which has its two transceivers again afterwards."""
    text = two_cores.config_file.read_text()
    yield whole(two_cores, 1, 2)
    two_cores.config_file.write_text(text)
    take_up(two_cores)
    until(lambda: ready(two_cores) == {1, 2})


def take_up(house: Appliance) -> None:
    """Has the edge take its configuration up, and returns when it has."""

    def taken_up() -> int:
        return house.log_file("edge").read_text().count('"xdp attached"')

    before = taken_up()
    house.processes["edge"].send_signal(signal.SIGHUP)
    until(lambda: taken_up() > before)
    house.wait_ready()


@pytest.fixture
def ending() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which a test that fails leaves neither running nor with open pipes."""
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait(DEADLINE_S)


def write_transceivers(house: Appliance, *listed: tuple[int, str]) -> None:
    """Has the configuration name these."""
    text = house.config_file.read_text()
    before, _, after = text.partition("[[edge.transceivers]]")
    _, _, others = after.partition("[transceiver]")
    entries = "".join(f'[[edge.transceivers]]\nid = {i}\nendpoint = "{endpoint}"\n' for i, endpoint in listed)
    house.config_file.write_text(f"{before}{entries}[transceiver]{others}")


def list_transceivers(house: Appliance, *listed: tuple[int, str]) -> None:
    """The same, and has the edge take it up."""
    write_transceivers(house, *listed)
    take_up(house)


def linked(house: Appliance) -> set[str]:
    """The transceivers that workers have links to, as far as they answer."""
    found = set()
    for worker in [name for name in at_work(house) if name != "signaling"]:
        with suppress(OSError):  # one that has just begun
            for name, *labels in house.metrics(worker):
                found |= set(labels if name == "firsthop_link_round_trip_seconds_count" else ())
    return found


def refused_here(house: Appliance, serving: dict[str, int]) -> int:
    """The datagrams for transceivers that workers could not reach, or did not know."""
    counted = [
        received(house, worker, "firsthop_rx_worker_datagrams_total") for worker in serving if worker != "signaling"
    ]
    return sum(each["link_down"] + each["unknown_transceiver"] for each in counted)


def test_transceivers_come_and_go_while_calls_go_on(lab: Lab, house: Appliance, ending: ExitStack) -> None:
    listed = [(peer.id, peer.endpoint) for peer in load(house.config_file).edge.transceivers]
    serving, supervisor = at_work(house), house.processes["edge"]
    # First: were both sockets at one transceiver, because the other one was passed over, both calls would go to that.
    calls, _ = spread_calls(lab.client, house, 2)
    ending.enter_context(ended(calls))
    argv = [sys.executable, "-c", _SOCKETS, house.url, house.token]
    sockets = ending.enter_context(ended(lab.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)))
    assert sockets.stdout.readline().split() == [b"session.created"] * 2
    held = sessions(house)
    refused = refused_here(house, serving)

    with a_third(lab, house) as endpoint:
        # A third comes, and gets calls.
        list_transceivers(house, *listed, (3, endpoint))
        until(lambda: ready(house) == {1, 2, 3})
        gets_calls(lab, house, 3, {1, 2, 3})
        until(lambda: linked(house) == {"1", "2", "3"})

        # The first goes: its calls go on, and it gets none.
        list_transceivers(house, *listed[1:], (3, endpoint))
        until(lambda: ready(house) == {2, 3})
        gets_calls(lab, house, 3, {2, 3})
        assert sessions(house)[0] == held[0]

        # Its calls are whole, and then its links are gone.
        calls.send_signal(signal.SIGINT)
        said = finish(calls)
        assert refused_here(house, serving) == refused
        assert said["calls"]["ok"] == 2
        assert lost_in(said["audio"]) == 0
        until(lambda: linked(house) == {"2", "3"})
        output, _ = sockets.communicate(timeout=DEADLINE_S)
        assert (output.split(), sockets.returncode) == ([b"input_audio_buffer.cleared"] * 2, 0)

        # Its id can be had again.
        list_transceivers(house, *listed, (3, endpoint))
        until(lambda: ready(house) == {1, 2, 3})
        gets_calls(lab, house, 1, {1, 2, 3})
        until(lambda: linked(house) == {"1", "2", "3"})
    assert at_work(house) == serving
    assert supervisor.poll() is None


def test_calls_of_one_that_went_outlive_supervisor_and_workers(lab: Lab, house: Appliance, ending: ExitStack) -> None:
    listed = [(peer.id, peer.endpoint) for peer in load(house.config_file).edge.transceivers]
    calls, held = spread_calls(lab.client, house, 2)
    ending.enter_context(ended(calls))
    serving = at_work(house)
    kill_the_supervisor(house)
    write_transceivers(house, *listed[1:])
    house.start("edge")
    until(lambda: ready(house) == {2})
    assert at_work(house) == serving

    # Workers that begin now have heard of the first only as one that departed.
    for worker in [name for name in serving if name != "signaling"]:
        until(lambda: "worker-spare" in house.children())
        house.children()[worker].kill()
        until(lambda worker=worker: at_work(house).get(worker) not in (None, serving[worker]))
    heard = audio_at(house, "media-1")
    until(lambda: audio_at(house, "media-1") > heard + 100)
    assert sessions(house) == held
    until(lambda: linked(house) == {"1", "2"})
    # So has signaling, which counts calls and ends them.
    house.children()["signaling"].kill()
    until(lambda: at_work(house).get("signaling") not in (None, serving["signaling"]))
    until(lambda: signaling_calls(house) == 2)
    calls.send_signal(signal.SIGINT)
    said = finish(calls)
    assert said["calls"]["ok"] == 2
    until(lambda: signaling_calls(house) == 0)


def audio_at(house: Appliance, transceiver: str) -> int:
    return received(house, transceiver, "firsthop_rx_transceiver_datagrams_total")["audio"]


def signaling_calls(house: Appliance) -> int | None:
    with suppress(OSError):
        return int(house.metrics("signaling")[("firsthop_signaling_calls",)])
    return None
