// Small helpers for what is drawn.

export const $ = (id) => document.getElementById(id);

/** Changes an element's text where it is another: a screen reader would read the same again. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** A new element with attributes and children (elements or text). */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function svg(parent, name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
}

/** A figure as people read it: 3.4, 34, 345. */
export function number(value) {
  return String(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
}

/** Minutes and seconds. */
export function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** Keeps a box at its end while more comes, unless the person has scrolled up; `moved(away)` is told of that. */
export function stickToEnd(box, moved = () => {}) {
  let away = false;
  let size = "";
  const sizeNow = () => `${box.scrollHeight} ${box.clientHeight}`;
  box.addEventListener("scroll", () => {
    if (sizeNow() !== size) return; // that was not the person, but what came, or the window
    away = box.scrollHeight - box.scrollTop - box.clientHeight > 40;
    moved(away);
  });
  const follow = () => {
    if (!away) box.scrollTop = box.scrollHeight;
  };
  // A picture has its height later than its place.
  const sizes = new ResizeObserver(() => {
    size = sizeNow();
    follow();
  });
  for (const element of [box, ...box.children]) sizes.observe(element);
  return {
    follow,
    toEnd() {
      away = false;
      box.scrollTop = box.scrollHeight;
    },
  };
}
