"""The express path of a running appliance as tests see it and disturb it, on one host and between two."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from calling import goes_on, hang_up, kill_the_supervisor, lost_in
from observing import cores, logged, received, sessions_of, xdp
from waiting import until

from lab.appliance import Appliance
from lab.network import Host

TRANSCEIVERS = (1, 2)
RTP = bytes([0x80, 111]) + bytes(60)


def options() -> dict[str, object]:
    """The options of an appliance with two transceivers, both of which get calls."""
    return {"transceiver_cores": cores()[:2], "placement": "spread", "drain_s": 60}


def states(house: Appliance) -> dict[tuple[str, ...], float]:
    """What the edge says of each transceiver, by its id and why it is not on; nothing while nobody answers."""
    with suppress(OSError):
        return {key[1:]: value for key, value in house.metrics("edge").items() if key[0] == "firsthop_edge_express"}
    return {}


def all_on(house: Appliance) -> bool:
    """Whether each transceiver takes media past the workers."""
    return all(states(house).get((str(number), "")) == 1 for number in TRANSCEIVERS)


def forwarded(house: Appliance) -> int:
    """How many datagrams of clients the workers have passed on."""
    counted = [received(house, f"worker-{i}", "firsthop_rx_worker_datagrams_total") for i in range(len(cores()))]
    return sum(n for counts in counted for outcome, n in counts.items() if outcome.startswith("forwarded_"))


def snmp(host: Host, name: str, counter: str) -> int:
    """A counter of the kernel's on that host, such as ``Udp`` ``InCsumErrors``."""
    lines = [line.split() for line in host.inside(Path("/proc/thread-self/net/snmp").read_text).splitlines()]
    names, values = (line for line in lines if line[0] == f"{name}:")
    return int(values[names.index(counter)])


def both_ways(house: Appliance, packets: int = 100) -> None:
    """Returns when so many packets more have gone past the workers, each way."""
    before = xdp(house)

    def gone() -> bool:
        now = xdp(house)
        return all(now[label, "0"] >= before[label, "0"] + packets for label in ("flow_expressed", "back_expressed"))

    until(gone)


def quiet(house: Appliance) -> bool:
    """Whether workers have next to nothing while media goes past them."""
    workers = forwarded(house)
    both_ways(house, 100)
    return forwarded(house) - workers < 30


def worker_killed(house: Appliance, name: str) -> None:
    """Kills a worker, and returns when another has its place."""
    worker = house.children()[name]
    worker.send_signal(signal.SIGKILL)
    until(lambda: (now := house.children().get(name)) is not None and now.pid != worker.pid)


def another_supervisor(house: Appliance, how: str) -> None:
    """Has another process take the edge over: it was ``killed``, begins ``anew``, or has ``left`` everything to it."""
    times = house.log_file("edge").read_text().count('"ready"')
    if how == "killed":
        kill_the_supervisor(house)
        house.start("edge")
    elif how == "anew":
        house.processes["edge"].send_signal(signal.SIGHUP)
    else:
        house.processes["edge"].send_signal(signal.SIGUSR2)
        house.processes["edge"].wait()
        house.start("edge")
    until(lambda: house.log_file("edge").read_text().count('"ready"') > times)
    until(lambda: all_on(house))


def turned(house: Appliance, times: int, calls: int, off: Callable[[], None], on: Callable[[], None]) -> None:
    """Has the media of so many calls go by the workers, and past them again."""
    for _ in range(times):
        off()
        before = forwarded(house)
        until(lambda before=before: forwarded(house) >= before + calls)
        on()


def leaves(house: Appliance, has: int, calls: int) -> None:
    """Has the first transceiver leave, which ``has`` some of the ``calls``. The second goes on with them."""
    moved = len(logged(house, "moved"))
    house.children()["media-1"].send_signal(signal.SIGTERM)
    until(lambda: len(logged(house, "moved")) == moved + has)
    until(lambda: sessions_of(house, "media-1") == 0 and sessions_of(house, "media-2") == calls)


def ended_well(house: Appliance, calls: object, count: int, *processes: str) -> None:
    """Hangs up, when all have gone on for a while, and nothing of theirs may be lost."""
    goes_on(house, *processes or ("media-1", "media-2"))
    said = hang_up(calls)  # type: ignore[arg-type]
    assert (said["calls"]["ok"], lost_in(said["audio"])) == (count, 0)
