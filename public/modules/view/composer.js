/** Where one writes. */

import { busy } from "../state.js";
import { t } from "../strings.js";
import { $ } from "./dom.js";
import { Mentions, mentioned } from "./mentions.js";

const SAY_AGAIN = 3_000; // ms between two notes that we are typing
const BIGGEST = 60 * 1024; // bytes; the default limit of a frame, less what stands around the text

export class Composer {
  /** `command(text)` is true where the text was an order to the page, not a message. */
  constructor(hub, { command }) {
    Object.assign(this, { hub, command });
    this.form = $("#composer");
    this.box = $("#text");
    this.sendButton = $("#send");
    this.stopButton = $("#stop");
    this.meButton = $("#only-me");
    this.note = $("#composer-note");
    this.lastSaid = 0;
    this.mentions = new Mentions(this.box, () => this.#others());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.box.addEventListener("input", () => this.#typed());
    this.box.addEventListener("keydown", (event) => this.#key(event));
    this.box.addEventListener("blur", () => this.#quiet());
    this.stopButton.addEventListener("click", () => this.#stop());
    this.meButton.addEventListener("click", () => this.#setMe(!this.onlyMe));
    new ResizeObserver(() => this.#size()).observe(this.form);
  }

  get onlyMe() {
    return this.meButton.getAttribute("aria-pressed") === "true";
  }

  /** Another room is shown: its own draft, nobody's whisper. */
  show(room) {
    if (this.room === room) return this.render();
    this.#quiet();
    this.room = room;
    this.box.value = this.hub.memory.draft(room.id);
    this.mentions.close();
    this.#setMe(false);
    this.#size();
  }

  render() {
    const { room } = this;
    const title = room?.info?.title ?? t.untitled;
    this.box.placeholder = this.onlyMe ? t.placeholderMe : t.placeholder(title);
    const stoppable = Boolean(room && busy(room));
    const blank = !this.box.value.trim();
    this.stopButton.hidden = !stoppable;
    this.sendButton.hidden = stoppable && blank;
    this.sendButton.disabled = blank || Boolean(this.#complaint());
    this.meButton.hidden = room?.info?.visibility === "private";
  }

  focus() {
    // On a phone the keyboard would cover the room that was just opened.
    if (matchMedia("(hover: hover)").matches) this.box.focus();
  }

  #setMe(on) {
    this.meButton.setAttribute("aria-pressed", String(on));
    this.form.classList.toggle("whispering", on);
    this.render();
  }

  #others() {
    return [...(this.room?.members.values() ?? [])]
      .filter(({ id }) => id !== this.hub.user?.id)
      .sort((a, b) => (a.kind === "character" ? 0 : 1) - (b.kind === "character" ? 0 : 1));
  }

  #typed() {
    const { room, box } = this;
    this.hub.memory.setDraft(room.id, box.value);
    this.#size();
    this.render();
    this.note.textContent = this.#complaint() ?? "";
    if (!box.value.trim() || this.onlyMe) return this.#quiet();
    if (Date.now() - this.lastSaid < SAY_AGAIN) return;
    this.lastSaid = Date.now();
    this.hub.typing(room, true);
  }

  #quiet() {
    if (!this.lastSaid) return;
    this.lastSaid = 0;
    this.hub.typing(this.room, false);
  }

  #complaint() {
    const { value } = this.box;
    const limit = this.hub.limits?.text_chars;
    if (limit && value.length > limit && [...value.trim()].length > limit) return t.tooLong(limit);
    if (value.length < BIGGEST / 6) return null; // \u00XX, the longest a character can get
    return new Blob([JSON.stringify(value)]).size > BIGGEST ? t.tooBig : null;
  }

  #key(event) {
    if (event.isComposing || this.mentions.key(event)) return;
    if (event.key === "Escape" && busy(this.room)) return void this.#stop();
    if (event.key !== "Enter" || event.shiftKey || event.altKey) return;
    // On-screen keyboards have no Shift+Enter, and a button to send is under the thumb.
    if (matchMedia("(hover: none) and (pointer: coarse)").matches && !event.ctrlKey) return;
    event.preventDefault();
    this.#send();
  }

  #send() {
    const text = this.box.value.trim();
    if (!text || !this.room || this.#complaint()) return;
    if (this.command(text)) return this.#clear();
    const cast = this.#others().filter(({ kind }) => kind === "character");
    this.hub.sender.send(this.room, {
      text,
      to: mentioned(text, cast),
      reply: this.onlyMe ? "me" : undefined,
    });
    this.#clear();
  }

  #clear() {
    this.box.value = "";
    this.#typed();
    this.box.focus();
  }

  async #stop() {
    try {
      await this.hub.stop(this.room);
    } catch (error) {
      this.hub.toast(error.message);
    }
  }

  /** As high as the text, up to a limit that the stylesheet sets. */
  #size() {
    this.box.style.height = "auto";
    this.box.style.height = `${this.box.scrollHeight}px`;
  }
}
