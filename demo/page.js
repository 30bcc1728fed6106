// The page: one call at a time, and everything that shows what becomes of it.

import { Call } from "./call.js";
import { notice, prepareComposer, showComposer } from "./composer.js";
import { clearConversation, drawTranscript, prepareConversation } from "./conversation.js";
import { $, clock, number, setText } from "./dom.js";
import { firsthop } from "./figures.js";
import { watchKeys } from "./keys.js";
import { clearLatency, drawLatency, prepareLatency } from "./latency.js";
import { clearLog, drawEvent, prepareLog } from "./log.js";
import { noServer } from "./problems.js";
import { settings, watchSettings } from "./session.js";
import { drawPhases, prepareSetup } from "./setup.js";
import { drawStats } from "./stats.js";
import { addToTape, clearTape, drawTape } from "./tape.js";

window.firsthop = firsthop;

let call = null;
let shown = {}; // why the call ended, and when to try again
let countdown = null;

const view = {
  audio: $("audio"),
  state: showState,
  phases: () => drawPhases(call),
  stats: drawStats,
  event: drawEvent,
  transcript: () => drawTranscript(firsthop.transcript),
  turns() {
    drawLatency(firsthop.turns, firsthop.latency);
    showComposer();
    drawState();
  },
  refused({ message, code }) {
    notice(`The server refused that: ${message ?? code ?? "it does not say why"}`);
  },
  levels() {
    if (!call.over) addToTape(firsthop.levels, call.talk?.turns, call.stalled);
    drawLevels();
    drawState();
  },
};

// ---- the state

function showState(state, why) {
  clearInterval(countdown);
  shown = { why };
  if (why?.retryAfter) {
    shown.retryAt = performance.now() + 1000 * why.retryAfter;
    countdown = setInterval(drawState, 250);
  }
  if (call?.over && call.openedAt === undefined) clearTape();
  document.body.dataset.state = state;
  setText($("call-label"), { connecting: "Cancel", connected: "Hang up" }[state] ?? "Connect");
  $("agent").disabled = state === "connecting" || state === "connected";
  drawState();
  showComposer();
  // Read aloud once per state; the line itself changes with every turn and every second.
  setText($("announcement"), `${$("state").textContent}. ${$("detail").textContent}`);
  // Space is for talking then, and not for hanging up.
  if (state === "connected" && settings().turns === "manual") {
    whenOpen(() => document.activeElement === $("call") && $("hold").focus());
  }
}

function whenOpen(work) {
  const timer = setInterval(() => {
    if (call.over || call.talk.open) clearInterval(timer);
    if (call.talk.open) work();
  }, 50);
}

function agentName() {
  const name = call?.agent ?? $("agent").value ?? "";
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function stateText() {
  const { why, retryAt } = shown;
  switch (firsthop.state) {
    case "connecting":
      return firsthop.phases.microphone?.end === null
        ? ["Waiting for the microphone", "Your browser may ask whether this page may use it."]
        : ["Connecting", `Setting up the call to ${agentName()}.`];
    case "connected": {
      const [title, detail] = call.stalled
        ? ["No connection", "Nothing gets through; the call goes on once it does."]
        : turnText(firsthop.turn_state, agentName());
      return [title, `${clock(call.now() - call.openedAt)} · ${detail}`];
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

function turnText(state, name) {
  const byKey = document.body.dataset.turns === "manual";
  switch (state) {
    case "you":
      return ["You’re talking", byKey ? "Let go when you have finished." : `${name} is listening.`];
    case "thinking":
      return [`${name} is thinking`, "The answer is on its way."];
    case "agent":
      return [`${name} is talking`, byKey ? "Hold to talk over it, or press Escape." : "Interrupt whenever you like."];
    case "interrupted": {
      const cut = firsthop.turns.findLast((turn) => turn.cut)?.cut;
      const silence = cut?.latency_ms == null ? "" : ` Silence after ${number(cut.latency_ms)} ms.`;
      return ["Interrupted", `${name} stopped.${silence}`];
    }
    default:
      return ["Listening", byKey ? "Hold to talk, or write." : "Say something, or write."];
  }
}

function drawState() {
  const [title, detail] = stateText();
  setText($("state"), title);
  setText($("detail"), detail);
  document.body.dataset.turn = firsthop.state === "connected" ? firsthop.turn_state : "";
}

function drawLevels() {
  for (const [side, level] of Object.entries(firsthop.levels)) {
    const meter = $(`level-${side}`);
    meter.firstElementChild.style.transform = `scaleX(${level.toFixed(3)})`;
    meter.setAttribute("aria-valuenow", Math.round(100 * level));
  }
}

// ---- the page

function press() {
  if (call && !call.over) {
    call.end(firsthop.state === "connected" ? "Call ended" : "Cancelled");
    return;
  }
  call = new Call($("agent").value, settings(), view);
  clearTape();
  clearLog();
  clearLatency();
  clearConversation(agentName());
  notice("");
  drawStats();
  call.connect();
}

function frame() {
  drawTape();
  if (call?.over === false && firsthop.setup_ms === null) drawPhases(call);
  requestAnimationFrame(frame);
}

async function start() {
  prepareSetup(() => drawPhases(call));
  prepareLog();
  prepareLatency();
  prepareConversation();
  prepareComposer(() => (call?.over === false ? (call.talk ?? null) : null));
  watchSettings((changed) => {
    if (call?.over === false) {
      call.settings = changed;
      call.talk?.configure(changed);
    }
    drawState();
  });
  watchKeys();
  drawPhases(call);
  drawStats();
  clearLatency();
  frame();
  $("call").addEventListener("click", press);
  window.addEventListener("pagehide", () => call?.end("Call ended"));

  const asked = new URLSearchParams(window.location.search);
  try {
    const agents = await (await fetch("/agents")).json();
    $("agent").append(...agents.map((name) => new Option(name, name)));
    if (agents.includes(asked.get("agent"))) $("agent").value = asked.get("agent");
  } catch {
    const why = noServer("reload this page");
    firsthop.state = "error";
    firsthop.error = { title: why.title, detail: why.detail, status: null };
    showState("error", why);
    return;
  }
  if (asked.get("autoconnect") === "1") press();
}

start();
