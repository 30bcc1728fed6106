// A call from a page without any package, for Chromium and Firefox; the page has conversation.mjs in `conversation`.
async function call(url, token, { bundle, certificate, query = "", label = "oai-events", channel: options }) {
  const { Events, converse, place } = conversation;
  const keys = {
    rsa: { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" },
    ecdsa: { name: "ECDSA", namedCurve: "P-256" },
  };
  const config = {};
  if (bundle) config.bundlePolicy = bundle;
  if (certificate) config.certificates = [await RTCPeerConnection.generateCertificate(keys[certificate])];
  const pc = new RTCPeerConnection(config);
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  for (const track of microphone.getTracks()) pc.addTrack(track, microphone);
  const events = new Events();
  const channel = pc.createDataChannel(label, options);
  channel.onmessage = ({ data }) => events.take(data);
  await pc.setLocalDescription();
  const { answer, hangUp } = await place(url, token, pc.localDescription.sdp, query);
  await pc.setRemoteDescription({ type: "answer", sdp: answer });
  let heard = 0;
  const looking = setInterval(async () => {
    for (const stats of (await pc.getStats()).values()) if (stats.type === "inbound-rtp") heard = stats.packetsReceived;
  }, 100);
  const result = await converse(events, (text) => channel.send(text), () => heard);
  clearInterval(looking);
  const hung = await hangUp();
  pc.close();
  return { ...result, hung };
}
