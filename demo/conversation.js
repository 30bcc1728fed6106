// The conversation as a person reads it.

import { $, make, setText, stickToEnd } from "./dom.js";

const WHO = { user: "You", agent: "Agent", tool: "Tool", note: "Note" };

let end = null;
let name = WHO.agent;

export function prepareConversation() {
  const box = $("said");
  end = stickToEnd(box, (away) => ($("to-end").hidden = !away));
  $("to-end").addEventListener("click", () => {
    end.toEnd();
    box.focus();
  });
}

/** Another conversation begins, with the agent of that name. */
export function clearConversation(agent) {
  name = agent;
  $("transcript").replaceChildren();
  $("to-end").hidden = true;
  end.toEnd();
  drawTranscript([]);
}

/** `items` as transcript.js has them. */
export function drawTranscript(items) {
  const box = $("transcript");
  const known = new Map([...box.children].map((line) => [line.dataset.id, line]));
  items.forEach((item, i) => {
    const line = known.get(item.id) ?? bubble(item);
    known.delete(item.id);
    fill(line, item);
    // Moved only where it is elsewhere: what is put in again is read aloud again.
    if (box.children[i] !== line) box.insertBefore(line, box.children[i] ?? null);
  });
  for (const line of known.values()) line.remove();
  $("transcript-empty").hidden = items.length > 0;
  $("said").hidden = items.length === 0;
  end.follow();
}

function bubble(item) {
  const line = make("li", { class: item.role });
  line.dataset.id = item.id;
  const who = item.role === "agent" ? name : WHO[item.role];
  line.append(make("span", { class: "who" }, who), make("div", { class: "said" }), make("small"));
  return line;
}

function fill(line, item) {
  const said = line.children[1];
  line.classList.toggle("speaking", item.state === "speaking");
  line.classList.toggle("failed", item.state === "failed");
  line.classList.toggle("truncated", item.truncated !== null);
  if (item.role === "tool") {
    setText(said, `${item.name ?? "?"}(${item.arguments === "{}" ? "" : (item.arguments ?? "")})`);
    if (item.output != null) setText(line.children[2], `answered: ${item.output}`);
    return;
  }
  if (item.picture !== null && !said.querySelector("img, .gone")) {
    said.append(make("img", { src: item.picture, alt: "The picture that you sent" }));
  } else if (item.picture === "" && said.querySelector("img")) {
    said.querySelector("img").replaceWith(make("span", { class: "gone" }, "(a picture)"));
  }
  let words = said.querySelector("p");
  if (!words) said.append((words = make("p")));
  const text = wording(item);
  words.hidden = text === "";
  words.classList.toggle("wordless", item.text === "" && item.kind === "speech");
  setText(words, text);
  setText(line.children[2], footnote(item));
}

function wording(item) {
  if (item.text || item.kind !== "speech") return item.truncated !== null ? `${item.text}…` : item.text;
  if (item.state === "speaking") return "speaking";
  return item.transcribed ? "(no words)" : "(spoken)";
}

function footnote(item) {
  if (item.truncated !== null) return `interrupted after ${(item.truncated / 1000).toFixed(1)} s`;
  if (item.state === "failed") return "not accepted";
  if (item.state === "waiting") return "sending";
  if (item.kind === "speech" && item.state !== "speaking" && item.spoken_ms !== null) {
    return `${(item.spoken_ms / 1000).toFixed(1)} s of audio`;
  }
  return "";
}
