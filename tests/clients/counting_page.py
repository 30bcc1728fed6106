"""The script of a page with one call, which counts what it hears and what is answered on its data channel."""

from __future__ import annotations

# ``call`` places one, ``ask`` sends an event every 20 ms and resolves when so many have been answered in order,
# ``lost`` has what either side has heard of the other.
SCRIPT = """
const pc = new RTCPeerConnection();
const channel = pc.createDataChannel("oai-events");
const updated = [];
let mouth;
let created = 0;
const events = [];
channel.onmessage = ({data}) => {
  const event = JSON.parse(data);
  events.push(event);
  if (event.type === "session.created") created += 1;
  if (event.type === "session.updated") updated.push(event.session.instructions);
};
async function call(url, token) {
  const tone = new AudioContext(), sink = tone.createMediaStreamDestination();
  const oscillator = tone.createOscillator();
  mouth = tone.createGain();
  mouth.gain.value = 0;  // until every event of its voice can be told
  oscillator.type = "sawtooth";
  oscillator.frequency.value = 140;
  oscillator.connect(mouth).connect(sink);
  oscillator.start();
  pc.addTrack(sink.stream.getTracks()[0], sink.stream);
  await pc.setLocalDescription();
  const headers = {Authorization: `Bearer ${token}`, "Content-Type": "application/sdp"};
  const placed = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers});
  await pc.setRemoteDescription({type: "answer", sdp: await placed.text()});
  await new Promise((resolve) => channel.addEventListener("open", resolve));
  mouth.gain.value = 1;
}
const came = (type) => events.filter((event) => event.type === type);
let asked = 0;
function ask() {
  const session = {type: "realtime", instructions: `${asked++}`};
  channel.send(JSON.stringify({type: "session.update", session}));
}
async function lost() {
  const stats = [...(await pc.getStats()).values()];
  const inbound = stats.find((it) => it.type === "inbound-rtp");
  const remote = stats.find((it) => it.type === "remote-inbound-rtp");
  return {heard: inbound.packetsReceived, lost: inbound.packetsLost, discarded: inbound.packetsDiscarded,
          concealed: inbound.concealmentEvents, remote: remote && remote.packetsLost,
          channel: channel.readyState, created, updated, asked};
}
"""
