/** The dialog in which a character is written. */

import { t } from "../strings.js";
import { ask } from "./ask.js";
import { $, h, iconButton } from "./dom.js";

const TEXTS = ["name", "emoji", "class", "personality", "backstory", "instructions", "greeting"];
const KEPT = [...TEXTS, "id", "triggers", "talkativeness", "muted", "model"];
const MOST_TRIGGERS = 50; // as docs/protocol.md says

/** What a command takes of a character. */
export function fieldsOf(character) {
  return Object.fromEntries(KEPT.filter((key) => character[key] != null).map((key) => [key, character[key]]));
}

const field = (name) => $(`#character-${name}`);

export class CharacterDialog {
  constructor(hub) {
    this.hub = hub;
    this.triggers = $("#triggers");
    $("#add-trigger").addEventListener("click", () => this.#addTrigger().focus());
    field("talkativeness").addEventListener("input", () => this.#showTalk());
  }

  /** `save(character)` gets it changed; `room` is where it can be had as a card. */
  open(character, { save, room = null }) {
    const { name_chars: nameChars = 40, scenario_chars: textChars = 8000 } = this.hub.limits ?? {};
    $("#character-title").textContent = character.name ? t.editCharacter(character.name) : t.newCharacter;
    for (const key of TEXTS) field(key).value = character[key] ?? "";
    field("name").maxLength = nameChars;
    for (const key of ["personality", "backstory", "instructions", "greeting"]) field(key).maxLength = textChars;
    field("talkativeness").value = Math.round((character.talkativeness ?? 0.5) * 100);
    this.#showTalk();
    this.triggers.replaceChildren();
    for (const trigger of character.triggers ?? []) this.#addTrigger(trigger);
    this.#exports(character, room);
    ask("#character-dialog", () => save(this.#read(character)));
    field("name").focus();
  }

  #read(before) {
    const texts = Object.fromEntries(TEXTS.map((key) => [key, field(key).value.trim()]));
    const triggers = [...this.triggers.children]
      .map((row) => Object.fromEntries(["when", "then"].map((key) => [key, $(`.${key}`, row).value.trim()])))
      .filter(({ when, then }) => when && then);
    return {
      ...before,
      ...texts,
      emoji: texts.emoji || null,
      triggers,
      talkativeness: Number(field("talkativeness").value) / 100,
    };
  }

  #showTalk() {
    const share = Number(field("talkativeness").value);
    field("talkativeness").setAttribute("aria-valuetext", t.talkativeness(share));
    $("#talk-share").textContent = t.talkativeness(share);
  }

  #addTrigger({ when = "", then = "" } = {}) {
    if (this.triggers.children.length >= MOST_TRIGGERS) return $("#add-trigger");
    const first = h("input", { class: "when", "aria-label": t.triggerWhen, placeholder: t.triggerWhenLike, maxlength: 200 });
    const second = h("input", { class: "then", "aria-label": t.triggerThen, placeholder: t.triggerThenLike, maxlength: 2000 });
    first.value = when;
    second.value = then;
    const remove = iconButton("close", t.triggerRemove, () => {
      row.remove();
      $("#add-trigger").focus();
    });
    const row = h("li", { class: "trigger" }, first, second, remove);
    this.triggers.append(row);
    return first;
  }

  #exports({ id }, room) {
    $("#character-export").hidden = !room || !id;
    if (!room) return;
    const address = `/api/rooms/${encodeURIComponent(room.id)}/characters/${encodeURIComponent(id)}/card`;
    for (const format of ["png", "json"]) $(`#card-${format}`).href = `${address}?format=${format}`;
  }
}
