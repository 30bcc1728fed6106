"""A page that restarts ICE in mid-call by WHIP's PATCH."""

from __future__ import annotations

# ``call`` places one to the agent echo with a tone; ``restart`` has the browser make new credentials, and tells both
# sides, by the edge at that URL or the page's own; ``now`` says how the call is.
RESTARTS = """
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
async function restart(at = "") {
  pc.restartIce();
  await pc.setLocalDescription();
  const sdp = pc.localDescription.sdp;
  const body = `a=ice-ufrag:${line(sdp, "ice-ufrag")}\\r\\na=ice-pwd:${line(sdp, "ice-pwd")}\\r\\n`;
  headers["Content-Type"] = "application/trickle-ice-sdpfrag";
  const patched = await fetch(at + where, {method: "PATCH", body, headers});
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
