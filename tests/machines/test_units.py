"""The units under a real systemd: what starts, what is held back, and what calls hear of restarts, kills and hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from installed import EDGE, TRANSCEIVERS, Installed, installed
from waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.trials]

UNITS = (EDGE, TRANSCEIVERS)
WORKERS, MEDIA = ("signaling", "worker-0", "worker-1"), ("media-1", "media-2")
CHILDREN = {EDGE: WORKERS, TRANSCEIVERS: MEDIA}
CALLS = 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(tmp_path_factory.mktemp("units")) as running:
        yield running


@pytest.fixture
def host(running: Installed) -> Installed:
    until(running.whole)
    return running


def children_of(host: Installed, unit: str) -> dict[str, int]:
    """A unit's children but for the spare."""
    found = host.processes()
    return {name: found[name] for name in CHILDREN[unit]}


def taken_over(host: Installed, unit: str, before: dict[str, int], main: int) -> None:
    """Returns when another supervisor has a unit's children, which are those that there were."""
    until(lambda: host.main(unit) not in (0, main) and host.show(unit, "ActiveState") == "active")
    until(host.whole)
    assert children_of(host, unit) == before


@contextmanager
def within_10_s(who: str) -> Iterator[None]:
    """What hangs is noticed and replaced by then, and its calls have their frames again."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    print(f"{who} hung, and was replaced after {took_s:.1f} s", flush=True)
    assert took_s < 10


def test_services_are_up_in_their_slice_with_xdp_and_without_what_they_do_not_need(host: Installed) -> None:
    for unit in UNITS:
        assert host.show(unit, "ActiveState") == "active"
        assert host.show(unit, "Slice") == "firsthop.slice"
        assert host.show(unit, "NRestarts") == "0"
        assert host.show(unit, "Result") == "success"
    assert "xdp" in host.machine.run("ip", "link", "show", "eth0")
    assert host.metrics(9400)[("firsthop_xdp_attached", "native")] == 1
    for name, pid in host.processes().items():
        status = dict(
            line.split(":\t", 1) for line in host.machine.path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert (name, status["Seccomp"], status["NoNewPrivs"]) == (name, "2", "1")
        assert (name, int(status["CapEff"], 16), int(status["CapPrm"], 16)) == (name, 0, 0)


def test_a_call_goes_through_them(host: Installed) -> None:
    assert host.hang_up(host.start_calls(CALLS)) == (CALLS, 0)


def test_media_goes_past_the_workers_between_the_units(host: Installed) -> None:
    """Each has a sandbox of its own; what they agree on crosses both."""

    def edge() -> dict[tuple[str, ...], float]:
        return host.metrics(9400)

    until(lambda: all(edge().get(("firsthop_edge_express", number, "")) == 1 for number in ("1", "2")))

    def expressed() -> float:
        return sum(n for key, n in edge().items() if "flow_expressed" in key)

    before, calls = expressed(), host.start_calls(CALLS)
    until(lambda: expressed() >= before + 200)
    assert host.hang_up(calls) == (CALLS, 0)


@pytest.mark.parametrize("unit", UNITS)
def test_reload_costs_calls_nothing(host: Installed, unit: str) -> None:
    calls, before, main = host.start_calls(CALLS), children_of(host, unit), host.main(unit)
    ready = host.log(unit).count('"event": "ready"')
    host.machine.run("systemctl", "reload", unit)
    until(lambda: host.log(unit).count('"event": "ready"') > ready)
    until(host.whole)
    host.goes_on()
    assert host.hang_up(calls) == (CALLS, 0)
    assert (children_of(host, unit), host.main(unit)) == (before, main)


@pytest.mark.parametrize("unit", UNITS)
def test_restart_costs_calls_nothing(host: Installed, unit: str) -> None:
    calls, before, main = host.start_calls(CALLS), children_of(host, unit), host.main(unit)
    host.machine.run("systemctl", "restart", unit)
    taken_over(host, unit, before, main)
    host.goes_on()
    assert host.hang_up(calls) == (CALLS, 0)


@pytest.mark.parametrize("unit", UNITS)
def test_a_killed_supervisor_costs_calls_nothing(host: Installed, unit: str) -> None:
    calls, before, main = host.start_calls(CALLS), children_of(host, unit), host.main(unit)
    host.machine.run("kill", "-KILL", str(main))
    taken_over(host, unit, before, main)
    host.goes_on()
    assert host.hang_up(calls) == (CALLS, 0)


@pytest.mark.parametrize("unit", UNITS)
def test_a_supervisor_that_hangs_is_replaced_by_the_watchdog_and_costs_calls_nothing(
    host: Installed, unit: str
) -> None:
    calls, before, main = host.start_calls(CALLS), children_of(host, unit), host.main(unit)
    with within_10_s(f"the supervisor of {unit}"):
        host.machine.run("kill", "-STOP", str(main))
        until(lambda: host.main(unit) not in (0, main) and host.show(unit, "ActiveState") == "active")
    taken_over(host, unit, before, main)
    assert "Watchdog timeout" in host.machine.run("journalctl", "--no-pager", "--output=cat", f"UNIT={unit}")
    host.goes_on()
    assert host.hang_up(calls) == (CALLS, 0)


@pytest.mark.parametrize("name", ["worker-1", "media-1", "signaling"])
def test_a_child_that_hangs_is_replaced_and_calls_go_on(host: Installed, name: str) -> None:
    calls, before = host.start_calls(CALLS), host.processes()[name]
    with within_10_s(name):
        host.machine.run("kill", "-STOP", str(before))
        until(lambda: host.processes().get(name, before) != before)
        until(host.ready)
        host.goes_on()
    until(host.whole)
    assert host.hang_up(calls)[0] == CALLS


def test_a_stop_ends_calls_in_the_time_that_its_unit_gives(host: Installed) -> None:
    """Where no other transceiver is to take them."""
    calls = host.start_calls(CALLS)
    host.machine.run("systemctl", "stop", TRANSCEIVERS)
    assert host.show(TRANSCEIVERS, "Result") == "success"  # and not timeout
    assert children_of(host, EDGE).keys() == set(WORKERS)
    assert not {name for name in host.processes() if name.startswith("media")}
    calls.terminate()
    calls.communicate(timeout=120)
    host.machine.run("systemctl", "start", TRANSCEIVERS)


def test_stopped_services_leave_nothing_and_start_again(host: Installed) -> None:
    host.machine.run("systemctl", "stop", *UNITS)
    assert [host.show(unit, "Result") for unit in UNITS] == ["success", "success"]
    assert host.processes() == {}
    assert "xdp" not in host.machine.run("ip", "link", "show", "eth0")
    host.machine.run("systemctl", "start", *UNITS)
    until(host.whole)
    assert host.hang_up(host.start_calls(1)) == (1, 0)


def test_a_configuration_that_cannot_run_is_refused_and_calls_go_on(host: Installed) -> None:
    config = host.machine.path("/etc/firsthop/firsthop.toml")
    text, calls = config.read_text(), host.start_calls(1)
    config.write_text(text.replace("[edge]", "[edge]\nnosuch = 1"))
    host.machine.run("sh", "-c", f"! systemctl reload {EDGE}")
    assert "edge.nosuch" in host.log(EDGE)
    config.write_text(text)
    host.goes_on()
    assert host.hang_up(calls) == (1, 0)


def test_after_a_reboot_calls_go_through_again(host: Installed) -> None:
    host.machine.reboot()
    until(host.whole)
    assert host.hang_up(host.start_calls(1)) == (1, 0)
