// What happened in each turn, and when: events and sounds in, turns with their phases out. It draws nothing and
// has no clock: every time is given, in ms since Connect was pressed.

/** The phases of a turn in their order. A phase is the time up to its mark; `ended` is where a turn begins to wait. */
export const PHASES = ["ended", "stopped", "committed", "created", "tool", "delta", "started", "heard"];

const QUIET_MS = 200; // without sound: the agent has stopped, and is not between two words
const TAIL_MS = 60; // what is on the way, and what is faded out, when the server stops sending
const KEPT = 100;
const DELTAS = new Set([
  "response.output_audio_transcript.delta",
  "response.output_audio.delta",
  "response.output_text.delta",
]);

/** The middle of `values`, the lower of two; null where there are none. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[(sorted.length - 1) >> 1] : null;
}

/** A turn's phases as [{ name, start, end }]. Words may come after the sound that says them: then they take no time. */
export function segments(turn) {
  const found = [];
  let at = turn.phases.ended;
  for (const name of PHASES.slice(1)) {
    const mark = turn.phases[name];
    if (mark === undefined) continue;
    found.push({ name, start: at, end: Math.max(at, mark) });
    at = Math.max(at, mark);
  }
  return found;
}

export class Turns {
  /** Oldest first: { number, kind, item_id, ended_by, phases, total_ms, outcome, tool, cut, stages }. `kind` is
   * spoken, held (push to talk), typed or idle. `ended_by` says who saw the end of the speech: server, browser, or the
   * key. `cut` is the interruption, if any: { by, asked_ms, cleared_ms, silent_ms, latency_ms }. `stages` are what the
   * agent says its answer was made of: [{ name, begin_ms, end_ms, text }], from the end of speech. */
  list = [];
  playing = null; // the response that the server sends now
  speaking = null; // { item_id, at_ms } of the person's turn
  playout_ms = 0; // for how long the browser holds back what comes, so that what was sent before is heard after
  #told = 0;
  #responses = new Map(); // id to turn
  #active = new Set(); // ids of the responses that are being made
  #pending = null; // what was said, and is no turn yet
  #interrupted = false;
  #cut = null; // an interruption that was asked for
  #settling = null; // one that was granted, and may not be silent yet
  #detection = null;
  #asked = null; // the event that asked for a response
  #voiceAt = -Infinity;
  #soundAt = -Infinity;
  #outputEnd = -Infinity; // when the server last stopped sending
  #begunAt = -Infinity; // when the last response was begun

  /** listening, you, thinking, agent or interrupted. */
  get state() {
    if (this.#interrupted) return "interrupted";
    if (this.speaking) return "you";
    if (this.playing) return "agent";
    return this.#active.size || this.list.at(-1)?.outcome === "calling" ? "thinking" : "listening";
  }

  /** Whether a response is being made. */
  get thinking() {
    return this.#active.size > 0;
  }

  get latest() {
    return this.list.at(-1) ?? null;
  }

  /** Medians over the turns: from the end of speech to the first sound, and from an interruption to silence. */
  get latency() {
    const spoken = this.list.filter(({ kind, total_ms }) => ["spoken", "held"].includes(kind) && total_ms !== null);
    const cuts = this.list.filter(({ cut }) => cut?.latency_ms != null);
    return {
      p50_ms: median(spoken.map(({ total_ms }) => total_ms)),
      turns: spoken.length,
      barge_in_ms: median(cuts.map(({ cut }) => cut.latency_ms)),
      interruptions: cuts.length,
    };
  }

  #open(turn) {
    this.list.push({
      number: ++this.#told, item_id: null, ended_by: "server", total_ms: null, outcome: "open", tool: null, cut: null,
      stages: [],
      ...turn,
    });
    if (this.list.length > KEPT) this.list.shift();
    this.#pending = null;
  }

  /** Events may come later than the sound that followed from them: what they report was before it all the same. */
  #mark(name, at_ms, turn) {
    if (turn && turn.phases[name] === undefined) turn.phases[name] = Math.min(at_ms, turn.phases.heard ?? at_ms);
  }

  /** An event from the server. */
  received(event, at_ms) {
    const of = this.#responses.get(event.response_id);
    if (DELTAS.has(event.type)) this.#mark("delta", at_ms, of);
    switch (event.type) {
      case "session.created":
      case "session.updated":
        this.#configured(event.session?.audio?.input?.turn_detection ?? null);
        break;
      case "input_audio_buffer.speech_started":
        this.speaking = { item_id: event.item_id, at_ms };
        this.#interrupted = false;
        this.#cut = this.playing ? { by: "voice", asked_ms: at_ms } : null;
        break;
      case "input_audio_buffer.speech_stopped":
        this.#pending = this.#spoken(event, at_ms);
        this.speaking = null;
        this.#interrupted = false;
        break;
      case "input_audio_buffer.committed": {
        const idle = { kind: "idle", phases: { ended: at_ms } };
        const turn = this.#pending ?? idle;
        turn.phases.committed = at_ms;
        this.#open({ ...turn, item_id: event.item_id });
        break;
      }
      case "conversation.item.added":
        if (this.latest?.kind === "typed" && this.latest.item_id === event.item?.id) {
          this.#mark("committed", at_ms, this.latest);
        }
        break;
      case "response.created":
        this.#begun(event.response.id, at_ms);
        break;
      case "response.function_call_arguments.done":
        if (of) Object.assign(of, { tool: event.name, outcome: "calling" });
        break;
      case "response.done":
        this.#finished(event.response);
        break;
      case "output_audio_buffer.started":
        this.playing = event.response_id;
        this.#interrupted = false;
        this.#mark("started", at_ms, of);
        break;
      case "output_audio_buffer.stopped":
        if (this.playing === event.response_id) this.playing = null;
        this.#outputEnd = at_ms;
        break;
      case "error":
        if (this.#asked && event.error?.event_id === this.#asked && this.latest) this.latest.outcome = "refused";
        break;
      case "firsthop.stages":
        if (of) of.stages = event.stages;
        break;
      case "output_audio_buffer.cleared":
        this.#cleared(of, at_ms);
        break;
    }
  }

  /** An event to the server. */
  sent(event, at_ms) {
    const item = event.item;
    if (event.type === "response.create") this.#asked = event.event_id;
    if (event.type === "conversation.item.create" && item.type === "message") {
      this.#open({ kind: "typed", item_id: item.id, ended_by: "browser", phases: { ended: at_ms } });
      this.#interrupted = false;
    } else if (event.type === "conversation.item.create" && item.type === "function_call_output") {
      this.#mark("tool", at_ms, this.list.findLast(({ outcome }) => outcome === "calling"));
    } else if (event.type === "output_audio_buffer.clear" && this.playing) {
      this.#cut = { by: "button", asked_ms: at_ms };
    }
  }

  /** The key for talking went down. */
  held(at_ms) {
    this.speaking = { item_id: null, at_ms };
    this.#interrupted = false;
  }

  /** The key went up; after a `tap` there is no turn. */
  released(at_ms, tap = false) {
    this.speaking = null;
    this.#pending = tap ? null : { kind: "held", ended_by: "key", phases: { ended: at_ms } };
  }

  /** The person was loud, as the browser hears it: that tells the end of speech where the server does not. */
  voice(at_ms) {
    this.#voiceAt = at_ms;
  }

  /** The agent was heard, or was not, in the moment that ended at `at_ms`. Returns whether that told something new. */
  sound(at_ms, loud) {
    const turn = this.latest;
    const old = at_ms < this.#outputEnd + this.playout_ms + TAIL_MS; // of a response before
    const answers = at_ms >= this.#begunAt && turn?.phases.created !== undefined && turn.outcome !== "calling";
    const awaited = answers && turn.phases.heard === undefined;
    if (loud && awaited && !old) {
      this.#settle();
      // A busy page handles events late; how late sound is handled it knows.
      for (const name of PHASES) if (turn.phases[name] > at_ms) turn.phases[name] = at_ms;
      turn.phases.heard = at_ms;
      turn.total_ms = at_ms - turn.phases.ended;
    }
    if (loud) {
      this.#soundAt = at_ms;
      return awaited && !old;
    }
    return !old && at_ms - Math.max(this.#soundAt, this.#outputEnd) > QUIET_MS && this.#settle();
  }

  /** The agent has been silent since the last sound. */
  #settle() {
    const cut = this.#settling;
    if (!cut) return false;
    cut.silent_ms = Math.max(this.#soundAt, cut.asked_ms);
    cut.latency_ms = cut.silent_ms - cut.asked_ms;
    this.#settling = null;
    return true;
  }

  /** A turn that is being spoken is forgotten where turns are found in another way. */
  #configured(detection) {
    if (this.speaking?.item_id && JSON.stringify(detection) !== JSON.stringify(this.#detection)) this.speaking = null;
    this.#detection = detection;
  }

  #spoken({ item_id }, at_ms) {
    const turn = { kind: "spoken", item_id, ended_by: "server", phases: { ended: at_ms, stopped: at_ms } };
    if (this.#detection?.type === "server_vad") {
      turn.phases.ended = at_ms - this.#detection.silence_duration_ms;
    } else if (this.#voiceAt > (this.speaking?.at_ms ?? Infinity)) {
      turn.phases.ended = this.#voiceAt;
      turn.ended_by = "browser";
    }
    return turn;
  }

  #begun(id, at_ms) {
    this.#active.add(id);
    this.#begunAt = at_ms;
    this.#interrupted = false;
    const turn = this.latest;
    if (!turn || (turn.phases.created !== undefined && turn.outcome !== "calling")) return;
    this.#mark("created", at_ms, turn);
    turn.outcome = "open";
    this.#responses.set(id, turn);
    if (this.#responses.size > KEPT) this.#responses.delete(this.#responses.keys().next().value);
  }

  #finished({ id, status, status_details: details }) {
    this.#active.delete(id);
    const turn = this.#responses.get(id);
    const goesOn = turn?.outcome === "calling" && status === "completed";
    if (turn && !goesOn && !turn.cut) turn.outcome = status;
    if (details?.reason === "client_cancelled") this.#interrupted = true;
  }

  #cleared(turn, at_ms) {
    this.playing = null;
    this.#outputEnd = at_ms;
    this.#interrupted = true;
    if (!turn) return;
    const asked = this.#cut ?? { by: "server", asked_ms: at_ms };
    turn.cut = this.#settling = { ...asked, cleared_ms: at_ms, silent_ms: null, latency_ms: null };
    turn.outcome = "interrupted";
    this.#cut = null;
  }
}
