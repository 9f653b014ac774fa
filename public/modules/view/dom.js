/** Small helpers for making elements. Text is always set as text, never as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** `h("button", { class: "quiet", onclick }, "Text", icon("copy"))`; null children are skipped. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) set(element, key, value);
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

function set(element, key, value) {
  if (value == null || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else element.setAttribute(key, value === true ? "" : value);
}

/** An icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only an icon; its label is for everybody who can't see or place it. */
export function iconButton(name, label, onclick, props = {}) {
  return h(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...props },
    icon(name),
  );
}

export const $ = (selector, within = document) => within.querySelector(selector);

/** The same name has the same colour everywhere. */
function hue(name) {
  let hash = 2166136261; // FNV-1a, whose last step spreads names that differ in one letter only
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
  hash = Math.imul(hash ^ (hash >>> 15), 2246822519);
  return (hash >>> 8) % 360;
}

export function avatar({ name, kind, emoji }) {
  const face = h("span", { class: `avatar ${kind}`, "aria-hidden": "true" }, emoji ?? initials(name));
  if (emoji) face.classList.add("emoji");
  face.style.setProperty("--hue", hue(name));
  return face;
}

function initials(name) {
  const all = name.trim().split(/\s+/);
  const words = all.filter((word, n) => n === 0 || /^\p{L}/u.test(word)); // not a guest's number
  const first = [...(words[0] ?? "?")][0] ?? "?";
  const last = words.length > 1 ? [...words.at(-1)][0] : "";
  return (first + last).toLocaleUpperCase();
}

const frames = new Set();
let asked = false;

/** Run `work` before the next paint, once however often it is asked for. */
export function nextFrame(work) {
  frames.add(work);
  if (asked) return;
  asked = true;
  // A hidden page paints no frames; it must not pile up work either.
  if (document.hidden) setTimeout(runFrame, 250);
  else requestAnimationFrame(runFrame);
}

function runFrame() {
  asked = false;
  const due = [...frames];
  frames.clear();
  for (const work of due) work();
}

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Plain http from another machine has no clipboard API.
  const area = h("textarea", { class: "hidden-visually" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("copy");
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export const dayOf = (at) => new Date(at).toDateString();
export const dayName = (at) => DAY.format(new Date(at));

export function timeOf(at) {
  const date = new Date(at);
  return h("time", { datetime: at, title: FULL.format(date) }, CLOCK.format(date));
}
