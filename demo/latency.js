// A bar a turn, from the end of speech to the first sound of the answer: the newest on top, one of them explained.

import { $, make, number, setText } from "./dom.js";
import { segments } from "./turns.js";

const SHOWN = 30;

// What the time up to each mark was spent on.
const LABELS = {
  stopped: ["Waiting for more", "the silence that ends a turn"],
  committed: ["Taken as a turn", "by the server"],
  created: ["Response begun", "the agent is asked"],
  tool: ["Tool called and answered", "by this page"],
  delta: ["First words", "the agent hears and thinks"],
  started: ["First audio sent", "output_audio_buffer.started"],
  heard: ["First sound heard", "the way here, and the playout"],
};
// What the agent's parts did meanwhile, up to the first result of each.
const STAGES = { ears: "Ears heard", mind: "Mind thought", voice: "Voice said" };
const ENDS = { server: "End of speech, as the server saw it", browser: "End of speech, as the microphone had it" };
const KINDS = { spoken: "spoken", held: "held", typed: "typed", idle: "silence" };

let chosen = null; // a turn's number; null follows the newest
let drawn = [];

export function prepareLatency() {
  $("turns").addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const turn = Number(button.dataset.number);
    chosen = turn === drawn.at(-1)?.number ? null : turn;
    drawLatency(drawn);
  });
}

export function clearLatency() {
  chosen = null;
  drawLatency([], { p50_ms: null, turns: 0, barge_in_ms: null, interruptions: 0 });
}

/** `turns` as turns.js lists them, and its medians. */
export function drawLatency(turns, latency) {
  drawn = turns;
  if (latency) {
    figure("p50", latency.p50_ms, latency.turns, "turn");
    figure("barge-in", latency.barge_in_ms, latency.interruptions, "interruption");
  }
  const recent = turns.slice(-SHOWN).reverse();
  const shown = recent.find(({ number: n }) => n === chosen) ?? recent[0];
  $("latency").classList.toggle("none", recent.length === 0);
  const length = (turn) => (segments(turn).at(-1)?.end ?? 0) - turn.phases.ended;
  const most = 1.04 * Math.max(1, ...recent.map(length)); // the rest is for the mark of an interruption
  const rows = $("turns");
  while (rows.children.length > recent.length) rows.lastElementChild.remove();
  recent.forEach((turn, i) => drawRow(rows.children[i] ?? rows.appendChild(row()), turn, turn === shown, most));
  explain(shown);
}

function figure(id, ms, count, what) {
  setText($(id), ms === null ? "–" : number(ms));
  $(id).parentElement.classList.toggle("empty", ms === null);
  setText($(`${id}-count`), count ? `median of ${count} ${what}${count === 1 ? "" : "s"}` : `no ${what} yet`);
}

function row() {
  const button = make("button", { type: "button" }, make("span"), make("i", { "aria-hidden": "true" }), make("b"));
  return make("li", {}, button);
}

function drawRow(item, turn, pressed, most) {
  const button = item.firstElementChild;
  const [name, bar, total] = button.children;
  button.dataset.number = turn.number;
  button.setAttribute("aria-pressed", pressed);
  setText(name, `${turn.number} ${KINDS[turn.kind]}`);
  setText(total, turn.total_ms === null ? outcome(turn) : `${number(turn.total_ms)} ms`);
  const parts = segments(turn);
  if (turn.cut) parts.push({ name: "cut", start: 0, end: 0 });
  while (bar.children.length > parts.length) bar.lastElementChild.remove();
  parts.forEach((part, i) => {
    const piece = bar.children[i] ?? bar.appendChild(make("u"));
    piece.className = part.name;
    piece.style.width = `${(100 * (part.end - part.start)) / most}%`;
  });
}

function outcome({ outcome: status, phases }) {
  if (status === "completed" && phases.started === undefined) return "in text";
  if (status === "completed") return phases.heard === undefined && phases.delta === undefined ? "silent" : "…";
  return status === "open" || status === "calling" ? "…" : status;
}

/** The phases of one turn, with their times. */
function explain(turn) {
  const list = $("turn-phases");
  if (!turn) {
    list.replaceChildren();
    return;
  }
  const begin = turn.kind === "typed" ? "Sent" : (ENDS[turn.ended_by] ?? "Key released");
  setText($("turn-begin"), `Turn ${turn.number} · 0 ms is: ${begin.charAt(0).toLowerCase()}${begin.slice(1)}`);
  const lines = segments(turn).map(({ name, start, end }) => {
    const [label, why] = LABELS[name];
    const tool = name === "tool" && turn.tool ? ` (${turn.tool})` : "";
    const what = make("dt", { title: why }, make("i", { class: name, "aria-hidden": "true" }), label + tool);
    const typed = turn.kind === "typed" && name === "committed" ? "Acknowledged" : null;
    if (typed) what.lastChild.textContent = typed;
    const [took, at] = [`${number(end - start)} ms`, `at ${number(end - turn.phases.ended)}`];
    return [what, make("dd", {}, took), make("dd", {}, at)];
  });
  for (const { name, begin_ms, end_ms, text } of turn.stages) {
    if (!STAGES[name]) continue;
    const words = make("q", { title: text }, text);
    const what = make("dt", { class: "stage" }, make("span", {}, STAGES[name]), words);
    lines.push([what, make("dd", {}, `${number(end_ms - begin_ms)} ms`), make("dd", {}, `at ${number(end_ms)}`)]);
  }
  list.replaceChildren(...lines.flat());
  if (turn.cut?.latency_ms != null) {
    const who = { voice: "You spoke", button: "You interrupted", server: "Cleared" }[turn.cut.by];
    const what = make("dt", { class: "cut" }, make("i", { class: "cut", "aria-hidden": "true" }), `${who} → silence`);
    list.append(what, make("dd", {}, `${number(turn.cut.latency_ms)} ms`), make("dd"));
  }
}
