"""Hand-offs of models under calls, by ``firsthop handoff``: the callers lose no frame, and no event."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from calling import goes_on, hang_up, start_call
from far_host import FarHost
from observing import cores
from paths import TESTS
from waiting import DEADLINE_S, until

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = pytest.mark.needs_root

TAKEN_OVER = ("firsthop_transceiver_agent_handoffs_total", "taken_over")
CALLS = 3


def handoff(house: Appliance, *arguments: str) -> tuple[int, dict[str, Any]]:
    return told_by(starts_handoff(house, *arguments))


def models(house: Appliance) -> list[str]:
    """The models of the calls that there are, as the API lists them."""
    request = Request(f"{house.url}/v1/realtime/calls", headers={"Authorization": f"Bearer {house.token}"})

    def listed() -> list[str]:
        with urlopen(request, timeout=DEADLINE_S) as response:
            found = json.load(response)
        return [] if found["has_more"] else [call["model"] for call in found["data"]]

    until(lambda: house.edge.inside(listed))
    return house.edge.inside(listed)


def rx_audio(port: int) -> int:
    """The packets of audio that the transceiver with that port for metrics has heard."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as response:
        text = response.read().decode()
    (found,) = re.findall(r'^firsthop_rx_transceiver_datagrams_total{outcome="audio"} (\S+)$', text, re.MULTILINE)
    return int(float(found))


def logged(house: Appliance, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in house.log_file("transceiver").read_text().splitlines() if line[:1] == "{"]
    return [line for line in lines if line["event"] == event]


def starts_handoff(house: Appliance, *arguments: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "firsthop", "handoff", *arguments, "--json", "-c", str(house.config_file)]
    process: subprocess.Popen[bytes] = house.edge.popen(argv, stdout=subprocess.PIPE)
    return process


def told_by(process: subprocess.Popen[bytes]) -> tuple[int, dict[str, Any]]:
    output, _ = process.communicate(timeout=DEADLINE_S)
    found: dict[str, Any] = json.loads(output)
    return process.returncode, found


def knows_the_far_host(house: Appliance) -> bool:
    """Whether signaling has a report of the transceiver 3 that names its agents: one that has made none may be asked
    for new calls, but no call moves to it."""
    argv = [sys.executable, "-m", "firsthop", "explain", "far", "--json", "-c", str(house.config_file)]
    with house.edge.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode == 0 and [each["id"] for each in json.loads(output)["candidates"]] == [3]


def test_callers_move_to_a_model_of_another_host_and_stay_where_that_dies(lab: Lab, tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    with Appliance(tmp_path, lab=lab, models=["*"]) as house, FarHost(lab, house, far) as there:
        calls = start_call(lab.client, house, "-n", "2", "--model", "echo", "--duration", "120")
        numbered = lab.client.popen(
            [sys.executable, str(TESTS / "appliance/edges/numbered_caller.py"), house.url, str(house.token_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        until(lambda: len(logged(house, "media up")) == CALLS)
        call = logged(house, "media up")[0]["call"]
        text = house.config_file.read_text()
        another = f'[[edge.transceivers]]\nid = 3\nendpoint = "{there.endpoint}"\n[transceiver]'
        house.config_file.write_text(text.replace("[transceiver]", another))
        house.processes["edge"].send_signal(signal.SIGHUP)
        until(lambda: knows_the_far_host(house))

        warming = starts_handoff(house, call, "slow")
        until(there.warming.exists)
        goes_on(house, "transceiver")
        there.dies()
        code, said = told_by(warming)
        assert (code, [each["code"] for each in said["stay"]]) == (1, ["gone"])
        goes_on(house, "transceiver")
        assert logged(house, "moved") == []

        there.start()
        until(lambda: handoff(house, "--from", "echo", "--to", "far")[0] == 0)
        until(lambda: models(house) == ["far"] * CALLS)
        assert len(there.logged("took a call over")) == CALLS
        assert [(line["agent"], line["to"]) for line in logged(house, "another agent has the call")] == [
            ("far", 3)
        ] * CALLS
        heard = there.logged("took a call over")
        assert {line["agent"] for line in heard} == {"far"}
        far_on = house.edge.inside(lambda: rx_audio(9503))
        until(lambda: house.edge.inside(lambda: rx_audio(9503)) > far_on + 100)
        said = hang_up(calls)
        told, _ = numbered.communicate(timeout=DEADLINE_S)
    assert said["calls"]["ok"] == 2
    assert said["audio"]["packets"]["lost"] == said["audio"]["packets"]["rejected"] == 0
    events = json.loads(told.splitlines()[-1])
    assert events["answers"] == sorted(events["answers"])
    # The hand-off makes one more such event, and the caller ends when there are as many as it asked for.
    assert set(events["answers"]) == set(range(max(events["answers"]) + 1))
    assert max(events["answers"]) >= events["asked"] - 2


def test_callers_get_other_models_without_a_gap_and_keep_them_when_the_process_dies(lab: Lab, tmp_path: Path) -> None:
    with Appliance(tmp_path, lab=lab, transceiver_cores=cores()[:1]) as house:
        calls = start_call(lab.client, house, "-n", str(CALLS), "--model", "echo", "--duration", "120")
        until(lambda: len(logged(house, "media up")) == CALLS)
        goes_on(house, "media-1")
        call = logged(house, "media up")[0]["call"]
        code, said = handoff(house, call, "nobody")
        assert (code, said["stay"][0]["code"]) == (1, "model_not_found")
        assert handoff(house, "--from", "echo", "--to", "loopback") == (
            0,
            {"calls": CALLS, "handed_off": CALLS, "stay": [], "complete": True},
        )
        goes_on(house, "media-1")
        assert handoff(house, call, "echo")[0] == 0  # when its caller is silent, or after ten seconds
        goes_on(house, "media-1")
        assert house.metrics("media-1")[TAKEN_OVER] == CALLS + 1
        taken = [line["agent"] for line in logged(house, "another agent has the call")]
        assert taken == ["loopback"] * CALLS + ["echo"]
        said = hang_up(calls)
        assert said["calls"]["ok"] == CALLS
        assert said["audio"]["packets"]["lost"] == said["audio"]["packets"]["rejected"] == 0
        assert said["audio"]["packets"]["received"] > 0

        calls = start_call(lab.client, house, "-n", "1", "--model", "echo", "--duration", "120")
        until(lambda: len(logged(house, "media up")) == CALLS + 1)
        assert handoff(house, logged(house, "media up")[-1]["call"], "loopback")[0] == 0
        os.kill(house.children()["media-1"].pid, signal.SIGKILL)
        until(lambda: any(line.get("revived") for line in logged(house, "ready")))
        goes_on(house, "media-1")
        assert models(house) == ["loopback"]
        assert hang_up(calls)["calls"]["ok"] == 1
