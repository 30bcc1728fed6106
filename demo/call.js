// A call: microphone, offer, answer, transport, media, and what can be measured of them. It draws nothing; it tells
// a view what has changed, and keeps the figures in `firsthop`. What is said on it is talk.js.

import { Ears } from "./ears.js";
import { clearFigures, firsthop, measure } from "./figures.js";
import { lost, microphoneProblem, noMicrophone, noPath, noServer, notEncrypted, Problem, refusal } from "./problems.js";
import { Talk } from "./talk.js";

const CALLS = "/v1/realtime/calls";
const ICE_SERVERS = "/v1/ice-servers";
const ICE_SERVERS_MS = 2000;
const CONNECT_MS = 15000;
const STALLED_MS = 30000; // as long as the edge keeps a call that does not prove itself (RFC 7675)
const LEVEL_MS = 50; // between two looks at the loudness
const FIRST_AUDIO_MS = 10; // between two looks for the first packet; getStats would answer from a 50 ms old cache
const SILENCE_MS = 1000; // an agent that has said nothing by then waits to be spoken to

export class Call {
  over = false;
  stalled = false;
  #timers = [];
  #turnsTold = false; // whether the agent's side says who talks; where it never does, the ear decides
  #loudAt = { microphone: -Infinity, agent: -Infinity };

  /** The view has methods state(name, why), phases(), levels(), stats(), event(entry), turns(), transcript() and
   * refused(error), and an `audio` element. */
  constructor(agent, settings, view) {
    this.agent = agent;
    this.settings = settings;
    this.view = view;
    this.began = performance.now();
    clearFigures();
  }

  /** Milliseconds since Connect was pressed. */
  now() {
    return performance.now() - this.began;
  }

  /** Runs until the call is under way; whatever ends it later comes through end(). */
  async connect() {
    this.#become("connecting");
    const told = iceServers();
    try {
      await this.#timed("microphone", () => this.#openMicrophone());
      if (this.over) return;
      const iceConfiguration = await told;
      if (this.over) return;
      await this.#timed("offer", () => this.#offer(iceConfiguration));
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
    if (!navigator.mediaDevices) throw noMicrophone();
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    try {
      this.microphone = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw microphoneProblem(error);
    }
  }

  async #offer(iceConfiguration) {
    const connection = (this.connection = new RTCPeerConnection({ bundlePolicy: "max-bundle", ...iceConfiguration }));
    this.ears = new Ears((side, at, loud) => this.#heard(side, at - this.began, loud));
    this.#listen("microphone", this.microphone);
    this.#every(LEVEL_MS, () => this.#look());
    for (const track of this.microphone.getAudioTracks()) connection.addTrack(track, this.microphone);
    connection.ontrack = ({ streams, receiver }) => {
      this.receiver = receiver;
      this.view.audio.srcObject = streams[0];
      this.#listen("agent", streams[0]);
    };
    this.channel = connection.createDataChannel("oai-events");
    this.talk = new Talk(this.channel, this.settings, {
      staged: this.agent.split("@")[0] === "local",
      now: () => this.now(),
      view: this.view,
      mute: (silent) => this.microphone.getAudioTracks().forEach((track) => (track.enabled = !silent)),
      mostBytes: () => connection.sctp?.maxMessageSize,
    });
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
      throw noServer("press Connect");
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
      this.stalled = state === "disconnected";
      clearTimeout(this.patience);
      if (this.stalled) this.patience = setTimeout(() => this.end(lost()), STALLED_MS);
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
      if (transport.state === "failed") this.end(notEncrypted());
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

  #listen(side, stream) {
    // Without ears there are no levels and no latencies, but the call goes on.
    this.ears.listen(side, stream).catch((error) => console.warn("cannot listen:", error));
  }

  #heard(side, at_ms, loud) {
    if (loud) this.#loudAt[side] = at_ms;
    this.talk.heard(side, at_ms, loud);
  }

  #look() {
    firsthop.levels = this.ears.take();
    const now = this.now();
    if (firsthop.state === "connected") {
      this.#lookForAudio();
      const { turns } = this.talk;
      const loud = (side) => now - this.#loudAt[side] < 400;
      const you = this.#turnsTold ? turns.speaking : loud("microphone");
      const agent = this.#turnsTold ? turns.playing : loud("agent");
      firsthop.talking = you ? "you" : agent ? "agent" : null;
      if (!this.#turnsTold) firsthop.turn_state = firsthop.talking ?? "listening";
    }
    this.view.levels();
  }

  #receive(data) {
    this.talk.receive(data);
    this.#turnsTold ||= this.talk.turns.speaking !== null || this.talk.turns.playing !== null;
  }

  async #measure() {
    const report = [...(await this.connection.getStats()).values()];
    if (this.over) return;
    this.lastInbound = measure(report, this.lastInbound ?? {});
    this.talk.turns.playout_ms = firsthop.stats.buffer_ms.at(-1) ?? 0;
    this.view.stats();
  }

  /** Gives back what the call holds, here and at the edge. Called again when more has been acquired since. */
  #release() {
    this.#timers.splice(0).forEach(clearInterval);
    clearTimeout(this.patience);
    this.microphone?.getTracks().forEach((track) => track.stop());
    this.ears?.close();
    this.view.audio.srcObject = null;
    const close = () => this.connection?.close();
    // Hung up first, closed then: to close is a hang-up too, after which the edge knows no such call any more.
    // keepalive: this also happens while the page is being left.
    if (this.location) fetch(`${this.location}/hangup`, { method: "POST", keepalive: true }).then(close, close);
    else close();
    this.location = null;
  }
}

/** What the edge tells of STUN and TURN servers, for RTCPeerConnection; without an answer the call goes on without them.
 * The page's address with ?relay=1 has it go over a TURN server or not at all. */
async function iceServers() {
  const only = new URLSearchParams(window.location.search).get("relay") === "1";
  const iceTransportPolicy = only ? "relay" : "all";
  try {
    const response = await fetch(ICE_SERVERS, { signal: AbortSignal.timeout(ICE_SERVERS_MS) });
    return { iceTransportPolicy, iceServers: response.ok ? (await response.json()).iceServers : [] };
  } catch {
    return { iceTransportPolicy, iceServers: [] };
  }
}
