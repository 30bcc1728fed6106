// The last seconds of both voices as a strip: the person's above the line, the agent's below, now at the right. A
// band behind a voice is what the server took for speech, or sent as such; a red stroke is an interruption.

import { $ } from "./dom.js";

const [PITCH, BAR] = [6, 3]; // px a look
const looks = []; // { microphone, agent, hears, plays, cut }, oldest first
let cuts = 0;

/** Another look at `levels`; `turns` is what turns.js has, if anything. While a call is `stalled` nobody knows. */
export function addToTape(levels, turns, stalled) {
  const all = turns?.list.filter(({ cut }) => cut).length ?? 0;
  const [hears, plays] = [turns?.speaking, turns?.playing].map((what) => Boolean(what) && !stalled);
  looks.push({ ...levels, hears, plays, cut: all > cuts });
  cuts = all;
}

export function clearTape() {
  looks.length = 0;
  cuts = 0;
}

export function drawTape() {
  const canvas = $("tape");
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name);
  const pen = canvas.getContext("2d");
  const middle = height / 2;
  looks.splice(0, Math.max(0, looks.length - Math.ceil(width / PITCH)));
  const x = (i) => width - (looks.length - i) * PITCH;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  drawBand(pen, "hears", colour("--you"), x, 0, middle - 1);
  drawBand(pen, "plays", colour("--agent"), x, middle + 1, middle - 1);
  pen.fillStyle = colour("--line");
  pen.fillRect(0, middle - 0.5, width, 1);
  for (const side of ["microphone", "agent"]) {
    pen.fillStyle = colour(side === "agent" ? "--agent" : "--you");
    looks.forEach((look, i) => {
      const tall = look[side] ** 1.4 * (middle - 6);
      if (tall < 0.8) return;
      pen.globalAlpha = Math.min(1, 0.15 + (1.1 * x(i)) / width);
      pen.beginPath();
      pen.roundRect(x(i), side === "agent" ? middle + 2.5 : middle - 2.5 - tall, BAR, tall, BAR / 2);
      pen.fill();
    });
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colour("--stop");
  looks.forEach((look, i) => look.cut && pen.fillRect(x(i), 0, 2, height));
}

function drawBand(pen, key, colour, x, y, tall) {
  pen.fillStyle = colour;
  pen.globalAlpha = 0.14;
  for (let i = 0; i < looks.length; i++) {
    if (!looks[i][key]) continue;
    const start = i;
    while (looks[i + 1]?.[key]) i++;
    pen.beginPath();
    pen.roundRect(x(start) - 1, y, (i - start + 1) * PITCH, tall, 5);
    pen.fill();
  }
  pen.globalAlpha = 1;
}
