// libwebrtc in Node: @roamhq/wrtc.
import wrtc from "@roamhq/wrtc";

import { Events, converse, place } from "./conversation.mjs";
import { main } from "./node.mjs";

main(async (url, token) => {
  const pc = new wrtc.RTCPeerConnection();
  const source = new wrtc.nonstandard.RTCAudioSource();
  pc.addTrack(source.createTrack());
  let packets = 0;
  // 10 ms of sound each, which is half a packet.
  pc.ontrack = ({ track }) => (new wrtc.nonstandard.RTCAudioSink(track).ondata = () => (packets += 0.5));
  const events = new Events();
  const channel = pc.createDataChannel("oai-events");
  channel.onmessage = ({ data }) => events.take(data);
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, hangUp } = await place(url, token, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  const samples = new Int16Array(480);
  const clock = setInterval(() => source.onData({ samples, sampleRate: 48000 }), 10);
  const result = await converse(events, (text) => channel.send(text), () => packets);
  clearInterval(clock);
  return { ...result, hung: await hangUp() };
});
