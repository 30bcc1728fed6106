"""Calls through the whole appliance in the lab: three hosts, native XDP, real processes."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from calling import finish, flow_gone, goes_on, hang_up, lost_in, start_call
from observing import OF_CALLS, STEERED, core_of, cores, expressed, moved, received, xdp
from paths import SUPPORT
from pyroute2 import IPRoute
from waiting import until

from lab.appliance import Appliance, Loopback
from lab.network import Lab


def test_twenty_calls_at_once_all_come_back(lab: Lab, appliance: Appliance) -> None:
    said = finish(start_call(lab.client, appliance, "-n", "20", "--model", "echo", "--duration", "4"))
    assert said["calls"]["ok"] == 20
    assert said["audio"]["packets"]["lost"] == 0
    for call in said["per_call"]:
        assert call["session_created_ms"] is not None
        assert call["frames"]["lost"] == 0
        assert call["frames"]["returned"] > 50


@pytest.mark.parametrize("model", ["parrot", "echo"])
def test_pressed_keys_are_told_once_each(lab: Lab, appliance: Appliance, model: str) -> None:
    said = finish(start_call(lab.client, appliance, "--model", model, "--duration", "4", "--dtmf", "11*#d0"))
    assert said["per_call"][0]["keys_told"] == "11*#D0"
    assert said["per_call"][0]["packets"]["lost"] == 0


def test_every_packet_of_a_call_is_on_the_core_that_its_ufrag_names(lab: Lab, appliance: Appliance) -> None:
    until(lambda: flow_gone(appliance))
    before = xdp(appliance)
    said = finish(start_call(lab.client, appliance, "--model", "echo", "--duration", "2"))
    until(lambda: flow_gone(appliance))
    passed = {key: n for key, n in moved(before, xdp(appliance)).items() if key[0] in OF_CALLS}
    core = core_of(appliance, said["per_call"][0]["call_id"])
    assert {where for verdict, where in passed if verdict in STEERED} == {str(core)}
    assert sum(passed.values()) > 100


def test_the_funnel_counts_each_packet_once_a_stage(lab: Lab, appliance: Appliance) -> None:
    until(lambda: flow_gone(appliance))

    def counted() -> dict[str, int]:
        at_xdp = Counter[str]()
        for (verdict, _), n in xdp(appliance).items():
            at_xdp[verdict] += n
        worker: dict[str, int] = {}
        for i in range(len(cores())):
            for outcome, n in received(appliance, f"worker-{i}", "firsthop_rx_worker_datagrams_total").items():
                worker[outcome] = worker.get(outcome, 0) + n
        transceiver = received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")
        agent = received(appliance, "transceiver", "firsthop_rx_agent_frames_total")
        past = expressed(appliance, "transceiver")
        return {
            "steered": sum(at_xdp[verdict] for verdict in STEERED),
            "at workers": sum(worker.values()),
            "forwarded": sum(n for outcome, n in worker.items() if outcome.startswith("forwarded_")),
            "expressed": at_xdp["flow_expressed"],
            "past workers": sum(past.values()),
            "taken": past.get("taken", 0),
            "at transceiver": sum(transceiver.values()),
            "audio": transceiver["audio"],
            "heard": agent["heard"],
        }

    def stages() -> tuple[int, int]:
        """The audio that came to the transceiver and to the agent, when each stage has counted what the one before
        passed on."""

        def equal() -> bool:
            now = counted()
            return (now["steered"], now["expressed"], now["forwarded"] + now["taken"]) == (
                now["at workers"],
                now["past workers"],
                now["at transceiver"],
            )

        until(equal)
        now = counted()
        return now["audio"], now["heard"]

    before = stages()
    said = finish(start_call(lab.client, appliance, "--model", "parrot", "--duration", "2"))
    until(lambda: flow_gone(appliance))
    after = stages()
    sent = said["audio"]["frames"]["sent"]
    # The last frames may cross the hang-up on the way.
    assert 0 <= sent - (after[0] - before[0]) <= 5
    # And the last of them are still in the buffer then.
    assert 0 <= (after[0] - before[0]) - (after[1] - before[1]) <= 5


def test_parrot_answers_when_the_caller_falls_silent(lab: Lab, appliance: Appliance) -> None:
    said = finish(start_call(lab.client, appliance, "--model", "parrot", "--duration", "8"))
    assert said["audio"]["response_ms"]["samples"] >= 1
    assert said["audio"]["barge_in_ms"]["samples"] >= 1
    assert said["server"]["heard"]["heard"] > 300
    assert said["server"]["made"]["on_time"] > 300
    assert said["audio"]["packets"]["lost"] == 0


def kill_its_worker(lab: Lab, appliance: Appliance, frames: int) -> dict[str, Any]:
    """Places a call, and kills the worker that carries it. Returns what the caller said when so many frames more have
    been heard."""
    until(lambda: flow_gone(appliance) and "worker-spare" in appliance.children())
    before = xdp(appliance)
    restarts = sum(received(appliance, "edge", "firsthop_edge_restarts_total").values())
    call = start_call(lab.client, appliance, "--model", "echo", "--duration", "600")
    until(lambda: sum(n for (v, _), n in moved(before, xdp(appliance)).items() if v.startswith("flow_")) > 50)
    core = next(int(where) for verdict, where in moved(before, xdp(appliance)) if verdict == "flow_steered")
    appliance.children()[f"worker-{cores().index(core)}"].send_signal(signal.SIGKILL)
    until(lambda: sum(received(appliance, "edge", "firsthop_edge_restarts_total").values()) == restarts + 1)
    appliance.wait_ready()
    goes_on(appliance, "transceiver", frames=frames)
    said = hang_up(call)
    assert said["calls"]["ok"] == 1
    assert said["audio"]["frames"]["returned"] > frames
    return said


def test_a_call_goes_on_when_its_worker_is_killed(lab: Lab, appliance: Appliance) -> None:
    audio = kill_its_worker(lab, appliance, 100)["audio"]
    # The socket kept what came while nobody read it. Half a second of it may be lost on a machine under load.
    assert lost_in(audio) <= 25


@pytest.mark.trials
def test_twenty_kills_of_a_worker_cost_no_call_300_ms(lab: Lab, appliance: Appliance) -> None:
    heard = [kill_its_worker(lab, appliance, 100)["audio"] for _ in range(20)]
    gaps = [audio["longest_gap_ms"]["max"] for audio in heard]
    lost = [lost_in(audio) for audio in heard]
    print(f"longest gaps {sorted(gaps)} ms, frames lost {lost}")
    assert max(gaps) <= 300
    assert max(lost) <= 15


def test_a_spare_that_is_killed_is_replaced_and_nobody_notices(lab: Lab, appliance: Appliance) -> None:
    until(lambda: "worker-spare" in appliance.children())
    before = appliance.children()
    before["worker-spare"].send_signal(signal.SIGKILL)
    until(lambda: appliance.children().get("worker-spare", before["worker-spare"]) != before["worker-spare"])
    after = appliance.children()
    assert {name: child for name, child in before.items() if name != "worker-spare"}.items() <= after.items()


def odd_call(lab: Lab, appliance: Appliance, what: str, times: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The words of ``odd_caller.py``, and what became of its datagrams at the transceiver."""
    until(lambda: flow_gone(appliance))
    before = received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total")
    script = SUPPORT / "odd_caller.py"
    argv = [sys.executable, str(script), appliance.url, str(appliance.token_file), what, str(times)]
    said = finish(lab.client.popen(argv, stdout=subprocess.PIPE))
    until(lambda: flow_gone(appliance))
    change = moved(before, received(appliance, "transceiver", "firsthop_rx_transceiver_datagrams_total"))
    print(said, change)
    return said, change


def test_a_rebound_caller_keeps_its_uplink_and_gets_its_downlink_back(lab: Lab, appliance: Appliance) -> None:
    said, change = odd_call(lab, appliance, "move", 3)
    assert said["sent"] - change["audio"] <= 2
    # Without a check of our own, the caller's next one would be waited for: 1.25 s on average, three times.
    assert sum(said["gaps_ms"]) < 1500
    # What the old address missed came again to the new one; a busy machine may take more than that covers.
    assert said["sent"] - said["returned"] <= 15


@pytest.mark.trials
def test_twenty_rebindings_lose_nothing_on_the_way_up_and_a_round_trip_down(lab: Lab, appliance: Appliance) -> None:
    said, change = odd_call(lab, appliance, "move", 20)
    assert said["sent"] - change["audio"] <= 2
    # Between two arrivals: the 20 ms that always are, 40 ms, and a round trip of the lab.
    assert max(said["gaps_ms"]) <= 20 + 40 + 5
    assert said["sent"] - said["returned"] <= 2


def test_forged_media_with_a_known_ssrc_changes_nothing(lab: Lab, appliance: Appliance) -> None:
    before = xdp(appliance)
    said, change = odd_call(lab, appliance, "forge", 200)
    assert sum(n for (verdict, _), n in moved(before, xdp(appliance)).items() if verdict == "ssrc_steered") == 200
    assert said["answers"] == 0
    assert said["sent"] - said["returned"] <= 2
    # A hint brought them here; none authenticated, so no path was asked for.
    assert change["unknown_path"] >= 200
    assert change["stun_answered"] <= 4


def test_checks_from_where_nobody_answers_take_no_audio_and_draw_little(lab: Lab, appliance: Appliance) -> None:
    said, change = odd_call(lab, appliance, "claim", 100)
    assert said["sent"] - said["returned"] <= 2
    assert change["stun_replayed"] >= 95  # those that were overheard; the others are answered, and asked in vain
    assert 0 < said["drawn"] < 3 * said["spent"]


def test_random_bytes_get_no_answer_and_wake_no_worker(lab: Lab, appliance: Appliance) -> None:
    until(lambda: flow_gone(appliance))
    rng = random.Random(20260504)
    workers = range(len(cores()))

    def at_workers() -> list[dict[str, int]]:
        return [received(appliance, f"worker-{i}", "firsthop_rx_worker_datagrams_total") for i in workers]

    before, workers_before = xdp(appliance), at_workers()
    sock = lab.client.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock:
        for _ in range(2000):
            sock.sendto(rng.randbytes(rng.randint(0, 1200)), (lab.edge.address, 3478))

        def at_media_port() -> dict[Any, int]:
            """Besides these, only the pages that this test itself asks for, which are not on the media port."""
            change = moved(before, xdp(appliance))
            return {key: n for key, n in change.items() if key[0] != "other_traffic"}

        until(lambda: sum(at_media_port().values()) >= 2000)
        change = at_media_port()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(2048)
    assert sum(change.values()) == 2000
    assert not any(verdict in STEERED for verdict, _ in change)
    assert at_workers() == workers_before


def test_wrong_token_is_refused_and_the_caller_says_so(lab: Lab, appliance: Appliance, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("not-the-token\n")
    argv = [sys.executable, "-m", "firsthop", "call", appliance.url, "--json", "--quiet", "--token-file", str(wrong)]
    said = finish(lab.client.popen(argv, stdout=subprocess.PIPE), expect=1)
    assert said["per_call"][0]["failed_phase"] == "signaling"
    assert "token" in said["per_call"][0]["error"]


def test_transceiver_away_is_503_and_calls_work_again_when_it_is_back(lab: Lab, appliance: Appliance) -> None:
    away = appliance.processes["transceiver"]
    away.kill()
    away.wait()

    def post() -> tuple[int, str | None]:
        headers = {"Authorization": f"Bearer {appliance.token}", "Content-Type": "application/sdp"}
        request = urllib.request.Request(f"{appliance.url}/v1/realtime/calls", b"v=0\r\n", headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, None
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.headers["Retry-After"]

    until(lambda: lab.client.inside(post)[0] == 503)
    assert lab.client.inside(post)[1] is not None
    appliance.start("transceiver")
    appliance.wait_ready()
    assert finish(start_call(lab.client, appliance, "--duration", "1"))["calls"]["ok"] == 1


@pytest.mark.needs_root
def test_a_stopped_edge_leaves_no_program_and_no_process(tmp_path: Path) -> None:
    with Lab() as lab:

        def programs() -> list[int]:
            with IPRoute() as ip:
                attached = (link.get_nested("IFLA_XDP", "IFLA_XDP_PROG_ID") for link in ip.get_links())
                return [program for program in attached if program]

        with Appliance(tmp_path, lab=lab) as appliance:
            children = list(appliance.children().values())
            assert len(children) > len(cores())
            assert len(lab.edge.inside(programs)) == 1
            edge = appliance.processes["edge"]
            edge.terminate()
            assert edge.wait(30) == 0
        assert not lab.edge.inside(programs)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive


def test_calls_work_without_xdp(tmp_path: Path) -> None:
    with Appliance(tmp_path, http_port=18080, media_port=13478) as appliance:
        said = finish(start_call(Loopback(), appliance, "-n", "4", "--model", "echo", "--duration", "2"))
        assert said["calls"]["ok"] == 4
        assert said["audio"]["packets"]["lost"] == 0
        assert "no XDP" in appliance.log_file("edge").read_text()


def test_without_xdp_a_killed_worker_learns_its_flow_from_the_next_check(tmp_path: Path) -> None:
    with Appliance(tmp_path, http_port=18080, media_port=13478, cores=cores()[:1]) as appliance:
        call = start_call(Loopback(), appliance, "--model", "echo", "--duration", "60")
        until(lambda: received(appliance, "worker-0", "firsthop_rx_worker_datagrams_total")["forwarded_flow"] > 50)
        appliance.children()["worker-0"].send_signal(signal.SIGKILL)
        until(lambda: received(appliance, "edge", "firsthop_edge_restarts_total")["worker-0"] == 1)
        appliance.wait_ready()
        # It knew nothing any more, and yet the call goes on: 50 frames are a second of it.
        until(lambda: received(appliance, "worker-0", "firsthop_rx_worker_datagrams_total")["forwarded_flow"] > 50)
        assert hang_up(call)["calls"]["ok"] == 1
