/** Search in the room that is open, or in all. */

import { t } from "../strings.js";
import { $, h, timeOf, dayName } from "./dom.js";

const PAUSE = 250; // ms after the last key before it is asked for
const NARROW = matchMedia("(max-width: 859px)"); // as in styles.css
const AROUND = 80; // characters shown before the first word found

export class Search {
  /** `onFound(id, room)` when a result is chosen. */
  constructor(hub, { onFound }) {
    Object.assign(this, { hub, onFound, panel: $("#search"), asked: 0 });
    $("#query").addEventListener("input", () => this.#later());
    $("#search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    $("#search-where").addEventListener("change", () => this.#ask());
    $("#close-search").addEventListener("click", () => this.close());
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  open() {
    this.panel.hidden = false;
    $("#query").focus();
    $("#query").select();
  }

  close() {
    if (this.panel.hidden) return;
    this.panel.hidden = true;
    $("#open-search").focus();
  }

  get #everywhere() {
    return $("#search-where :checked").value === "all";
  }

  /** Another room is shown: what was found in the last one belongs there. */
  clear() {
    if (this.#everywhere) return;
    this.panel.hidden = true;
    $("#query").value = "";
    this.#show("", []);
  }

  /** On a phone the panel covers what it leads to. */
  #choose(id, room) {
    if (NARROW.matches) this.panel.hidden = true;
    this.onFound(id, room);
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    clearTimeout(this.timer);
    const query = $("#query").value.trim();
    const mine = (this.asked += 1);
    if (!query) return this.#show("", []);
    $("#search-note").textContent = t.searching;
    try {
      const { messages, more, rooms } = await this.#found(query);
      if (mine !== this.asked) return; // an answer to an older question
      const note = messages.length ? (more ? t.searchMore : "") : t.searchEmpty;
      this.#show(note, [...messages].reverse(), query, rooms);
    } catch (error) {
      if (mine === this.asked) this.#show(error.message, []);
    }
  }

  #found(query) {
    return this.#everywhere ? this.hub.searchAll(query) : this.hub.search(this.hub.here, query);
  }

  #show(note, messages, query = "", rooms = null) {
    const words = query.split(/\s+/).filter(Boolean);
    $("#search-note").textContent = note;
    $("#results").replaceChildren(...messages.map((message) => this.#result(message, words, rooms)));
  }

  #result({ id, room, author, at, text }, words, rooms) {
    const where = rooms && h("span", { class: "where" }, t.inRoom(rooms[room] ?? t.untitled));
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", onclick: () => this.#choose(id, room) },
        h("span", { class: "head" }, h("b", {}, author.name), `${dayName(at)}, `, timeOf(at), where),
        h("span", { class: "excerpt" }, ...marked(excerpt(text, words), words)),
      ),
    );
  }
}

function excerpt(text, words) {
  const low = text.toLocaleLowerCase();
  const found = words.map((word) => low.indexOf(word.toLocaleLowerCase())).filter((at) => at >= 0);
  const start = Math.max(0, Math.min(...found, text.length) - AROUND);
  return (start && found.length ? "…" : "") + text.slice(found.length ? start : 0, start + 4 * AROUND);
}

function marked(text, words) {
  if (!words.length) return [text];
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const parts = text.split(new RegExp(`(${escaped.join("|")})`, "giu"));
  return parts.map((part, at) => (at % 2 ? h("mark", {}, part) : part));
}
