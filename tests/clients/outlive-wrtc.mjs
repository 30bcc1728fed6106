// libwebrtc in Node, in a call that its edge leaves: `outlive-wrtc.mjs URL TOKEN`. It prints a line when it is heard, and
// when its standard input ends a second one: the longest time without a packet, in ms.
import wrtc from "@roamhq/wrtc";

import { place } from "./conversation.mjs";

const [url, token] = process.argv.slice(2);
const pc = new wrtc.RTCPeerConnection();
const source = new wrtc.nonstandard.RTCAudioSource();
pc.addTrack(source.createTrack());
await pc.setLocalDescription(await pc.createOffer());
const { answer } = await place(url, token, pc.localDescription.sdp);
await pc.setRemoteDescription({ type: "answer", sdp: answer });
const samples = new Int16Array(480).map((_, i) => 8000 * Math.sin(i / 8));
setInterval(() => source.onData({ samples, sampleRate: 48000 }), 10);

let packets = 0, came = 0, longest = 0, said = false;
setInterval(async () => {
  const stats = [...(await pc.getStats()).values()];
  const inbound = stats.find((each) => each.type === "inbound-rtp");
  const now = performance.now();
  if (!inbound || inbound.packetsReceived === packets) return;
  packets = inbound.packetsReceived;
  if (came && packets > 50) longest = Math.max(longest, now - came);
  came = now;
  if (packets > 50 && !said) {
    said = true;
    console.log("heard");
  }
}, 20);
process.stdin.resume();
process.stdin.on("end", () => {
  console.log(JSON.stringify({ longest_gap_ms: longest, packets, state: pc.connectionState }));
  process.exit(0);
});
