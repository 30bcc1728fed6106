// libdatachannel in Node: node-datachannel.
import nodeDataChannel from "node-datachannel";

import { Events, converse, place } from "./conversation.mjs";
import { main, speak } from "./node.mjs";

main(async (url, token) => {
  const pc = new nodeDataChannel.PeerConnection("caller", { iceServers: [] });
  const offered = new Promise((resolve) => {
    pc.onGatheringStateChange((state) => state === "complete" && resolve(pc.localDescription().sdp));
  });
  const audio = new nodeDataChannel.Audio("audio", "SendRecv");
  audio.addOpusCodec(111);
  audio.addSSRC(4242, "caller");
  const track = pc.addTrack(audio);
  let packets = 0;
  track.onMessage((packet) => (packets += (packet[1] & 0x7f) === 111));
  const events = new Events();
  const channel = pc.createDataChannel("oai-events");
  channel.onMessage((data) => events.take(data.toString()));
  pc.setLocalDescription();
  const { answer, hangUp } = await place(url, token, await offered);
  pc.setRemoteDescription(answer, "answer");
  const clock = speak((packet) => track.isOpen() && track.sendMessageBinary(packet));
  const result = await converse(events, (text) => channel.sendMessage(text), () => packets);
  clearInterval(clock);
  return { ...result, hung: await hangUp() };
});
