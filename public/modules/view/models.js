/** Which model answers in a room: a menu in its head, and `/model` in the composer. */

import { t } from "../strings.js";
import { $, h } from "./dom.js";

/** What a `<select>` offers: the usual model first, whose value is empty, then all of them. */
export function modelOptions(llm, picked) {
  const names = llm?.models ?? [];
  const chosen = names.includes(picked) ? picked : "";
  const option = (value, text) => h("option", { value, selected: value === chosen }, text);
  return [option("", t.usualModel(llm?.model ?? "")), ...names.map((name) => option(name, name))];
}

/** The name of the model that answers in a room. */
export function modelOf(room, llm) {
  const picked = room.info?.model;
  return llm?.models?.includes(picked) ? picked : (llm?.model ?? llm?.provider);
}

export class Models {
  constructor(hub) {
    Object.assign(this, { hub, part: $("#model-part"), menu: $("#model") });
    this.menu.addEventListener("change", () => this.#pick(this.menu.value || null));
  }

  render() {
    const { here: room, llm } = this.hub;
    this.part.hidden = !room.info || (llm?.models?.length ?? 0) < 2;
    if (this.part.hidden) return;
    const shown = JSON.stringify([llm.models, llm.model, room.info.model]);
    if (shown !== this.shown) this.menu.replaceChildren(...modelOptions(llm, room.info.model));
    this.shown = shown;
    this.menu.disabled = !this.#mayPick(room);
  }

  /** Take a text that is a command: `/model NAME`, or `/model` alone. False if it is none. */
  command(text) {
    const [, name] = /^\/model(?:\s+(.*))?$/s.exec(text) ?? [, null];
    if (name === null) return false;
    if (name) this.#pick(name.trim());
    else this.hub.toast(t.models(modelOf(this.hub.here, this.hub.llm), this.hub.llm?.models ?? []));
    return true;
  }

  #mayPick({ info }) {
    const { user } = this.hub;
    return Boolean(user) && (info.owner === user.id || ["moderator", "admin"].includes(user.role));
  }

  async #pick(model) {
    const room = this.hub.here;
    try {
      await this.hub.updateRoom(room, { model });
      this.hub.toast(t.modelPicked(modelOf(room, this.hub.llm)));
    } catch (error) {
      this.shown = ""; // the menu shows what was asked for, and that is not so
      this.hub.toast(error.message);
    }
    this.render();
  }
}
