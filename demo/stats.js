// Round trip, jitter, loss and playout delay: a figure and a sparkline each.

import { $, number, setText, svg } from "./dom.js";
import { firsthop } from "./figures.js";

// Tile: the figure it shows, and the least that fills its sparkline, so that a still line looks still.
const TILES = {
  rtt: ["rtt_ms", 5],
  jitter: ["jitter_ms", 5],
  loss: ["loss_percent", 2],
  buffer: ["buffer_ms", 40],
};

export function drawStats() {
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
