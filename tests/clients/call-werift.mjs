// WebRTC in TypeScript alone: werift.
import { MediaStreamTrack, RTCPeerConnection, useOPUS } from "werift";

import { Events, converse, place } from "./conversation.mjs";
import { main, speak } from "./node.mjs";

main(async (url, token) => {
  const pc = new RTCPeerConnection({ codecs: { audio: [useOPUS({ payloadType: 111 })], video: [] } });
  const track = new MediaStreamTrack({ kind: "audio" });
  const transceiver = pc.addTransceiver(track, { direction: "sendrecv" });
  let packets = 0;
  transceiver.onTrack.subscribe((theirs) => theirs.onReceiveRtp.subscribe(() => (packets += 1)));
  const events = new Events();
  const channel = pc.createDataChannel("oai-events");
  channel.onMessage.subscribe((data) => events.take(data.toString()));
  await pc.setLocalDescription(await pc.createOffer());
  const { answer, hangUp } = await place(url, token, pc.localDescription.sdp);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  const clock = speak((packet) => track.writeRtp(packet));
  const result = await converse(events, (text) => channel.send(text), () => packets);
  clearInterval(clock);
  return { ...result, hung: await hangUp() };
});
