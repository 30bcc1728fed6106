"""One caller against the others: everything in ``hostile.py``, beside calls that must not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from calling import hang_up, start_call
from observing import sessions_of
from waiting import until

from lab.appliance import Appliance
from lab.network import Lab

ATTACKS = (
    "sdp_bomb",
    "event_bombs",
    "channel_bombs",
    "sctp_storm",
    "half_open",
    "one_ssrc",
    "replayed_checks",
    "restarts",
    "half_requests",
)

pytestmark = pytest.mark.alone


def beside_calls(
    lab: Lab, appliance: Appliance, attacks: tuple[str, ...], *, calls: int, seconds: int
) -> dict[str, Any]:
    """What calls heard while the attacks were made, each for so many seconds."""
    live = start_call(lab.client, appliance, "-n", str(calls), "--model", "loopback", "--duration", "600")
    until(lambda: sessions_of(appliance, "transceiver") == calls)
    argv = [sys.executable, str(Path(__file__).with_name("hostile.py")), appliance.url, str(appliance.token_file)]
    with lab.client.popen(
        [*argv, str(seconds), *attacks], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as attacker:
        said, _ = attacker.communicate(timeout=600)
    print(json.dumps(json.loads(said), indent=1))
    heard = hang_up(live)
    print(heard["server"], silenced(heard))
    return heard


def silenced(heard: dict[str, Any]) -> dict[str, float]:
    """What these calls felt of it: the share of frames that were made too late, those of the callers' that found no
    room because nobody read them, packets that never came, and the longest silence in seconds."""
    made = heard["server"]["made"]
    return {
        "late": made["late"] / (made["late"] + made["on_time"]),
        "overflow": heard["server"]["heard"].get("overflow", 0),
        "lost": heard["audio"]["packets"]["lost"],
        "longest_s": heard["audio"]["longest_gap_ms"]["max"] / 1000,
    }


def test_nothing_that_one_caller_does_silences_the_others(lab: Lab, appliance: Appliance) -> None:
    heard = beside_calls(lab, appliance, ATTACKS, calls=5, seconds=1)
    felt = silenced(heard)
    assert heard["calls"]["ok"] == 5
    assert felt["lost"] == 0
    # Attacker, callers and appliance share this machine's cores; the long form is strict.
    assert felt["longest_s"] < 0.5, felt
    assert felt["overflow"] < 100, felt
    assert felt["late"] < 0.05, felt


@pytest.mark.trials
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_costs_twenty_calls_a_frame(lab: Lab, appliance: Appliance, attack: str) -> None:
    heard = beside_calls(lab, appliance, (attack,), calls=20, seconds=10)
    felt = silenced(heard)
    assert heard["calls"]["ok"] == 20
    assert felt["lost"] == felt["overflow"] == 0
    assert felt["longest_s"] < 0.1, felt
    # More than 5 ms after its time, which every receiver's jitter buffer makes up for: callers and attacker have the
    # same cores as the appliance.
    assert felt["late"] < 0.02, felt
