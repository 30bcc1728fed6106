// The conversation of a call, over its data channel: what comes, what is sent, and what both come to.

import { firsthop } from "./figures.js";
import { detection, TOOL, useTool } from "./session.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

const EVENTS = 500;
const SHOWN = 2000; // characters of one string that the log keeps: a picture is a hundred times as long
const TAIL_MS = 120; // what is on its way when the key goes up still belongs to what was said
const TAP_MS = 250;
const ENVELOPE_BYTES = 4096; // of a message, around its picture
const MOST_BYTES = 200_000; // more is no better picture, and holds up the events behind it

export class Talk {
  turns = new Turns();
  transcript = new Transcript();
  settings = null;
  #told = 0;
  #ready = false;
  #calls = []; // functions that the response in progress asks for

  /** `now` gives ms since Connect was pressed; `view` has methods event(entry), turns(), transcript() and
   * refused(error); `mute(silent)` closes and opens the microphone. An agent that is `staged` tells what its answers
   * were made of. */
  constructor(channel, settings, { now, view, mute, mostBytes, staged = false }) {
    Object.assign(this, { channel, now, view, mute, mostBytes, staged });
    this.settings = settings;
    mute(settings.turns === "manual");
    firsthop.turns = this.turns.list;
    firsthop.transcript = this.transcript.items;
  }

  /** Whether there is somebody to write to. */
  get open() {
    return this.#ready && this.channel.readyState === "open";
  }

  /** How long a picture may be, as a data URL. */
  get pictureBytes() {
    return Math.min(this.mostBytes() || 65536, MOST_BYTES) - ENVELOPE_BYTES;
  }

  receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      event = { type: "(not JSON)", data: String(data) };
    }
    const at_ms = this.now();
    this.#keep("server", event, at_ms);
    const type = (event.type = String(event.type ?? "(no type)"));
    this.turns.received(event, at_ms);
    const written = this.transcript.received(event);
    if (type === "session.created") {
      this.#ready = true;
      this.configure(this.settings);
    }
    if (type === "error" && event.error?.code !== "response_cancel_not_active") this.view.refused(event.error ?? {});
    // The words that were likely heard are known there.
    const { item_id } = event;
    if (type === "conversation.item.truncated") this.send({ type: "conversation.item.retrieve", item_id });
    if (type === "response.function_call_arguments.done") this.#calls.push(event);
    if (type === "response.done") this.#answer(event.response?.status);
    if (type === "response.done" && this.staged) this.send({ type: "firsthop.stages.retrieve" });
    this.#tell(written);
  }

  send(event) {
    if (this.channel.readyState !== "open") return;
    const whole = { event_id: `page_${++this.#told}`, ...event };
    this.channel.send(JSON.stringify(whole));
    const at_ms = this.now();
    this.#keep("client", whole, at_ms);
    this.turns.sent(whole, at_ms);
    this.#tell(this.transcript.sent(whole));
  }

  /** What the ears heard. */
  heard(side, at_ms, loud) {
    if (side === "agent") {
      if (this.turns.sound(at_ms, loud)) this.#tell(false);
    } else if (loud) {
      this.turns.voice(at_ms);
    }
  }

  // ---- what a person does

  /** How turns are taken, and whether there is a tool. */
  configure(settings) {
    this.settings = settings;
    if (this.turns.speaking && this.holding) this.release();
    this.mute(settings.turns === "manual");
    if (!this.#ready) return;
    const session = {
      type: "realtime",
      audio: { input: { turn_detection: detection(settings) } },
      tools: settings.tool ? [TOOL] : [],
    };
    this.send({ type: "session.update", session });
  }

  /** A text, a picture (as a data URL), or both; the agent drops what it says meanwhile. */
  say(text, picture) {
    this.interrupt();
    const content = [];
    if (picture) content.push({ type: "input_image", image_url: picture });
    if (text) content.push({ type: "input_text", text });
    const id = `item_${crypto.randomUUID().replaceAll("-", "")}`;
    this.send({ type: "conversation.item.create", item: { id, type: "message", role: "user", content } });
    this.send({ type: "response.create" });
  }

  /** The agent falls silent. Returns whether it had anything to say. */
  interrupt() {
    const { turns } = this;
    const [thinks, speaks] = [turns.thinking, turns.playing !== null];
    if (thinks) this.send({ type: "response.cancel" });
    if (thinks || speaks) this.send({ type: "output_audio_buffer.clear" });
    return thinks || speaks;
  }

  /** The key for talking goes down. */
  hold() {
    if (!this.open || this.holding || this.settings.turns !== "manual") return;
    this.holding = true;
    this.interrupt();
    this.send({ type: "input_audio_buffer.clear" });
    clearTimeout(this.tail);
    this.mute(false);
    this.heldAt = this.now();
    this.turns.held(this.heldAt);
    this.#tell(false);
  }

  /** It goes up: that was a turn, unless it was a mere tap. Returns whether it was. */
  release() {
    if (!this.holding) return false;
    this.holding = false;
    const tap = this.now() - this.heldAt < TAP_MS;
    this.turns.released(this.now(), tap);
    this.#tell(false);
    if (tap) {
      this.mute(this.settings.turns === "manual");
      return true;
    }
    this.tail = setTimeout(() => {
      this.mute(this.settings.turns === "manual");
      this.send({ type: "input_audio_buffer.commit" });
      this.send({ type: "response.create" });
    }, TAIL_MS);
    return false;
  }

  // ---- what follows by itself

  /** Functions are called once the response that asked for them is done, and not where it was cancelled. */
  #answer(status) {
    const calls = this.#calls.splice(0);
    if (status !== "completed") return;
    for (const { name, arguments: given, call_id } of calls) {
      const output = useTool(name, given);
      this.send({ type: "conversation.item.create", item: { type: "function_call_output", call_id, output } });
    }
    if (calls.length) this.send({ type: "response.create" });
  }

  #tell(written) {
    firsthop.turn_state = this.turns.state;
    firsthop.latency = this.turns.latency;
    firsthop.transcript = this.transcript.items;
    this.view.turns();
    if (written) this.view.transcript();
  }

  #keep(from, event, at_ms) {
    const short = (_, value) =>
      value?.length > SHOWN && typeof value === "string" ? `${value.slice(0, 80)}… (${value.length} in all)` : value;
    const entry = { at_ms, from, event: JSON.parse(JSON.stringify(event, short)) };
    firsthop.events.push(entry);
    if (firsthop.events.length > EVENTS) firsthop.events.shift();
    this.view.event(entry);
  }
}
