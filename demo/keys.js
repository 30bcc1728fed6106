// Keys of the page. None is taken from a field that is written in, nor from a control that means something by it.

import { $ } from "./dom.js";
import { hold, interrupt, release } from "./composer.js";

const WRITTEN_IN = "textarea, select, input:not([type=radio], [type=checkbox], [type=range]), [contenteditable]";
const PRESSED_BY_SPACE = "button, summary, a, input, select, textarea";

export function watchKeys() {
  let held = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.target.closest(WRITTEN_IN)) return;
    if (event.key === "Escape") {
      interrupt();
    } else if (event.key === "/" && !$("text").disabled) {
      event.preventDefault();
      $("text").focus();
    } else if (event.key === " " && document.body.dataset.turns === "manual") {
      if (event.target.closest(PRESSED_BY_SPACE)) return;
      event.preventDefault(); // it would scroll
      if (!event.repeat) hold();
      held = true;
    }
  });
  document.addEventListener("keyup", ({ key }) => {
    if (key !== " " || !held) return;
    held = false;
    release();
  });
  // The key may go up where this page does not see it.
  window.addEventListener("blur", release);
}
