"""A core that sheds, in the whole appliance: what its callers lose, and what they do not."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from calling import flow_gone, hang_up, start_call
from observing import core_of, cores, moved, received, xdp
from steer_run import loaded
from waiting import until
from working import RX, a_worker

from edge.xdp import kernel
from edge.xdp.pins import folder_of
from lab.appliance import Appliance
from lab.network import Lab
from runtime.config import load


@pytest.fixture(scope="module")
def appliance(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One whose media goes by the workers, whatever the others': they do not shed what passes them by."""
    with Appliance(tmp_path_factory.mktemp("sheds"), lab=lab, one_host=False) as appliance:
        yield appliance


@contextmanager
def shedding(appliance: Appliance) -> Iterator[kernel.Shedding]:
    """What the workers write, while they have no reason to."""
    fd = kernel.pinned(folder_of(load(appliance.config_file).edge) / "shedding")
    try:
        yield kernel.Shedding(fd)
    finally:
        os.close(fd)


def by_verdict(packets: dict[tuple[str, str], int]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for (verdict, _), n in packets.items():
        counted[verdict] += n
    return counted


def test_while_its_core_sheds_a_call_is_set_up_and_then_it_is_heard(lab: Lab, appliance: Appliance) -> None:
    """Checks, the DTLS handshake and the data channel pass; every frame is dropped, and counted for its core."""
    until(lambda: flow_gone(appliance))
    before, heard_before = xdp(appliance), received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")

    def seen() -> Counter[str]:
        return by_verdict(moved(before, xdp(appliance)))

    def heard() -> int:
        return (
            received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")["audio"]
            - heard_before["audio"]
        )

    with shedding(appliance) as sheds:
        for cpu in cores():
            sheds.put(cpu, 1.0)
        try:
            call = start_call(lab.client, appliance, "--model", "echo", "--duration", "600")
            until(lambda: seen()["core_overloaded"] > 50)
            while_shedding = seen()
            assert heard() == 0
        finally:
            for cpu in cores():
                sheds.put(cpu, 0.0)
        until(lambda: heard() > 50)
    said = hang_up(call)
    assert said["calls"]["ok"] == 1
    assert said["per_call"][0]["session_created_ms"] is not None
    assert while_shedding["stun_steered"] > 0
    assert while_shedding["flow_steered"] > 0, "the DTLS handshake"
    core = core_of(appliance, said["per_call"][0]["call_id"])
    assert {cpu for verdict, cpu in moved(before, xdp(appliance)) if verdict == "core_overloaded"} == {str(core)}


def test_a_killed_worker_leaves_no_core_shedding(lab: Lab, appliance: Appliance) -> None:
    until(lambda: "worker-spare" in appliance.children())
    with shedding(appliance) as sheds:
        cpu = cores()[0]
        sheds.put(cpu, 1.0, 1.0)
        appliance.children()["worker-0"].send_signal(signal.SIGKILL)
        until(lambda: sheds.get(cpu) == sheds.strangers(cpu) == 0.0)
    appliance.wait_ready()


@pytest.mark.needs_root
def test_a_worker_that_reads_nothing_but_old_datagrams_sheds_until_none_come(tmp_path: Path) -> None:
    """Stopped whenever one is on its way, it sees a queue that stands for longer than any burst."""
    with loaded() as steering:
        sheds, cpu = kernel.Shedding(steering.shedding_fd), min(os.sched_getaffinity(0))
        sheds.put(cpu, 0.5)
        with a_worker(tmp_path, shedding=steering.shedding_fd) as bench:
            client = bench.client()
            assert sheds.get(cpu) == 0.0, "its predecessor's word"

            def has_shed() -> bool:
                bench.process.send_signal(signal.SIGCONT)
                until(lambda: sum(bench.funnel(RX).values()) == bench.sent)
                if sheds.get(cpu) > 0.0:
                    return True
                bench.process.send_signal(signal.SIGSTOP)
                client.sendto(b"\x80", ("127.0.0.1", bench.port))
                bench.sent += 1
                return False

            until(has_shed)
            until(lambda: bench.funnel("firsthop_worker_shedding_ratio") == {} and sheds.get(cpu) == 0.0)
            until(
                lambda: bench.funnel("firsthop_worker_shedding_strangers_ratio") == {} and sheds.strangers(cpu) == 0.0
            )
            bench.to_worker(client, b"\x80")
            assert sheds.get(cpu) == 0.0
