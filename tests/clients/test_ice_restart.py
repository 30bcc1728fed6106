"""libwebrtc restarts ICE in mid-call by WHIP's PATCH: Debian's Chromium on the lab's client host, through XDP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import OFFERS_TONE, a_page

from lab.appliance import Appliance
from lab.network import Lab

# ``call`` places one to the agent echo with a tone; ``restart`` has the browser make new credentials, and tells both
# sides; ``now`` says how the call is.
SCRIPT = """
const pc = new RTCPeerConnection();
let answer, where, headers;
const line = (sdp, name) => sdp.match(new RegExp(`a=${name}:(.*)\\r?\\n`))[1].trim();
async function call(token) {
  await offersTone(pc);
  headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const placed = await fetch("/whip/echo", {method: "POST", body: pc.localDescription.sdp, headers});
  answer = await placed.text();
  where = placed.headers.get("Location");
  headers["If-Match"] = placed.headers.get("ETag");
  await pc.setRemoteDescription({type: "answer", sdp: answer});
}
async function restart() {
  pc.restartIce();
  await pc.setLocalDescription();
  const sdp = pc.localDescription.sdp;
  const body = `a=ice-ufrag:${line(sdp, "ice-ufrag")}\\r\\na=ice-pwd:${line(sdp, "ice-pwd")}\\r\\n`;
  headers["Content-Type"] = "application/trickle-ice-sdpfrag";
  const patched = await fetch(where, {method: "PATCH", body, headers});
  headers["If-Match"] = patched.headers.get("ETag");
  const said = await patched.text();
  for (const name of ["ice-ufrag", "ice-pwd"]) answer = answer.replaceAll(line(answer, name), line(said, name));
  await pc.setRemoteDescription({type: "answer", sdp: answer});
  return [patched.status, line(said, "ice-ufrag")];
}
async function now() {
  const stats = [...(await pc.getStats()).values()];
  const heard = stats.find((s) => s.type === "inbound-rtp") ?? {};
  const chosen = stats.find((s) => s.type === "transport")?.selectedCandidatePairId;
  const pair = stats.find((s) => s.id === chosen);
  const remote = stats.find((s) => s.id === pair?.remoteCandidateId);
  return {state: pc.connectionState, packets: heard.packetsReceived ?? 0, lost: heard.packetsLost ?? 0,
          ufrag: remote?.usernameFragment, answered: pair?.responsesReceived ?? 0};
}
"""


async def test_a_call_goes_on_through_restarts(lab: Lab, appliance: Appliance, tmp_path: Path) -> None:
    async with a_page(lab, tmp_path, appliance.url, OFFERS_TONE + SCRIPT) as page:

        async def now() -> dict[str, Any]:
            said: dict[str, Any] = await page.evaluate("now()")
            return said

        async def until(condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            async with asyncio.timeout(60):
                while not condition(it := await now()):  # noqa: ASYNC110 - the page has no event for it
                    await asyncio.sleep(0.05)
            return it

        await page.evaluate("(token) => call(token)", appliance.token)
        it = await until(lambda it: it["state"] == "connected" and it["packets"] > 50)
        for _ in range(2):
            status, ufrag = await page.evaluate("restart()")
            assert status == 200
            await until(lambda it, ufrag=ufrag: it["ufrag"] == ufrag and it["answered"] > 0)
            more = it["packets"] + 100
            it = await until(lambda it, more=more: it["state"] == "connected" and it["packets"] > more)
        print(it)
        assert it["lost"] == 0
        # The call is still known by the name it was given at first.
        assert await page.evaluate("fetch(where, {method: 'DELETE', headers}).then((said) => said.status)") == 200
