// How turns are taken, as the person sets it, and the one function that this page offers.

import { $ } from "./dom.js";

/** The agent may call it: only the browser knows what its clock says. */
export const TOOL = {
  type: "function",
  name: "get_time",
  description: "Tells what time it is where the caller is, from the clock of the caller's browser",
  parameters: { type: "object", properties: {}, required: [] },
};

/** The output of a function call, as text. */
export function useTool(name) {
  if (name !== TOOL.name) return `There is no function ${name}.`;
  const now = new Date();
  const clock = now.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone.replaceAll("_", " ");
  return `${clock} on ${now.toLocaleDateString("en-GB", { weekday: "long" })}, ${zone} time`;
}

/** The session's turn_detection for such settings. */
export function detection({ turns, silence_ms, eagerness }) {
  if (turns === "manual") return null;
  if (turns === "semantic_vad") return { type: turns, eagerness };
  return { type: turns, silence_duration_ms: silence_ms };
}

/** What the controls say. */
export function settings() {
  return {
    turns: $("turning").querySelector("input[name=turns]:checked").value,
    silence_ms: Number($("silence").value),
    eagerness: $("eagerness").value,
    tool: $("tool").checked,
  };
}

/** Calls `changed` with the settings whenever the person has changed them. */
export function watchSettings(changed) {
  const show = () => {
    const { turns, silence_ms } = settings();
    document.body.dataset.turns = turns;
    $("silence-value").textContent = `${silence_ms} ms`;
  };
  $("turning").addEventListener("input", show);
  $("turning").addEventListener("change", () => {
    show();
    changed(settings());
  });
  show();
}
