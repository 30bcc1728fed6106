"""Calls whose edge is killed, time after time: they go on over the other edge, by ICE alone, and soon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import OFFERS_TONE, a_page
from calling import finish, start_call
from paths import TESTS
from privileges import cannot_run
from two_edges import EDGES, carrier, carries, hang_up_at, kill_host, last_call, until_both_are_well

from lab.appliance import Appliance
from lab.network import Lab

pytestmark = [pytest.mark.needs_root, pytest.mark.trials]
LAB_EDGES = 2

TIMES = 10
AUDIBLE_AGAIN_MS = 6000.0

# ``call`` places one to the agent echo with a tone; from then on ``longest`` has the longest time without a packet.
SCRIPT = """
const pc = new RTCPeerConnection();
let packets = 0, came = 0, longest = 0;
async function call(token) {
  await offersTone(pc);
  const headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const body = pc.localDescription.sdp;
  const placed = await fetch("/v1/realtime/calls?model=echo", {method: "POST", body, headers});
  await pc.setRemoteDescription({type: "answer", sdp: await placed.text()});
  setInterval(async () => {
    const inbound = [...(await pc.getStats()).values()].find((it) => it.type === "inbound-rtp");
    if (!inbound || inbound.packetsReceived === packets) return;
    packets = inbound.packetsReceived;
    const now = performance.now();
    if (packets > 50) longest = Math.max(longest, now - came);
    came = now;
  }, 20);
}
"""


@pytest.fixture(scope="module")
def house(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("edges"), lab=lab) as appliance:
        yield appliance


def kill_in_mid_call(house: Appliance) -> tuple[str, str]:
    """Kills the host of the edge that has the call, and waits until the other has it. Returns which is which."""
    killed, other = carrier(house)
    kill_host(house, killed)
    carries(house, other)
    return killed, other


async def by_chromium(lab: Lab, house: Appliance, folder: Path) -> float:
    """The longest gap of a call of Chromium's whose edge is killed, in milliseconds."""
    async with a_page(lab, folder, house.url, OFFERS_TONE + SCRIPT) as page:
        await page.evaluate("token => call(token)", house.token)
        await page.wait_for_function("packets > 100")
        kill_in_mid_call(house)
        await page.wait_for_function("before => packets > before", arg=await page.evaluate("packets + 50"))
        return float(await page.evaluate("longest"))


def in_node(lab: Lab, house: Appliance) -> dict[str, Any]:
    """What libwebrtc says in Node of a call whose edge was killed."""
    clients = TESTS / "clients"
    if not (clients / "node_modules/@roamhq").exists():
        cannot_run("needs npm's @roamhq/wrtc: run scripts/setup dev")
    argv = lab.client.command(["node", "outlive-wrtc.mjs", house.url, house.token])
    with subprocess.Popen(argv, cwd=clients, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "heard\n"
        kill_in_mid_call(house)
        output, _ = node.communicate(timeout=60)
    said: dict[str, Any] = json.loads(output.splitlines()[-1])
    return said


async def by_libwebrtc_in_node(lab: Lab, house: Appliance, _: Path) -> float:
    """The same of libwebrtc's in Node."""
    return float(in_node(lab, house)["longest_gap_ms"])


async def by_our_caller(lab: Lab, house: Appliance, _: Path) -> float:
    """The same of firsthop's own caller."""
    call = start_call(lab.client, house, "--model", "echo", "--duration", "120")
    _, other = kill_in_mid_call(house)
    assert hang_up_at(house, other, last_call(house)) == 200
    return float(finish(call, expect=1)["audio"]["longest_gap_ms"]["max"])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("by", [by_our_caller, by_chromium, by_libwebrtc_in_node])
async def test_ten_kills_of_an_edge_are_each_heard_for_six_seconds_at_most(
    lab: Lab, house: Appliance, tmp_path: Path, by: Callable[[Lab, Appliance, Path], Awaitable[float]]
) -> None:
    gaps = []
    for _ in range(TIMES):
        until_both_are_well(house)
        gaps.append(await by(lab, house, tmp_path))
        (killed,) = [edge for edge in EDGES if house.processes[edge].poll() is not None]
        house.start(killed)
        house.wait_ready()
    print(f"{by.__name__}: silent for {', '.join(f'{gap:.0f}' for gap in sorted(gaps))} ms")
    assert all(gap <= AUDIBLE_AGAIN_MS for gap in gaps)
