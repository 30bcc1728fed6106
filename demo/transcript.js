// The conversation in words: events in, items in their order out. It draws nothing.

const KEPT = 300;
const PICTURES = 12; // whose pixels are kept

export class Transcript {
  /** { id, role, kind, state, text, spoken_ms, picture, truncated, unheard, name, arguments, output }. `role` is user,
   * agent, tool or note; `state` is speaking, waiting (not acknowledged), open (more may come), done or failed.
   * `truncated` is null, or how many ms of it were heard; then `text` ends there, and `unheard` is the rest. */
  items = [];
  #told = 0;
  #dropped = null; // an item whose speech has stopped, and that was none unless it is committed now
  #detection = "";
  #asked = new Map(); // event id to the item that it sent

  find(id) {
    return this.items.find((item) => item.id === id);
  }

  #add(id, role, fields, after) {
    const item = {
      id, role, kind: "message", state: "done", text: "", spoken_ms: null, picture: null, truncated: null, unheard: "",
      ...fields,
    };
    const before = after ? this.items.findIndex((other) => other.id === after) : -1;
    this.items.splice(before < 0 ? this.items.length : before + 1, 0, item);
    if (this.items.length > KEPT) this.items.shift();
    return item;
  }

  #note(text) {
    this.#add(`note_${++this.#told}`, "note", { text });
  }

  /** An event from the server. Returns whether it changed anything. */
  received(event) {
    const item = this.find(event.item_id);
    const { type } = event;
    let changed = true;
    if (this.#dropped && type !== "input_audio_buffer.committed") {
      this.items = this.items.filter((other) => other !== this.#dropped);
    }
    this.#dropped = null;
    if (type === "session.updated") {
      changed = this.#configured(event.session?.audio?.input?.turn_detection);
    } else if (type === "input_audio_buffer.speech_started") {
      this.#add(event.item_id, "user", { kind: "speech", state: "speaking", spoken_ms: event.audio_start_ms });
    } else if (type === "input_audio_buffer.speech_stopped" && item) {
      Object.assign(item, { state: "open", spoken_ms: event.audio_end_ms - item.spoken_ms });
      this.#dropped = item;
    } else if (type === "input_audio_buffer.committed") {
      const said = item ?? this.#add(event.item_id, "user", { kind: "speech" }, event.previous_item_id);
      said.state = "done";
    } else if (type === "conversation.item.added") {
      this.#added(event.item, event.previous_item_id);
    } else if (type.startsWith("conversation.item.input_audio_transcription.") && item) {
      this.#transcribed(item, event);
    } else if (type === "response.output_audio_transcript.delta" || type === "response.output_text.delta") {
      const said = item ?? this.#add(event.item_id, "agent", { state: "open" });
      if (said.truncated === null) said.text += event.delta;
      else said.unheard += event.delta;
    } else if (type === "response.output_item.done") {
      const said = this.find(event.item?.id);
      if (said) said.state = "done";
    } else if (type === "response.function_call_arguments.done" && item) {
      Object.assign(item, { name: event.name, arguments: event.arguments });
    } else if (type === "conversation.item.truncated" && item) {
      Object.assign(item, { truncated: event.audio_end_ms, state: "done" });
    } else if (type === "conversation.item.retrieved") {
      this.#cut(event.item);
    } else if (type === "conversation.item.deleted") {
      this.items = this.items.filter((other) => other !== item);
    } else if (type === "response.done" && event.response.status === "failed") {
      this.#note(event.response.status_details?.error?.message ?? "The response failed.");
    } else if (type === "error" && this.#asked.has(event.error?.event_id)) {
      this.#asked.get(event.error.event_id).state = "failed";
    } else {
      changed = false;
    }
    return changed;
  }

  /** An event to the server. Returns whether it changed anything. */
  sent(event) {
    const { item } = event;
    if (event.type !== "conversation.item.create") return false;
    if (item.type === "function_call_output") {
      const call = this.items.findLast(({ call_id }) => call_id === item.call_id);
      if (call) call.output = item.output;
      return true;
    }
    const text = item.content.find(({ type }) => type === "input_text")?.text ?? "";
    const picture = item.content.find(({ type }) => type === "input_image")?.image_url ?? null;
    this.#asked.set(event.event_id, this.#add(item.id, "user", { kind: "typed", state: "waiting", text, picture }));
    const pictures = this.items.filter((other) => other.picture);
    for (const old of pictures.slice(0, -PICTURES)) old.picture = "";
    return true;
  }

  /** What is being said is no turn where turns are found in another way from now on. */
  #configured(detection) {
    const [before, count] = [this.#detection, this.items.length];
    this.#detection = JSON.stringify(detection);
    if (this.#detection !== before) this.items = this.items.filter(({ state }) => state !== "speaking");
    return this.items.length !== count;
  }

  #added(item, after) {
    const known = this.find(item.id);
    if (item.type === "function_call") {
      const { name, call_id } = item;
      this.#add(item.id, "tool", { kind: "call", name, call_id, arguments: item.arguments, output: null }, after);
    } else if (item.type === "message" && item.role === "assistant") {
      if (!known) this.#add(item.id, "agent", { state: "open" }, after);
    } else if (known?.state === "waiting") {
      known.state = "done";
    }
  }

  #transcribed(item, { type, delta, transcript, error }) {
    if (type.endsWith(".delta")) item.text += delta;
    else if (type.endsWith(".completed")) Object.assign(item, { text: transcript, state: "done", transcribed: true });
    else this.#note(error?.message ?? "What you said could not be transcribed.");
  }

  /** The server tells how much of a truncated item's words was likely heard. */
  #cut(shown) {
    const item = this.find(shown.id);
    if (!item || item.truncated === null) return;
    const heard = (shown.content ?? []).map(({ transcript, text }) => transcript ?? text ?? "").join(" ");
    if (item.text.startsWith(heard)) item.unheard = item.text.slice(heard.length) + item.unheard;
    item.text = heard;
  }
}
