/**
 * The cast in a room's settings: presets, characters of the room, new ones, and cards.
 *
 * A card's file is kept until the room is there: then it goes to the server as it is, so that
 * all that only a card knows stays with the character.
 */

import { t } from "../strings.js";
import { fieldsOf } from "./character.js";
import { $, avatar, h, iconButton } from "./dom.js";

export class Cast {
  constructor(hub, editor) {
    Object.assign(this, { hub, editor, entries: [], presets: [] });
    this.list = $("#cast");
    this.note = $("#cast-note");
    this.file = $("#card-file");
    $("#new-character").addEventListener("click", () => this.#create());
    $("#import-card").addEventListener("click", () => this.file.click());
    this.file.addEventListener("change", () => this.#takeFiles(this.file.files));
    this.#acceptDrops($("#cast-part"));
  }

  /** Show the cast of a room (none: a new one), and the presets that are not in it. */
  fill(room, cast, presets) {
    this.room = room;
    this.before = cast;
    this.presets = presets;
    const ids = new Set(cast.map(({ id }) => id));
    this.entries = [
      ...cast.map((character) => ({ character, chosen: true, own: true })),
      ...presets.filter(({ id }) => !ids.has(id)).map((character) => ({ character, chosen: false })),
    ];
    this.#say("");
    this.#render();
  }

  /** Choose those with these ids, and nobody else who is a preset. */
  choose(ids) {
    for (const entry of this.entries)
      if (!entry.file && entry.character.id) entry.chosen = ids.includes(entry.character.id);
    this.#render();
  }

  /** What `characters` should be; undefined if nothing was changed. */
  get characters() {
    const chosen = this.entries.filter(({ chosen, file }) => chosen && !file);
    const same = String(chosen.map(({ character }) => character.id)) === String(this.before.map(({ id }) => id));
    const cards = this.entries.some(({ chosen, file }) => chosen && file);
    if (same && !chosen.some(({ changed }) => changed) && !(cards && !this.room)) return undefined;
    return chosen.map(({ character, changed }) => (changed ? fieldsOf(character) : character.id));
  }

  /** Bring the cards into a room that is there by now. */
  async addCards(room) {
    for (const entry of this.entries.filter(({ chosen, file }) => chosen && file)) {
      const { character: id } = await this.hub.addCard(room, entry.file);
      const changed = entry.changed && { ...fieldsOf(entry.character), id };
      // It is in: should another one fail, a second try must not bring it twice.
      Object.assign(entry, { character: room.info.cast.find((one) => one.id === id), file: null, changed: false });
      this.before = room.info.cast;
      if (!changed) continue;
      const cast = room.info.cast.map((one) => (one.id === id ? changed : one.id));
      await this.hub.updateRoom(room, { characters: cast });
    }
  }

  #render() {
    this.list.replaceChildren(...this.entries.map((entry) => this.#row(entry)));
  }

  #row(entry) {
    const { name, emoji, class: kind, personality } = entry.character;
    const box = h("input", { type: "checkbox", name: "character", value: entry.character.id, checked: entry.chosen });
    box.addEventListener("change", () => (entry.chosen = box.checked));
    const label = h(
      "label",
      { class: "choice" },
      box,
      avatar({ name, emoji, kind: "character" }),
      h("span", { class: "choice-text" }, h("b", {}, name), h("small", {}, kind || personality || "")),
    );
    const edit = entry.own && iconButton("pen", t.editCharacter(name), () => this.#edit(entry));
    return h("div", { class: "cast-row" }, label, edit);
  }

  #create() {
    this.editor.open({}, {
      save: (character) => {
        this.entries.push({ character, chosen: true, own: true, changed: true });
        this.#render();
      },
    });
  }

  #edit(entry) {
    this.editor.open(entry.character, {
      room: this.before.includes(entry.character) ? this.room : null,
      save: (character) => {
        Object.assign(entry, { character, chosen: true, changed: true });
        this.#render();
      },
    });
  }

  #acceptDrops(target) {
    const carries = (event) => event.dataTransfer?.types.includes("Files");
    for (const kind of ["dragenter", "dragover"])
      target.addEventListener(kind, (event) => {
        if (!carries(event)) return;
        event.preventDefault();
        target.classList.add("dropping");
      });
    for (const kind of ["dragleave", "drop"])
      target.addEventListener(kind, () => target.classList.remove("dropping"));
    target.addEventListener("drop", (event) => {
      if (!carries(event)) return;
      event.preventDefault();
      this.#takeFiles(event.dataTransfer.files);
    });
  }

  async #takeFiles(files) {
    const taken = [...files];
    this.file.value = ""; // the same file may be chosen again
    for (const file of taken) {
      try {
        const card = await this.hub.api.lookAtCard(file);
        this.entries.push({ character: card.character, chosen: true, own: true, file });
        this.#render();
        this.#say([t.cardRead(card.character.name), ...card.warnings].join(" "));
        if (card.scenario && !$("#scenario").value) $("#scenario").value = card.scenario;
      } catch (error) {
        this.#say(`${file.name}: ${error.message}`, true);
      }
    }
  }

  #say(text, bad = false) {
    this.note.textContent = text;
    this.note.classList.toggle("bad", bad);
  }
}
