// The events of the data channel, both ways, by kind.

import { $, make, setText, stickToEnd } from "./dom.js";

const LINES = 400;

// What a kind is called, and which events are of it.
const KINDS = {
  all: ["All", () => true],
  sent: ["Sent", (type, from) => from === "client"],
  audio: ["Audio", (type) => type.includes("put_audio_buffer.")],
  items: ["Items", (type) => type.startsWith("conversation.")],
  responses: ["Responses", (type) => type.startsWith("response.")],
  session: ["Session", (type) => type.startsWith("session.")],
  errors: ["Errors", (type) => type === "error"],
};

let chosen = "all";
let told = 0;
let end = null;

/** Puts the choice of kinds there. */
export function prepareLog() {
  end = stickToEnd($("log-box"));
  for (const [kind, [label]] of Object.entries(KINDS)) {
    const radio = make("input", { type: "radio", name: "kind", value: kind });
    radio.checked = kind === chosen;
    $("kinds").append(make("label", {}, radio, make("span", {}, label)));
  }
  $("kinds").addEventListener("change", ({ target }) => {
    chosen = target.value;
    for (const line of $("log").children) line.hidden = !fits(line);
    show();
    end.toEnd();
  });
}

export function clearLog() {
  told = 0;
  $("log").replaceChildren();
  show();
}

export function drawEvent({ at_ms, from, event }) {
  const log = $("log");
  const type = String(event.type ?? "(no type)");
  told += 1;
  const last = log.lastElementChild;
  if (last?.dataset.type === type && last.dataset.from === from) {
    // Deltas come by the dozen: one line for a run of them, with the latest inside.
    last.dataset.times = Number(last.dataset.times) + 1;
    setText(last.querySelector(".times"), `×${last.dataset.times}`);
    last.event = event;
    if (last.firstElementChild.open) fill(last);
  } else {
    const line = eventLine(at_ms, from, type, event);
    line.hidden = !fits(line);
    log.append(line);
    if (log.children.length > LINES) log.firstElementChild.remove();
  }
  show();
  end.follow();
}

function fits({ dataset }) {
  return KINDS[chosen][1](dataset.type, dataset.from);
}

function show() {
  const none = ![...$("log").children].some((line) => !line.hidden);
  $("log-empty").hidden = !none;
  $("log-box").hidden = none;
  setText($("log-count"), told || "");
  setText($("log-empty"), told ? "No event of this kind yet." : $("log-empty").dataset.before);
}

function fill(line) {
  setText(line.querySelector("pre"), JSON.stringify(line.event, null, 2));
}

function eventLine(at_ms, from, type, event) {
  const line = $("event-line").content.firstElementChild.cloneNode(true);
  Object.assign(line.dataset, { type, from, times: 1 });
  line.event = event;
  const name = line.querySelector(".type");
  name.classList.toggle("failed", type === "error");
  // Where a long name may be broken.
  for (const part of type.split(/(?<=[._])/)) name.append(part, make("wbr"));
  const way = line.querySelector(".way");
  setText(way, from === "client" ? "↑" : "↓");
  way.setAttribute("aria-label", from === "client" ? "sent" : "received");
  setText(line.querySelector("time"), `${(at_ms / 1000).toFixed(2)} s`);
  line.firstElementChild.addEventListener("toggle", () => fill(line));
  return line;
}
