// Calls an edge by @openai/agents-realtime as a page of its users would. The test drives what is in window.talk, and
// its microphone plays the WAV files beside the page.
import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession, tool } from "./bundle/openai-realtime-agents.mjs";

const context = new AudioContext();
const microphone = context.createMediaStreamDestination();
// A microphone sends all the time.
const silence = new ConstantSourceNode(context, { offset: 0 });
silence.connect(microphone);
silence.start();

// ``events`` are the server's, ``unread`` those that the SDK has not taken for what they are, by id; ``energy`` is that of
// the agent's voice in the speaker.
const talk = { session: null, transport: null, events: [], unread: new Map(), errors: [], history: [], toolEnds: [] };
talk.energy = 0;
const typed = new Set();

const getWeather = tool({
  name: "get_weather",
  description: "The weather of a city",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  execute: async ({ city }) => `sunny in ${city}`,
});

// "*" comes first and has every event; the event's own name has those that the SDK's schemas took.
function note(event) {
  talk.events.push(event);
  talk.unread.set(event.event_id, event);
  if (!typed.has(event.type)) {
    typed.add(event.type);
    talk.transport.on(event.type, (taken) => talk.unread.delete(taken.event_id));
  }
}

talk.connect = async (url, key) => {
  talk.transport = new OpenAIRealtimeWebRTC({ baseUrl: url, mediaStream: microphone.stream });
  talk.transport.on("*", note);
  const agent = new RealtimeAgent({ name: "caller", instructions: "Speak English.", tools: [getWeather] });
  talk.session = new RealtimeSession(agent, { transport: talk.transport, model: "offline" });
  talk.session.on("error", ({ error }) => talk.errors.push(error instanceof Error ? error.message : JSON.stringify(error)));
  talk.session.on("history_updated", (history) => (talk.history = history));
  talk.session.on("agent_tool_end", (_context, _agent, { name }, result) => talk.toolEnds.push([name, result]));
  await talk.session.connect({ apiKey: key });
};

talk.say = async (name) => {
  const wav = await (await fetch(`${name}.wav`)).arrayBuffer();
  const source = new AudioBufferSourceNode(context, { buffer: await context.decodeAudioData(wav) });
  source.connect(microphone);
  source.start();
  await new Promise((resolve) => source.addEventListener("ended", resolve));
};

talk.types = () => talk.events.map((event) => event.type);
talk.has = (type) => talk.types().includes(type);
talk.peer = () => talk.transport.connectionState.peerConnection;

setInterval(async () => {
  const stats = (await talk.transport?.connectionState.peerConnection?.getStats()) ?? new Map();
  talk.energy = [...stats.values()].find((entry) => entry.type === "inbound-rtp")?.totalAudioEnergy ?? talk.energy;
}, 100);

// Shows the agent a JPEG about as large as one message of Chromium's may be (256 KiB); how long it is in base64.
talk.show = () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 400, height: 300 });
  const drawing = canvas.getContext("2d");
  const image = drawing.createImageData(canvas.width, canvas.height);
  image.data.forEach((_, i) => (image.data[i] = i % 4 === 3 ? 255 : 256 * Math.random()));
  drawing.putImageData(image, 0, 0);
  let [url, quality] = ["", 1];
  do {
    url = canvas.toDataURL("image/jpeg", (quality -= 0.01));
  } while (url.length > 250_000);
  talk.session.addImage(url);
  return url.split(",")[1].length;
};

window.talk = talk;
