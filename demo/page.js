// What the person sees: the state, both voices, the figures, the setup as a waterfall, and the events.

import { Call, firsthop, HISTORY, Problem } from "./call.js";

window.firsthop = firsthop;

const EVENT_LINES = 300;
const ROW = 30; // px, as in page.css

// In the order of the picture; how a bar is coloured.
const PHASES = {
  microphone: ["Microphone", "local"],
  offer: ["Offer", "local"],
  signaling: ["Signaling", "network"],
  ice: ["ICE", "network"],
  dtls: ["DTLS", "network"],
  channel: ["Data channel", "network"],
  audio: ["First sound", "sound"],
};

// Tile: the figure it shows, and the least that fills its sparkline, so that a still line looks still.
const TILES = {
  rtt: ["rtt_ms", 5],
  jitter: ["jitter_ms", 5],
  loss: ["loss_percent", 2],
  buffer: ["buffer_ms", 40],
};

const $ = (id) => document.getElementById(id);
const tape = []; // levels, oldest first
let call = null;
let shown = {}; // why the call ended, and when to try again
let countdown = null;

const view = {
  audio: $("audio"),
  state: showState,
  phases: drawPhases,
  stats: drawStats,
  event: drawEvent,
  levels() {
    if (!call.over) tape.push({ ...firsthop.levels });
    drawLevels();
    drawState();
  },
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function svg(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
}

function number(value) {
  return String(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}

function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

// ---- the state

function showState(state, why) {
  clearInterval(countdown);
  shown = { why };
  if (why?.retryAfter) {
    shown.retryAt = performance.now() + 1000 * why.retryAfter;
    countdown = setInterval(drawState, 250);
  }
  if (call?.over && call.openedAt === undefined) tape.length = 0;
  document.body.dataset.state = state;
  setText($("call-label"), { connecting: "Cancel", connected: "Hang up" }[state] ?? "Connect");
  $("agent").disabled = state === "connecting" || state === "connected";
  drawState();
  // Read aloud once per state; the line itself changes with every turn and every second.
  setText($("announcement"), `${$("state").textContent}. ${$("detail").textContent}`);
}

function stateText() {
  const { why, retryAt } = shown;
  const name = call && call.agent.charAt(0).toUpperCase() + call.agent.slice(1);
  switch (firsthop.state) {
    case "connecting":
      return firsthop.phases.microphone?.end === null
        ? ["Waiting for the microphone", "Your browser may ask whether this page may use it."]
        : ["Connecting", `Setting up the call to ${name}.`];
    case "connected": {
      const time = clock(call.now() - call.openedAt);
      if (call.interrupted) return [
          "Interrupted",
          `${time} · Nothing gets through; the call goes on once it does.`,
        ];
      if (firsthop.talking === "you") return ["You’re talking", `${time} · ${name} is listening.`];
      if (firsthop.talking === "agent") return [`${name} is talking`, `${time} · Interrupt whenever you like.`];
      return ["Connected", `${time} · Say something.`];
    }
    case "ended": {
      const lasted = call.lasted === null ? "" : `The call took ${clock(call.lasted)}. `;
      return [why, `${lasted}Press Connect for another.`];
    }
    case "error": {
      if (!retryAt) return [why.title, why.detail];
      const left = Math.ceil((retryAt - performance.now()) / 1000);
      const then = left > 0 ? `Try again in ${left} s.` : "Press Connect to try again.";
      return [why.title, `${why.detail.replace(/[.!]?$/, ".")} ${then}`];
    }
    default:
      return ["Ready", "Press Connect and allow the microphone."];
  }
}

function drawState() {
  const [title, detail] = stateText();
  setText($("state"), title);
  setText($("detail"), detail);
  document.body.dataset.talking = firsthop.talking ?? "";
}

// ---- both voices

function drawLevels() {
  for (const [side, level] of Object.entries(firsthop.levels)) {
    const meter = $(`level-${side}`);
    meter.firstElementChild.style.transform = `scaleX(${level.toFixed(3)})`;
    meter.setAttribute("aria-valuenow", Math.round(100 * level));
  }
}

/** The last seconds as a strip: the person's voice above the line, the agent's below, now at the right. */
function drawTape() {
  const canvas = $("tape");
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const style = getComputedStyle(document.documentElement);
  const pen = canvas.getContext("2d");
  const [pitch, bar, middle] = [6, 3, height / 2];
  tape.splice(0, Math.max(0, tape.length - Math.ceil(width / pitch)));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.fillStyle = style.getPropertyValue("--line");
  pen.fillRect(0, middle - 0.5, width, 1);
  for (const side of ["microphone", "agent"]) {
    pen.fillStyle = style.getPropertyValue(side === "agent" ? "--agent" : "--you");
    tape.forEach((levels, i) => {
      const x = width - (tape.length - i) * pitch;
      const tall = levels[side] ** 1.4 * (middle - 4);
      if (tall < 0.8) return;
      pen.globalAlpha = Math.min(1, 0.15 + (1.1 * x) / width);
      pen.beginPath();
      pen.roundRect(x, side === "agent" ? middle + 2.5 : middle - 2.5 - tall, bar, tall, bar / 2);
      pen.fill();
    });
    pen.globalAlpha = 1;
  }
}

// ---- the figures

function drawStats() {
  const { stats } = firsthop;
  for (const [id, [key, least]] of Object.entries(TILES)) {
    const history = stats[key] ?? [];
    const latest = history.at(-1) ?? null;
    const tile = $(id);
    tile.classList.toggle("empty", latest === null);
    setText(tile.querySelector("b"), latest === null ? "–" : number(latest));
    drawSparkline(tile.querySelector("svg"), history, least);
  }
  const far = (id, value, unit) => {
    const note = $(id).querySelector("small");
    note.dataset.idle ??= note.textContent;
    setText(note, value == null ? note.dataset.idle : `yours, seen there: ${number(value)}\u00a0${unit}`);
  };
  far("jitter", stats.uplink_jitter_ms, "ms");
  far("loss", stats.uplink_loss_percent, "%");
}

function drawSparkline(picture, history, least) {
  picture.replaceChildren();
  const seconds = Math.max(20, history.length) - 1; // a young call fills its picture sooner
  picture.setAttribute("viewBox", `0 0 ${seconds} 100`);
  picture.setAttribute("preserveAspectRatio", "none");
  const most = 1.15 * Math.max(least, ...history);
  const points = history.flatMap((value, i) =>
    value === null ? [] : [[seconds + 1 - history.length + i, 100 - (100 * value) / most]],
  );
  if (points.length < 2) return;
  svg(picture, "polygon", { points: [[points[0][0], 100], ...points, [points.at(-1)[0], 100]].join(" ") });
  svg(picture, "polyline", { points: points.join(" ") });
}

// ---- the setup

/** Where the phases lie on the picture. Zero is the offer. What takes a person's time, the leave to use the
 * microphone and an agent's wait to be spoken to, is cut short: at its true length it would hide the rest. */
function timeScale(phases, now) {
  const end = (name) => phases[name]?.end ?? (phases[name] ? now : 0);
  const zero = phases.offer?.start ?? end("microphone");
  const last = Math.max(zero, ...["offer", "signaling", "ice", "dtls", "channel"].map(end));
  const network = Math.max(1, last - zero);
  const wait = Math.max(0, end("audio") - zero - network);
  const prompt = firsthop.setup_ms === null || (phases.audio?.end ?? Infinity) - zero <= firsthop.setup_ms + 0.001;
  const before = Math.min(zero, 0.3 * network);
  const after = prompt ? wait : Math.min(wait, 0.4 * network);
  const percent = (t) => {
    const since = t - zero;
    if (since < 0) return (100 * before * t) / zero / (before + network + after);
    const cut = since > network ? network + ((since - network) / wait) * after : since;
    return (100 * (before + cut)) / (before + network + after);
  };
  const cut = { microphone: before < zero, audio: after < wait };
  return { zero, end, percent, cut, prompt, limit: network + (cut.audio ? 0 : after) };
}

function drawPhases() {
  const { phases } = firsthop;
  const running = (name) => phases[name]?.end === null && !call.over;
  const { zero, end, percent, cut, prompt, limit } = timeScale(phases, call?.over === false ? call.now() : 0);
  const picture = $("bars");
  picture.replaceChildren();
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].find((ms) => limit / ms <= 4.5) ?? 10000;
  for (let t = 0; phases.offer && t <= limit; t += step) {
    const x = `${percent(zero + t)}%`;
    svg(picture, "line", { x1: x, x2: x, y1: 18, y2: picture.clientHeight });
    svg(picture, "text", { x, y: 11 }, t);
  }
  Object.entries(PHASES).forEach(([name, [, kind]], row) => {
    const phase = phases[name];
    const item = $("phases").children[row];
    const open = running(name) ? (name === "audio" && !prompt ? "waiting" : "…") : "–";
    const done = typeof phase?.end === "number";
    item.classList.toggle("open", !done);
    setText(item.lastElementChild, done ? `${number(phase.end - phase.start)} ms` : open);
    if (!phase || (phase.end === null && call.over)) return;
    const x = percent(phase.start);
    const width = `${Math.max(0.8, percent(end(name)) - x)}%`;
    const classes = [kind, cut[name] ? "cut" : "", running(name) ? "running" : ""].join(" ");
    svg(picture, "rect", { x: `${x}%`, y: 28 + ROW * row, width, height: 14, rx: 4, class: classes });
  });
  setText($("total"), firsthop.setup_ms === null ? "–" : number(firsthop.setup_ms));
  $("total").parentElement.classList.toggle("empty", firsthop.setup_ms === null);
  setText($("total-note"), prompt ? "from the offer to the first sound" : "from the offer to the open call");
}

// ---- the events

function drawEvent({ at_ms, event }) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
  const type = String(event.type ?? "(no type)");
  const text = JSON.stringify(event, null, 2);
  $("log-empty").hidden = true;
  setText($("log-count"), String(firsthop.events.length));
  const last = log.lastElementChild;
  if (last?.dataset.type === type) {
    // Deltas come by the dozen: one line for a run of them, with the latest inside.
    last.dataset.times = Number(last.dataset.times) + 1;
    setText(last.querySelector(".times"), `×${last.dataset.times}`);
    setText(last.querySelector("pre"), text);
  } else {
    log.append(eventLine(at_ms, type, text));
    if (log.children.length > EVENT_LINES) log.firstElementChild.remove();
  }
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function eventLine(at_ms, type, text) {
  const line = $("event-line").content.firstElementChild.cloneNode(true);
  Object.assign(line.dataset, { type, times: 1 });
  const name = line.querySelector(".type");
  name.classList.toggle("failed", type === "error");
  // Where a long name may be broken.
  for (const part of type.split(/(?<=[._])/)) name.append(part, document.createElement("wbr"));
  setText(line.querySelector("time"), `${(at_ms / 1000).toFixed(3)} s`);
  setText(line.querySelector("pre"), text);
  return line;
}

// ---- the page

function press() {
  if (call && !call.over) {
    call.end(firsthop.state === "connected" ? "Call ended" : "Cancelled");
    return;
  }
  call = new Call($("agent").value, view);
  tape.length = 0;
  $("log").replaceChildren();
  $("log-empty").hidden = false;
  setText($("log-count"), "");
  drawStats();
  call.connect();
}

function frame() {
  drawTape();
  if (call?.over === false && firsthop.setup_ms === null) drawPhases();
  requestAnimationFrame(frame);
}

async function start() {
  for (const [label] of Object.values(PHASES)) {
    const item = document.createElement("li");
    item.append(document.createElement("span"), document.createElement("span"));
    setText(item.firstElementChild, label);
    $("phases").append(item);
  }
  drawPhases();
  drawStats();
  frame();
  new ResizeObserver(drawPhases).observe($("bars"));
  $("call").addEventListener("click", press);
  window.addEventListener("pagehide", () => call?.end("Call ended"));

  const asked = new URLSearchParams(window.location.search);
  try {
    const agents = await (await fetch("/agents")).json();
    $("agent").append(...agents.map((name) => new Option(name, name)));
    if (agents.includes(asked.get("agent"))) $("agent").value = asked.get("agent");
  } catch {
    const why = new Problem("The page’s server does not answer", "Start it again, then reload this page.");
    firsthop.state = "error";
    firsthop.error = { title: why.title, detail: why.detail, status: null };
    showState("error", why);
    return;
  }
  if (asked.get("autoconnect") === "1") press();
}

start();
