"""Taking a core out of service and back: its share of new calls moves, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from calling import finish, flow_gone, hang_up, start_call
from click.testing import CliRunner, Result
from observing import STEERED, cores, moved, xdp
from privileges import cannot_run
from waiting import until

from edge.xdp.placement import slots
from firsthop.cli import main
from lab.appliance import Appliance
from lab.network import Lab

CPUS = (0, 2, 3, 7, 8)


def test_every_core_has_a_like_share() -> None:
    shares = Counter(slots(CPUS))
    assert set(shares) == set(CPUS)
    assert max(shares.values()) - min(shares.values()) <= 1


@pytest.mark.parametrize("out", [c for n in range(1, len(CPUS)) for c in combinations(CPUS, n)], ids=str)
def test_what_is_not_taken_out_keeps_its_slots(out: tuple[int, ...]) -> None:
    homes, lent = slots(CPUS), slots(CPUS, out)
    assert all(now == home for home, now in zip(homes, lent, strict=True) if home not in out)
    assert set(lent) == set(CPUS) - set(out)
    shares = Counter(lent)
    # What is lent is spread as evenly as whole turns over the cores allow.
    assert max(shares.values()) - min(shares.values()) <= 1 + len(CPUS)


def test_the_last_core_stays() -> None:
    with pytest.raises(ValueError, match="no core would be left"):
        slots(CPUS, CPUS)


def firsthop(appliance: Appliance, *argv: str) -> Result:
    return CliRunner().invoke(main, ["cores", "-c", str(appliance.config_file), *argv], catch_exceptions=False)


def told(appliance: Appliance, *argv: str) -> dict[int, dict[str, Any]]:
    result = firsthop(appliance, "--json", *argv)
    assert result.exit_code == 0, result.output
    return {row["core"]: row for row in json.loads(result.stdout)["cores"]}


def steered_to(appliance: Appliance, before: dict[Any, int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for (verdict, core), n in moved(before, xdp(appliance)).items():
        if verdict in STEERED:
            found[int(core)] += n
    return found


@pytest.mark.needs_root
def test_a_core_leaves_and_returns_under_calls(lab: Lab, appliance: Appliance) -> None:
    first, *others = cores()
    if not others:
        cannot_run("one core cannot be taken out")
    until(lambda: flow_gone(appliance))
    assert {core: row["in"] for core, row in told(appliance).items()} == dict.fromkeys(cores(), True)

    # Enough that each core gets some of them.
    calls = start_call(lab.client, appliance, "-n", "16", "--model", "echo", "--duration", "600")
    until(lambda: sum(row["flows"] for row in told(appliance).values()) == 16)
    placed = {core: row["flows"] for core, row in told(appliance).items()}
    assert placed[first] > 0
    assert told(appliance, "out", str(first))[first] == {"core": first, "in": False, "slots": 0, "flows": placed[first]}

    # New ones go elsewhere; those that it has stay, with their checks.
    before = xdp(appliance)
    more = start_call(lab.client, appliance, "-n", "8", "--model", "echo", "--duration", "600")
    until(lambda: sum(row["flows"] for row in told(appliance).values()) == 24)
    assert told(appliance)[first]["flows"] == placed[first]
    assert hang_up(more)["audio"]["packets"]["lost"] == 0
    said = hang_up(calls)
    assert said["calls"]["ok"] == 16
    assert said["audio"]["packets"]["lost"] == 0
    after = moved(before, xdp(appliance))
    assert after["stun_steered", str(first)] > 0
    # Media that goes past the workers is on no core of theirs.
    assert after.get(("flow_steered", str(first)), 0) + after.get(("flow_expressed", "0"), 0) > 0
    until(lambda: flow_gone(appliance))

    # Out is out for the next supervisor as well.
    appliance.processes["edge"].kill()
    appliance.processes["edge"].wait()
    appliance.start("edge")
    appliance.wait_ready()
    before = xdp(appliance)
    finish(start_call(lab.client, appliance, "-n", "8", "--model", "echo", "--duration", "1"))
    assert steered_to(appliance, before)[first] == 0

    until(lambda: flow_gone(appliance))
    assert told(appliance, "in", str(first)) == {
        core: {"core": core, "in": True, "slots": slots(cores()).count(core), "flows": 0} for core in cores()
    }


@pytest.mark.needs_root
def test_what_cannot_be_is_one_line(appliance: Appliance, tmp_path: Path) -> None:
    *others, last = cores()
    try:
        for core in others:
            told(appliance, "out", str(core))
        result = firsthop(appliance, "out", str(last))
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"core {last} is the last that takes new calls" in result.stderr
        result = firsthop(appliance, "out", "99")
        assert (result.exit_code, "no worker runs on core 99" in result.stderr) == (2, True)
        assert "out" in firsthop(appliance).stdout
    finally:
        for core in others:
            told(appliance, "in", str(core))


def test_without_xdp_there_is_nothing_to_choose(tmp_path: Path) -> None:
    config = tmp_path / "firsthop.toml"
    config.write_text(f'[edge]\npins = "{tmp_path}"\n')
    result = CliRunner().invoke(main, ["cores", "-c", str(config)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "no edge steers with XDP here" in result.stderr
