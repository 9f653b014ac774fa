/** All dialogs. `<dialog>` keeps the focus inside and gives it back when it is closed. */

import { t } from "../strings.js";
import { ask, confirm } from "./ask.js";
import { Cast } from "./cast.js";
import { $, copyText, h } from "./dom.js";

export class Dialogs {
  constructor(hub, editor) {
    this.hub = hub;
    this.cast = new Cast(hub, editor);
    for (const dialog of document.querySelectorAll("dialog")) prepare(dialog);
    $("#scenario-preset").addEventListener("change", () => this.#takeScenario());
  }

  name() {
    const input = $("#name");
    input.maxLength = this.hub.limits?.name_chars ?? 40;
    input.value = this.hub.user?.name ?? "";
    ask("#name-dialog", () => this.hub.rename(input.value.trim()));
    input.select();
  }

  remove(room) {
    const title = room.info?.title || t.untitled;
    confirm(t.deleteRoom(title), t.deleteRoomText, t.delete, () => this.hub.deleteRoom(room));
  }

  invite(room) {
    const url = new URL("/", location.origin);
    url.searchParams.set("room", room.id);
    url.searchParams.set("invite", room.info.invite);
    $("#invite-link").value = url;
    ask("#invite-dialog", async () => {
      await copyText(String(url));
      this.hub.toast(t.inviteCopied);
    });
    $("#invite-link").select();
  }

  async newRoom() {
    this.made = null; // the room, once it is there: a card that fails must not make another
    await this.#fill({ visibility: "link", answer: "all" });
    ask("#room-dialog", async () => {
      const room = (this.made ??= await this.hub.createRoom(this.#settings()));
      await this.cast.addCards(room);
      if (room.info.visibility === "link" && room.info.invite) this.invite(room);
    });
    $("#new-title").focus();
  }

  async changeRoom(room) {
    await this.#fill(room.info, room);
    ask("#room-dialog", async () => {
      await this.hub.updateRoom(room, this.#settings(room.info));
      await this.cast.addCards(room);
    });
    $("#new-title").focus();
  }

  /** Show settings: those of a room, or what a new one begins with. */
  async #fill(info, room = null) {
    const known = info.id !== undefined;
    $("#room-dialog-title").textContent = known ? t.roomSettings : t.newRoom;
    $("#room-dialog .main-button").textContent = known ? t.save : t.createRoom;
    $("#new-title").maxLength = this.hub.limits?.title_chars ?? 100;
    $("#new-title").value = info.title ?? "";
    $("#scenario").maxLength = this.hub.limits?.scenario_chars ?? 8000;
    $("#scenario").value = info.scenario ?? "";
    $("#answer").value = info.answer;
    $(`#room-dialog [name=visibility][value="${info.visibility}"]`).checked = true;
    await this.#presets(room, info.cast ?? []);
  }

  /** Only what was chosen or changed: the server knows better defaults than a page. */
  #settings(before = {}) {
    const data = new FormData($("#room-dialog form"));
    const wanted = {
      title: $("#new-title").value.trim() || undefined,
      scenario: $("#scenario").value.trim(),
      visibility: data.get("visibility"),
      answer: $("#answer").value,
    };
    const settings = {};
    for (const [key, value] of Object.entries(wanted))
      if (value !== undefined && value !== (before[key] ?? "")) settings[key] = value;
    const { characters } = this.cast;
    return characters ? { ...settings, characters } : settings;
  }

  /** Presets are an addition: a server without them still makes rooms. */
  async #presets(room, cast) {
    const [characters, scenarios] = await Promise.all([
      this.hub.api.characters().catch(() => []),
      this.hub.api.scenarios().catch(() => []),
    ]);
    this.scenarios = scenarios;
    this.cast.fill(room, cast, characters.filter(({ id }) => id));
    const options = scenarios.map(({ title, name, id }, at) => h("option", { value: at }, title ?? name ?? id));
    const select = $("#scenario-preset");
    select.replaceChildren(h("option", { value: "" }, t.ownScenario), ...options);
    select.hidden = !scenarios.length;
  }

  #takeScenario() {
    const preset = this.scenarios?.[$("#scenario-preset").value];
    $("#scenario").value = preset?.scenario ?? preset?.text ?? "";
    if (!preset) return;
    if (!$("#new-title").value) $("#new-title").value = preset.title ?? preset.name ?? "";
    const cast = (preset.characters ?? preset.cast ?? []).map((one) => one.id ?? one);
    if (cast.length) this.cast.choose(cast);
    if (preset.answer) $("#answer").value = preset.answer;
  }
}

function prepare(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]"))
    button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    // Beside the form, on the backdrop: but not where much may have been written.
    if (event.target === dialog && dialog.id !== "character-dialog") dialog.close();
  });
}
