// A call: microphone, offer, answer, transport, media, events, and what can be measured of them. It draws nothing;
// it tells a view what has changed, and keeps the figures in `firsthop`.

const CALLS = "/v1/realtime/calls";
const CONNECT_MS = 15000;
const LEVEL_MS = 50; // between two looks at the loudness
const FIRST_AUDIO_MS = 10; // between two looks for the first packet; getStats would answer from a 50 ms old cache
const SILENCE_MS = 1000; // an agent that has said nothing by then waits to be spoken to
const EVENTS = 500;

export const HISTORY = 60; // seconds that are kept of each figure

/** The figures of the present or last call; page.js shows it to tests and the curious as window.firsthop. */
export const firsthop = {
  state: "idle", // connecting, connected, ended, error
  talking: null, // "you", "agent"
  error: null, // { title, detail, status }
  phases: {}, // name: { start, end } in ms since Connect was pressed; end is null while it runs
  setup_ms: null, // offer to first sound, or to the open call where the agent waits to be spoken to
  stats: {},
  events: [], // { at_ms, event }
  levels: { microphone: 0, agent: 0 }, // 0 to 1
};

/** Why a call cannot be, and what to do about it. `retryAfter` is in seconds. */
export class Problem extends Error {
  constructor(title, detail, { status = null, retryAfter = null } = {}) {
    super(title);
    Object.assign(this, { title, detail, status, retryAfter });
  }
}

export class Call {
  over = false;
  interrupted = false;
  meters = {};
  #timers = [];
  #said = { you: null, agent: null }; // whether the agent's side says that they talk, null where it never does
  #loudAt = { you: -Infinity, agent: -Infinity };

  /** The view has methods state(name, why), phases(), levels(), stats(), event(entry) and an `audio` element. */
  constructor(agent, view) {
    this.agent = agent;
    this.view = view;
    this.began = performance.now();
    const stats = { rtt_ms: [], jitter_ms: [], loss_percent: [], buffer_ms: [], uplink_loss_percent: null };
    Object.assign(stats, { uplink_jitter_ms: null, packets_received: 0, packets_lost: 0, packets_sent: 0 });
    Object.assign(firsthop, { phases: {}, setup_ms: null, stats, events: [], error: null, talking: null });
  }

  /** Milliseconds since Connect was pressed. */
  now() {
    return performance.now() - this.began;
  }

  /** Runs until the call is under way; whatever ends it later comes through end(). */
  async connect() {
    this.#become("connecting");
    try {
      await this.#timed("microphone", () => this.#openMicrophone());
      if (this.over) return;
      await this.#timed("offer", () => this.#offer());
      if (this.over) return;
      const answer = await this.#timed("signaling", () => this.#exchange());
      if (this.over) return;
      this.#begin("ice");
      this.#watchTransport();
      await this.connection.setRemoteDescription({ type: "answer", sdp: answer });
      setTimeout(() => firsthop.state === "connecting" && this.end(noPath()), CONNECT_MS);
    } catch (error) {
      const unforeseen = () => new Problem("The call could not be set up", String(error.message ?? error));
      this.end(error instanceof Problem ? error : unforeseen());
    } finally {
      if (this.over) this.#release(); // hung up while something above was still on its way
    }
  }

  /** Ends the call: with a Problem as an error, else with a line that says who ended it. */
  end(why) {
    if (this.over) return;
    this.over = true;
    this.lasted = this.openedAt === undefined ? null : this.now() - this.openedAt;
    this.#release();
    firsthop.talking = null;
    firsthop.levels = { microphone: 0, agent: 0 };
    this.view.phases();
    this.view.levels();
    if (why instanceof Problem) {
      firsthop.error = { title: why.title, detail: why.detail, status: why.status };
      this.#become("error", why);
    } else {
      this.#become("ended", why);
    }
  }

  #endedThere() {
    this.location = null;
    this.end("The other end hung up");
  }

  #become(state, why = null) {
    firsthop.state = state;
    this.view.state(state, why);
  }

  #begin(name) {
    firsthop.phases[name] ??= { start: this.now(), end: null };
  }

  #finish(name) {
    this.#begin(name);
    firsthop.phases[name].end ??= this.now();
    this.view.phases();
  }

  async #timed(name, work) {
    this.#begin(name);
    const result = await work();
    if (!this.over) this.#finish(name);
    return result;
  }

  #every(ms, work) {
    const timer = setInterval(work, ms);
    this.#timers.push(timer);
    return timer;
  }

  // ---- setting up

  async #openMicrophone() {
    if (!navigator.mediaDevices) {
      const where = "Browsers give it to http://localhost and to https pages only. Open this page there.";
      throw new Problem("No microphone on this address", where);
    }
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    try {
      this.microphone = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      const [title, detail] = MICROPHONE_PROBLEMS[error.name] ?? [];
      throw title ? new Problem(title, detail) : error;
    }
  }

  async #offer() {
    const connection = (this.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" }));
    this.audio = new AudioContext();
    this.meters.microphone = this.#meter(this.microphone);
    this.#every(LEVEL_MS, () => this.#look());
    for (const track of this.microphone.getAudioTracks()) connection.addTrack(track, this.microphone);
    connection.ontrack = ({ streams, receiver }) => {
      this.receiver = receiver;
      this.view.audio.srcObject = streams[0];
      this.meters.agent = this.#meter(streams[0]);
    };
    this.channel = connection.createDataChannel("oai-events");
    this.channel.onopen = () => this.over || this.#finish("channel");
    this.channel.onmessage = ({ data }) => this.over || this.#receive(data);
    this.channel.onclose = () => this.#endedThere();
    await connection.setLocalDescription();
  }

  async #exchange() {
    let response;
    try {
      response = await fetch(`${CALLS}?model=${encodeURIComponent(this.agent)}`, {
        method: "POST",
        headers: { "Content-Type": "application/sdp" },
        body: this.connection.localDescription.sdp,
      });
    } catch {
      throw new Problem("The page’s server does not answer", "Start it again, then press Connect.");
    }
    if (response.status !== 201) throw await refusal(response);
    this.location = new URL(response.headers.get("Location"), window.location.href).pathname;
    return response.text();
  }

  #watchTransport() {
    const { connection } = this;
    const transport = connection.getSenders()[0].transport ?? connection.sctp.transport;
    connection.oniceconnectionstatechange = () => {
      if (this.over) return;
      const state = connection.iceConnectionState;
      this.interrupted = state === "disconnected";
      if (state === "connected" || state === "completed") {
        this.#finish("ice");
        this.#begin("dtls");
      } else if (state === "failed") {
        this.end(this.openedAt === undefined ? noPath() : lost());
      }
    };
    transport.onstatechange = () => {
      if (this.over) return;
      if (transport.state === "connected") this.#open();
      if (transport.state === "closed") this.#endedThere();
      if (transport.state === "failed") {
        this.end(new Problem("The encryption failed", "DTLS did not complete. The edge’s log says why."));
      }
    };
  }

  /** ICE and DTLS are done: media flows. */
  #open() {
    this.openedAt = this.now();
    this.#finish("ice");
    this.#finish("dtls");
    this.#begin("channel");
    this.#begin("audio");
    this.impatient = this.#every(FIRST_AUDIO_MS, () => this.#lookForAudio());
    this.#every(1000, () => this.#measure());
    this.#become("connected");
  }

  #lookForAudio() {
    const { phases } = firsthop;
    if (phases.audio.end === null && this.receiver?.getSynchronizationSources().length) this.#finish("audio");
    const waiting = phases.audio.end === null && this.now() - this.openedAt < SILENCE_MS;
    if (waiting || firsthop.setup_ms !== null) return;
    // An agent that stays silent until it is spoken to has its first sound in the conversation, not in the setup.
    clearInterval(this.impatient);
    const opened = Math.max(phases.dtls.end, phases.channel.end ?? 0);
    firsthop.setup_ms = (phases.audio.end ?? opened) - phases.offer.start;
    this.view.phases();
  }

  // ---- what is heard, said and measured

  #meter(stream) {
    const analyser = new AnalyserNode(this.audio, { fftSize: 2048 });
    this.audio.createMediaStreamSource(stream).connect(analyser);
    return analyser;
  }

  #look() {
    for (const side of ["microphone", "agent"]) firsthop.levels[side] = loudness(this.meters[side]);
    const now = this.now();
    if (firsthop.levels.microphone > 0.35) this.#loudAt.you = now;
    if (firsthop.levels.agent > 0.2) this.#loudAt.agent = now;
    if (firsthop.state === "connected") {
      this.#lookForAudio();
      // What the agent's side says about turns counts; where it says nothing, the ear decides.
      const talks = (who) => this.#said[who] ?? now - this.#loudAt[who] < 400;
      firsthop.talking = talks("you") ? "you" : talks("agent") ? "agent" : null;
    }
    this.view.levels();
  }

  #receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      event = { type: "(not JSON)", data: String(data) };
    }
    const [who, talks] = TURNS[event.type] ?? [];
    if (who) this.#said[who] = talks;
    const entry = { at_ms: this.now(), event };
    firsthop.events.push(entry);
    if (firsthop.events.length > EVENTS) firsthop.events.shift();
    this.view.event(entry);
  }

  async #measure() {
    const report = [...(await this.connection.getStats()).values()];
    if (this.over) return;
    const of = (type) => report.find((entry) => entry.type === type && (entry.kind ?? "audio") === "audio") ?? {};
    const selected = of("transport").selectedCandidatePairId;
    const pair = report.find(({ id, type, nominated }) =>
      selected ? id === selected : type === "candidate-pair" && nominated,
    );
    const [inbound, far, outbound] = [of("inbound-rtp"), of("remote-inbound-rtp"), of("outbound-rtp")];
    const last = this.lastInbound ?? {};
    const grown = (key) => (inbound[key] ?? 0) - (last[key] ?? 0);
    this.lastInbound = inbound;

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
    this.view.stats();
  }

  /** Gives back what the call holds, here and at the edge. Called again when more has been acquired since. */
  #release() {
    this.#timers.splice(0).forEach(clearInterval);
    this.microphone?.getTracks().forEach((track) => track.stop());
    if (this.audio && this.audio.state !== "closed") this.audio.close();
    this.view.audio.srcObject = null;
    const close = () => this.connection?.close();
    // Hung up first, closed then: to close is a hang-up too, after which the edge knows no such call any more.
    // keepalive: this also happens while the page is being left.
    if (this.location) fetch(`${this.location}/hangup`, { method: "POST", keepalive: true }).then(close, close);
    else close();
    this.location = null;
  }
}

const TURNS = {
  "input_audio_buffer.speech_started": ["you", true],
  "input_audio_buffer.speech_stopped": ["you", false],
  "output_audio_buffer.started": ["agent", true],
  "output_audio_buffer.stopped": ["agent", false],
  "output_audio_buffer.cleared": ["agent", false],
};

const MICROPHONE_PROBLEMS = {
  NotAllowedError: [
    "The microphone is blocked",
    "Allow it for this page, at the left end of the address bar, then press Connect.",
  ],
  NotFoundError: [
    "No microphone found",
    "Plug one in, or switch it on in the system’s sound settings, then press Connect.",
  ],
  NotReadableError: ["The microphone is taken", "Another program uses it. Close that, then press Connect."],
};

function noPath() {
  const what = "Signaling worked, but no UDP packet came back. Check that nothing on the way blocks UDP.";
  return new Problem("No way through for the media", what);
}

function lost() {
  return new Problem("The connection was lost", "Nothing came from the edge any more. Press Connect for another.");
}

/** The Problem in an answer other than 201, in the words of the edge where it has any. */
async function refusal(response) {
  const said = await response.json().then((body) => body.error?.message, () => undefined);
  const { status } = response;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const [title, detail] = {
    401: ["The edge refused the token", "Start the page’s server again with the edge’s present token file."],
    502: ["The edge does not answer", said ?? "Check that it runs."],
    503: ["The edge has no free place", said ?? "Every transceiver is full or draining."],
  }[status] ?? [`The edge refused the call (${status})`, said ?? "Its log says why."];
  return new Problem(title, detail, { status, retryAfter });
}

/** 0 at -60 dB and below, 1 at -5 dB and above. */
function loudness(analyser) {
  if (!analyser) return 0;
  const samples = new Float32Array(analyser.fftSize);
  analyser.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
  return Math.min(1, Math.max(0, (10 * Math.log10(power + 1e-12) + 60) / 55));
}

function keep(history, value) {
  history.push(Number.isFinite(value) ? value : null);
  if (history.length > HISTORY) history.shift();
}
