// The figures of the present or last call; page.js shows them to tests and the curious as window.firsthop.

export const HISTORY = 60; // seconds that are kept of each figure

export const firsthop = {
  state: "idle", // connecting, connected, ended, error
  talking: null, // "you", "agent"
  turn_state: "listening", // listening, you, thinking, agent, interrupted
  error: null, // { title, detail, status }
  phases: {}, // name: { start, end } in ms since Connect was pressed; end is null while it runs
  setup_ms: null, // offer to first sound, or to the open call where the agent waits to be spoken to
  stats: {},
  events: [], // { at_ms, from, event }, from "server" or "client"
  turns: [], // as turns.js has them
  latency: { p50_ms: null, turns: 0, barge_in_ms: null, interruptions: 0 },
  transcript: [], // as transcript.js has them
  levels: { microphone: 0, agent: 0 }, // 0 to 1
};

/** Another call begins. */
export function clearFigures() {
  const stats = { rtt_ms: [], jitter_ms: [], loss_percent: [], buffer_ms: [], uplink_loss_percent: null };
  Object.assign(stats, { uplink_jitter_ms: null, packets_received: 0, packets_lost: 0, packets_sent: 0 });
  Object.assign(firsthop, {
    phases: {}, setup_ms: null, stats, events: [], error: null, talking: null, turn_state: "listening",
    turns: [], transcript: [], latency: { p50_ms: null, turns: 0, barge_in_ms: null, interruptions: 0 },
  });
}

/** Takes one second's worth from a connection's getStats(); `last` is what the previous second gave. */
export function measure(report, last) {
  const of = (type) => report.find((entry) => entry.type === type && (entry.kind ?? "audio") === "audio") ?? {};
  const selected = of("transport").selectedCandidatePairId;
  const pair = report.find(({ id, type, nominated }) =>
    selected ? id === selected : type === "candidate-pair" && nominated,
  );
  const [inbound, far, outbound] = [of("inbound-rtp"), of("remote-inbound-rtp"), of("outbound-rtp")];
  const grown = (key) => (inbound[key] ?? 0) - (last[key] ?? 0);
  const { stats } = firsthop;
  const lost = Math.max(0, grown("packetsLost")); // a late packet takes a loss back
  const due = grown("packetsReceived") + lost;
  const played = grown("jitterBufferEmittedCount");
  keep(stats.rtt_ms, pair?.currentRoundTripTime * 1000);
  keep(stats.jitter_ms, inbound.jitter * 1000);
  keep(stats.loss_percent, due > 0 ? (100 * lost) / due : NaN);
  keep(stats.buffer_ms, played > 0 ? (1000 * grown("jitterBufferDelay")) / played : NaN);
  stats.uplink_loss_percent = far.fractionLost === undefined ? null : 100 * far.fractionLost;
  stats.uplink_jitter_ms = far.jitter === undefined ? null : 1000 * far.jitter;
  stats.packets_received = inbound.packetsReceived ?? 0;
  stats.packets_lost = inbound.packetsLost ?? 0;
  stats.packets_sent = outbound.packetsSent ?? 0;
  return inbound;
}

function keep(history, value) {
  history.push(Number.isFinite(value) ? value : null);
  if (history.length > HISTORY) history.shift();
}
