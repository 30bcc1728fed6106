// What a person sends besides their voice: a text, a picture, an interruption, a turn with the key held down.

import { $, setText } from "./dom.js";
import { asJpeg } from "./picture.js";
import { Problem } from "./problems.js";

let talk = () => null;
let picture = null;

/** `current` gives the Talk of the present call, or null. */
export function prepareComposer(current) {
  talk = current;
  const text = $("text");
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  text.addEventListener("input", showComposer);
  $("attach").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    attach($("file").files[0]);
    $("file").value = ""; // the same one may be picked again
  });
  $("detach").addEventListener("click", () => {
    detach();
    text.focus();
  });
  $("interrupt").addEventListener("click", interrupt);
  $("suggestions").addEventListener("click", ({ target }) => {
    if (target.closest("button")) talk()?.say(target.textContent, null);
  });
  document.addEventListener("paste", ({ clipboardData }) => attach(pictureIn(clipboardData)));
  $("dismiss").addEventListener("click", () => notice(""));
  watchDrop($("talk"));
  watchHold($("hold"));
  showComposer();
}

/** The agent falls silent, if it has anything to say. */
export function interrupt() {
  return talk()?.interrupt() ?? false;
}

export function hold() {
  notice("");
  talk()?.hold();
  showComposer();
}

export function release() {
  if (talk()?.release()) notice("That was too short. Hold it down for as long as you talk.");
  showComposer();
}

/** Something went wrong, and the call goes on. An empty text takes it away. */
export function notice(text) {
  setText($("notice-text"), text);
  $("notice").hidden = text === "";
}

/** Which of it can be used now. */
export function showComposer() {
  const open = talk()?.open ?? false;
  $("send").disabled = !open || !($("text").value.trim() || picture);
  $("suggestions").hidden = !open;
  $("attach").disabled = $("text").disabled = $("hold").disabled = !open;
  $("interrupt").disabled = !open || !(talk().turns.thinking || talk().turns.playing);
  $("hold").setAttribute("aria-pressed", talk()?.holding ?? false);
}

function send() {
  const said = $("text").value.trim();
  if (!talk()?.open || !(said || picture)) return;
  notice("");
  talk().say(said, picture);
  $("text").value = "";
  detach();
}

function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find(({ type }) => type.startsWith("image/"));
}

async function attach(file) {
  if (!file || !talk()?.open) return;
  try {
    picture = await asJpeg(file, talk().pictureBytes);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    notice(`${error.title}. ${error.detail}`);
    return;
  }
  notice("");
  $("preview").src = picture;
  setText($("attached-size"), `${Math.round((picture.length * 3) / 4 / 1024)} kB`);
  $("attached").hidden = false;
  showComposer();
  $("text").focus();
}

function detach() {
  picture = null;
  $("attached").hidden = true;
  $("preview").removeAttribute("src");
  showComposer();
}

function watchDrop(box) {
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    box.classList.toggle("dropping", talk()?.open ?? false);
  };
  box.addEventListener("dragenter", over);
  box.addEventListener("dragover", over);
  box.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!box.contains(relatedTarget)) box.classList.remove("dropping");
  });
  box.addEventListener("drop", (event) => {
    box.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return; // words may be dropped where one writes
    event.preventDefault();
    const file = pictureIn(event.dataTransfer);
    if (file) attach(file);
    else notice("That is not a picture. Only pictures can be sent.");
  });
}

function watchHold(button) {
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    button.setPointerCapture(event.pointerId);
    hold();
  });
  for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(type, release);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // what a long touch would open
  button.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (!event.repeat) hold();
  });
  button.addEventListener("keyup", release);
  button.addEventListener("blur", release);
}
