// How the call was set up, as a waterfall.

import { $, make, number, setText, svg } from "./dom.js";
import { firsthop } from "./figures.js";

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

/** Puts the rows there, and draws again when the picture's size changes. */
export function prepareSetup(draw) {
  const rows = Object.values(PHASES).map(([label]) => make("li", {}, make("span", {}, label), make("span")));
  $("phases").append(...rows);
  new ResizeObserver(draw).observe($("bars"));
}

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

/** The waterfall of `call`, the present or the last one; null before there is any. */
export function drawPhases(call) {
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
