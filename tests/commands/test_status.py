"""``firsthop status``: what two scrapes say, and what a person is told of a running host."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from observing import received
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from waiting import until

from bpf.verdicts import VERDICTS
from edge.relay.counted import OUTCOMES
from firsthop.cli import main
from firsthop.other_edges import OtherEdge
from firsthop.status import ALARMS, Count, Scrape, Status, compare, read, worker_cpus
from firsthop.status_view import per_second, view
from lab.appliance import Appliance, Loopback
from runtime.families.family import histogram as histogram_family
from runtime.histogram import Durations, Histogram
from runtime.metrics import Tally
from transceiver import counters

HERE = {"supervisor": "127.0.0.1:9400", "signaling": "127.0.0.1:9401", "worker-0": "127.0.0.1:9402"}
SUPERVISOR = """
firsthop_edge_worker_cpu{worker="0"} 3
firsthop_edge_restarts_total{child="worker-0"} %d
firsthop_xdp_attached{mode="native"} 1
firsthop_xdp_flows 1
firsthop_rx_xdp_packets_total{verdict="flow_steered",core="3"} %d
firsthop_rx_xdp_packets_total{verdict="unknown_flow",core="0"} 7
"""
WORKER = """
firsthop_worker_flows 1
firsthop_rx_worker_datagrams_total{outcome="forwarded_flow"} %d
firsthop_rx_worker_datagrams_total{outcome="link_down"} %d
firsthop_rx_socket_datagrams_total{outcome="buffer_full"} %d
firsthop_tx_worker_datagrams_total{outcome="sent"} 100
firsthop_worker_flows_refused_total{reason="kernel_map_full"} 0
"""
SIGNALING = 'firsthop_signaling_responses_total{status="201"} 1\n'


def times(name: str, transceiver: int, durations: Durations) -> str:
    """The histogram ``name`` as a worker shows it."""
    histogram = Histogram(histogram_family(f"{name}_seconds", "t", {"transceiver": "any"}))
    histogram._durations[str(transceiver)] = durations
    registry = CollectorRegistry()
    registry.register(histogram)
    return generate_latest(registry).decode()


def scrapes(at_s: float, **pages: str) -> dict[str, Scrape]:
    return {name.replace("_", "-"): Scrape(at_s, read(text)) for name, text in pages.items()}


def house(at_s: float, *, flow: int, link_down: int = 0, buffer_full: int = 0, restarts: int = 0) -> dict[str, Scrape]:
    supervisor, worker = SUPERVISOR % (restarts, flow), WORKER % (flow, link_down, buffer_full)
    return scrapes(at_s, supervisor=supervisor, signaling=SIGNALING, worker_0=worker)


def drawn(status: Status, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view(status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rates_are_what_moved_over_the_time_between_the_scrapes() -> None:
    status = compare(house(10.0, flow=100), house(12.0, flow=300), HERE)
    (worker,) = status.workers
    assert (worker.worker, worker.cpu, worker.up, worker.flows) == (0, 3, True, 1)
    assert worker.received["forwarded_flow"] == Count(300, 100.0)
    assert worker.steered == {"flow_steered": Count(300, 100.0)}
    assert worker.dropped == Count(0, 0.0)
    assert status.xdp is not None
    assert status.xdp.mode == "native"
    assert status.xdp.packets["unknown_flow"] == Count(7, 0.0)
    assert status.interval_s == 2.0
    assert status.exit_code == 0
    assert not status.alarms


@pytest.mark.parametrize(
    ("room", "shown"), [({"parrot": 3, "echo": 40}, "room for 3 parrot, 40 echo"), ({"parrot": 0}, "room for nobody")]
)
def test_a_transceiver_shows_what_it_has_room_for(room: dict[str, int], shown: str) -> None:
    rooms = "".join(f'firsthop_transceiver_room{{agent="{agent}"}} {count}\n' for agent, count in room.items())
    page = f"firsthop_transceiver_used_ratio 0.5\nfirsthop_transceiver_used_limit_ratio 0.88\n{rooms}"
    looks = [scrapes(at_s, transceiver_1=page) for at_s in (0.0, 1.0)]
    status = compare(*looks, {})
    assert status.transceivers[0].room == room
    assert f"transceiver 1; sessions: 0; {shown}; 50% of 88% in use" in drawn(status)


def test_a_transceiver_says_that_it_runs_the_compiled_form() -> None:
    pages = {"transceiver_1": "firsthop_transceiver_compiled 1\n", "transceiver_2": "firsthop_transceiver_compiled 0\n"}
    status = compare(*(scrapes(at_s, **pages) for at_s in (0.0, 1.0)), {})
    assert [transceiver.compiled for transceiver in status.transceivers] == [True, False]
    assert drawn(status).count("; compiled") == 1


def test_a_transceiver_shows_what_it_waits_for_of_the_small_models() -> None:
    page = "".join(
        f'firsthop_engine_waiting{{part="{part}"}} {n}\n' for part, n in (("ears", 2), ("mind", 0), ("voice", 1))
    )
    status = compare(*(scrapes(at_s, transceiver_1=page) for at_s in (0.0, 1.0)), {})
    assert status.transceivers[0].engine == {"ears": 2, "mind": 0, "voice": 1}
    assert "; waits for small models: ears 2, voice 1" in drawn(status)
    idle = page.replace(" 2", " 0").replace(" 1", " 0")
    assert "small models" not in drawn(compare(*(scrapes(at_s, transceiver_1=idle) for at_s in (0.0, 1.0)), {}))


def test_a_worker_that_was_started_again_has_no_negative_rate() -> None:
    status = compare(house(0.0, flow=5000), house(1.0, flow=40, restarts=1), HERE)
    assert status.workers[0].received["forwarded_flow"] == Count(40, 40.0)
    assert status.workers[0].restarts == 1
    assert [(alarm.process, alarm.counter) for alarm in status.alarms] == [("worker-0", "restarts")]
    assert status.exit_code == 0


def test_a_process_that_was_not_there_before_has_no_rates_yet() -> None:
    before = house(0.0, flow=0)
    del before["worker-0"]
    status = compare(before, house(1.0, flow=50), HERE)
    assert status.workers[0].received["forwarded_flow"] == Count(50, 0.0)


def test_a_worker_that_does_not_answer_is_down_and_somebody_is_told_what_to_do() -> None:
    after = house(1.0, flow=50)
    del after["worker-0"]
    status = compare(house(0.0, flow=0), after, HERE)
    assert [(down.process, down.address) for down in status.down] == [("worker-0", "127.0.0.1:9402")]
    assert status.exit_code == 3
    assert not status.workers[0].up
    assert "worker-0 is down: nothing answers on 127.0.0.1:9402" in drawn(status)


@pytest.mark.parametrize("why", ["no_interface", "other_program", "refused", "not_loaded", "a_newer_reason"])
def test_xdp_that_is_off_its_interface_is_down_and_somebody_is_told_what_to_do(why: str) -> None:
    missing = f'firsthop_xdp_missing{{interface="eth7",why="{why}"}} 1\n'
    page = (SUPERVISOR % (0, 0)).replace('attached{mode="native"} 1', 'attached{mode="off"} 0') + missing
    status = compare(house(0.0, flow=0), {**house(1.0, flow=50), **scrapes(1.0, supervisor=page)}, HERE)
    (down,) = status.down
    assert (down.process, down.address, status.exit_code) == ("XDP", "eth7", 3)
    assert status.xdp is not None
    assert status.xdp.mode == "off"
    shown = drawn(status, 120)
    assert f"XDP is down: {down.what_is_seen}" in shown
    assert down.what_to_do in shown


def test_dropped_datagrams_of_established_flows_are_an_alarm() -> None:
    status = compare(house(0.0, flow=0), house(1.0, flow=50, link_down=5), HERE)
    assert [(alarm.counter, alarm.count) for alarm in status.alarms] == [("link_down", Count(5, 5.0))]
    assert status.workers[0].dropped == Count(5, 5.0)
    assert ALARMS["link_down"] in drawn(status, 120)


def test_what_the_kernel_had_no_room_for_is_an_alarm_and_a_workers_drop() -> None:
    status = compare(house(0.0, flow=0, buffer_full=40), house(2.0, flow=50, buffer_full=50), HERE)
    assert [(alarm.process, alarm.counter, alarm.count) for alarm in status.alarms] == [
        ("worker-0", "buffer_full", Count(50, 5.0))
    ]
    assert status.workers[0].dropped == Count(50, 5.0)


def test_a_core_that_sheds_is_a_line_an_alarm_and_its_workers_drop() -> None:
    shed = 'firsthop_rx_xdp_packets_total{verdict="core_overloaded",core="%d"} %d\n'

    def look(at_s: float, count: int, probability: float) -> dict[str, Scrape]:
        page = SUPERVISOR % (0, 0) + shed % (3, count) + shed % (4, 1000)
        worker = WORKER % (0, 0, 0) + f"firsthop_worker_shedding_ratio {probability}\n"
        return scrapes(at_s, supervisor=page, worker_0=worker)

    status = compare(look(0.0, 0, 0.0), look(2.0, 500, 0.334), HERE)
    assert status.workers[0].shedding == 0.334
    assert status.workers[0].dropped.per_s == 250.0
    assert status.as_json()["workers"][0]["shedding"] == 0.334
    assert "core 3 is overloaded: 33% of the media for it is shed\n" in drawn(status).replace(" \n", "\n")
    assert ("supervisor", "core_overloaded") in [(alarm.process, alarm.counter) for alarm in status.alarms]
    assert "is shed" not in drawn(compare({}, look(0.0, 500, 0.0), HERE))


def test_percentiles_are_of_the_time_between_the_scrapes() -> None:
    age, trip = Durations(), Durations()
    pages = []
    for ns in (1_000_000_000, 400_000):  # what was slow was before
        for _ in range(1000):
            age.add(ns)
            trip.add(2 * ns)
        page = times("firsthop_worker_age", 7, age) + times("firsthop_link_round_trip", 7, trip)
        pages.append(page + WORKER % (0, 0, 0))
    supervisor = SUPERVISOR % (0, 0)
    before, after = (scrapes(at, supervisor=supervisor, worker_0=page) for at, page in enumerate(pages))
    status = compare(before, after, HERE)
    (worker,) = status.workers
    assert worker.held["7"].count == worker.links["7"].count == 1000
    assert 0.26 <= worker.held["7"].p50_ms <= worker.held["7"].p99_ms <= 0.53
    assert 0.52 <= worker.links["7"].p50_ms <= worker.links["7"].p99_ms <= 1.05
    assert f"{worker.links['7'].p99_ms:.2f}" in drawn(status)
    assert status.as_json()["workers"][0]["held"]["7"]["p99_ms"] == worker.held["7"].p99_ms
    # Nothing happened since; then one that was started again, and counts from nothing.
    assert compare(after, after, HERE).workers[0].held == {}
    assert compare(after, before, HERE).workers[0].held["7"].p50_ms > 500


def test_a_shared_store_is_a_line_that_says_how_old_it_is() -> None:
    def look(age_s: float) -> str:
        page = f"firsthop_directory_age_seconds {age_s}\nfirsthop_directory_transceivers 12.0\n"
        return drawn(compare({}, {**house(1.0, flow=1), **scrapes(1.0, signaling=page)}, HERE))

    assert "directory read 0.4 s ago; transceivers found: 12" in look(0.4)
    assert "directory's store is away: what is known is 75 s old; transceivers found: 12" in look(75.2)
    assert "directory" not in drawn(compare({}, house(1.0, flow=1), HERE))


def test_each_other_edge_is_a_line_that_says_how_it_is() -> None:
    def page(name: str, well: int, draining: int | None, age_s: float | None) -> str:
        of = f'{{edge="{name}"}}'
        lines = [f"firsthop_signaling_edge_well{of} {well}"]
        lines += [] if draining is None else [f"firsthop_signaling_edge_draining{of} {draining}"]
        lines += [] if age_s is None else [f"firsthop_signaling_edge_age_seconds{of} {age_s}"]
        return "\n".join(lines) + "\n"

    pages = (
        page("iad-1", 1, 0, 0.25) + page("fra-2", 0, 1, 0.5) + page("fra-3", 0, 1, 75.0) + page("gru-1", 0, None, None)
    )
    status = compare({}, {**house(1.0, flow=1), **scrapes(1.0, signaling=pages)}, HERE)
    assert status.signaling is not None
    assert status.signaling.edges == [
        OtherEdge("fra-2", False, True, 0.5),
        OtherEdge("fra-3", False, True, 75.0),
        OtherEdge("gru-1", False, False, None),
        OtherEdge("iad-1", True, False, 0.25),
    ]
    said = [" ".join(line.split()) for line in drawn(status).splitlines()]
    assert {"fra-2 drains 0.5 s ago", "fra-3 away 75.0 s ago", "gru-1 away never", "iad-1 well 0.2 s ago"} <= set(said)
    edges = status.as_json()["signaling"]["edges"]
    assert edges[0] == {"name": "fra-2", "well": False, "draining": True, "age_s": 0.5}
    assert status.exit_code == 0, "another host is not this host's to mend"
    assert "other edge" not in drawn(compare({}, house(1.0, flow=1), HERE))


def test_nothing_that_answers_is_exit_code_1() -> None:
    assert compare({}, {}, HERE).exit_code == 1


def test_every_alarm_is_a_counter_that_exists() -> None:
    there = {verdict.label for verdict in VERDICTS} | set(OUTCOMES)
    there |= {outcome for tally in counters.all_counters if isinstance(tally, Tally) for outcome in tally}
    assert set(ALARMS) - there == {  # named inside
        "buffer_full",
        "express_full",
        "table_full",
        "kernel_map_full",
        "queue_full",
    }


def test_a_page_of_somebody_else_is_not_ours() -> None:
    with pytest.raises(ValueError, match="somebody else"):
        read("node_load1 0.5\n")
    assert worker_cpus(None) == {}


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0"), (0.25, "0.2"), (50, "50"), (9999, "9999"), (12_345, "12.3k"), (2e6, "2.0M")]
)
def test_rates_are_short(rate: float, text: str) -> None:
    assert per_second(Count(0, rate)) == text


def test_transceivers_that_take_media_past_the_workers_are_told_and_why_others_do_not() -> None:
    express = 'firsthop_edge_express{transceiver="%d",why="%s"} %d\n'
    page = SUPERVISOR % (0, 0) + express % (1, "", 1) + express % (1, "held", 0) + express % (2, "another_host", 0)
    status = compare({}, scrapes(0.0, supervisor=page, worker_0=WORKER % (0, 0, 0)), HERE)
    assert status.xdp is not None
    assert status.xdp.express == {"1": "", "2": "another_host"}
    assert "express to transceivers: 1; not 2 (another_host)" in drawn(status)


def test_the_view_says_what_xdp_off_costs_and_fits_a_terminal() -> None:
    page = SUPERVISOR.replace('mode="native"} 1', 'mode="off"} 0') % (0, 0)
    off = compare({}, scrapes(0.0, supervisor=page, worker_0=WORKER % (0, 0, 0)), HERE)
    assert "XDP off" in drawn(off)
    assert "forged packets reach the workers" in drawn(off, 120)
    native = drawn(compare(house(0.0, flow=0), house(1.0, flow=1_234_567), HERE))
    assert "…" not in native
    assert "1.2M" in native


# --- a real host


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An edge and a transceiver on this machine."""
    with Appliance(tmp_path_factory.mktemp("here"), http_port=18080, media_port=13478) as appliance:
        yield appliance


def told(appliance: Appliance, *options: str) -> tuple[int, str]:
    argv = ["status", "--config", str(appliance.config_file), "--interval", "0.1", *options]
    result = CliRunner().invoke(main, argv, catch_exceptions=False)
    return result.exit_code, result.output


def as_json(appliance: Appliance) -> tuple[int, dict[str, Any]]:
    code, output = told(appliance, "--json")
    said: dict[str, Any] = json.loads(output)
    return code, said


def well(appliance: Appliance) -> dict[str, Any]:
    """What it says when all is well: a process that a busy machine keeps waiting is down for that long."""
    found: list[dict[str, Any]] = []

    def asked() -> bool:
        code, said = as_json(appliance)
        found.append(said)
        return code == 0

    until(asked)
    return found[-1]


def test_one_call_is_one_flow_and_a_killed_worker_is_one_restart(here: Appliance) -> None:
    argv = [sys.executable, "-m", "firsthop", "call", here.url, "--quiet", "--model", "echo"]
    argv += ["--token-file", str(here.token_file), "--duration", "60"]
    call = Loopback().popen(argv, stdout=subprocess.DEVNULL)
    try:
        until(lambda: as_json(here)[1]["flows"] == 1)
        until(lambda: sum(worker["received"]["forwarded_flow"]["per_s"] for worker in as_json(here)[1]["workers"]) > 0)
        said = well(here)
        assert said["ok"]
        assert said["xdp"]["mode"] == "off"

        def timed() -> bool:
            workers = as_json(here)[1]["workers"]
            return any("1" in worker["held"] and "1" in worker["links"] for worker in workers)

        until(timed)
        assert said["signaling"]["responses"]["201"]["total"] == 1
        assert [(t["id"], t["up"], t["sessions"]) for t in said["transceivers"]] == [(1, True, 1)]

        here.children()["worker-0"].send_signal(signal.SIGKILL)
        until(lambda: received(here, "edge", "firsthop_edge_restarts_total")["worker-0"] == 1)
        said = well(here)
        assert [worker["restarts"] for worker in said["workers"]] == [1] + [0] * (len(said["workers"]) - 1)
        assert all(worker["received"]["forwarded_flow"]["per_s"] >= 0 for worker in said["workers"])
        until(lambda: told(here)[0] == 0)
        _, output = told(here)
        assert "XDP off" in output
        assert "restarts: 1" in output
    finally:
        call.send_signal(signal.SIGINT)
        call.wait(60)


def test_watching_ends_cleanly_at_control_c(here: Appliance) -> None:
    argv = [sys.executable, "-m", "firsthop", "status", "--config", str(here.config_file), "--watch", "--json"]
    watching = Loopback().popen([*argv, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: json.loads(watching.stdout.readline())["ok"])
    until(lambda: json.loads(watching.stdout.readline())["ok"])
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=60)
    assert (watching.returncode, errors) == (0, b"")


def test_a_transceiver_that_is_away_is_down_and_exit_code_3(here: Appliance) -> None:
    away = here.processes["transceiver"]
    away.terminate()
    away.wait(60)
    until(lambda: [down["process"] for down in as_json(here)[1]["down"]] == ["transceiver-1"])
    code, said = as_json(here)
    assert code == 3
    assert not said["ok"]
    (down,) = [down for down in said["down"] if down["process"] == "transceiver-1"]
    assert "journalctl -u firsthop-transceiver@1" in down["what_to_do"]


def test_nothing_running_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    file = tmp_path / "firsthop.toml"
    # Port 1 of loopback: nobody's.
    peers = '[[edge.transceivers]]\nid = 10\nendpoint = "ipc:///run/nobody.sock"\n'
    file.write_text(f'[edge]\nmetrics = "127.0.0.1:1"\n{peers}[transceiver]\nid = 10\nmetrics = "127.0.0.1:1"\n')
    argv = ["status", "--config", str(file), "--interval", "0.1"]
    result = CliRunner().invoke(main, argv, catch_exceptions=False)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert "127.0.0.1:1" in result.output


def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--config", str(tmp_path / "none.toml")], catch_exceptions=False)
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
