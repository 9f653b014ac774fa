/** All dialogs. `<dialog>` keeps the focus inside and gives it back when it is closed. */

import { t } from "../strings.js";
import { $, avatar, copyText, h } from "./dom.js";

export class Dialogs {
  constructor(hub) {
    this.hub = hub;
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
    await this.#fill({ visibility: "link", answer: "all" });
    ask("#room-dialog", async () => {
      const room = await this.hub.createRoom(this.#settings());
      if (room.info.visibility === "link" && room.info.invite) this.invite(room);
    });
    $("#new-title").focus();
  }

  async changeRoom(room) {
    await this.#fill(room.info);
    ask("#room-dialog", () => this.hub.updateRoom(room, this.#settings(room.info)));
    $("#new-title").focus();
  }

  /** Show settings: those of a room, or what a new one begins with. */
  async #fill(info) {
    const known = info.id !== undefined;
    $("#room-dialog-title").textContent = known ? t.roomSettings : t.newRoom;
    $("#room-dialog .main-button").textContent = known ? t.save : t.createRoom;
    $("#new-title").maxLength = this.hub.limits?.title_chars ?? 100;
    $("#new-title").value = info.title ?? "";
    $("#scenario").maxLength = this.hub.limits?.scenario_chars ?? 8000;
    $("#scenario").value = info.scenario ?? "";
    $("#answer").value = info.answer;
    $(`#room-dialog [name=visibility][value="${info.visibility}"]`).checked = true;
    await this.#presets(info.cast ?? []);
  }

  /** Only what was chosen or changed: the server knows better defaults than a page. */
  #settings(before = {}) {
    const data = new FormData($("#room-dialog form"));
    const chosen = data.getAll("character");
    const cast = (before.cast ?? []).map(({ id }) => id);
    const wanted = {
      title: $("#new-title").value.trim() || undefined,
      scenario: $("#scenario").value.trim(),
      visibility: data.get("visibility"),
      answer: $("#answer").value,
    };
    const settings = {};
    for (const [key, value] of Object.entries(wanted))
      if (value !== undefined && value !== (before[key] ?? "")) settings[key] = value;
    if (String(chosen) !== String(cast))
      settings.characters = chosen.map((id) => this.#character(id, before.cast));
    return settings;
  }

  /** A preset goes by its id; one of the room's own goes as it is, in what a command takes. */
  #character(id, cast = []) {
    const own = cast.find((one) => one.id === id);
    if (!own || this.characters.some((preset) => preset.id === id)) return id;
    return Object.fromEntries(OWN.filter((key) => own[key] != null).map((key) => [key, own[key]]));
  }

  /** Presets are an addition: a server without them still makes rooms. */
  async #presets(cast) {
    const [characters, scenarios] = await Promise.all([
      this.hub.api.characters().catch(() => []),
      this.hub.api.scenarios().catch(() => []),
    ]);
    this.scenarios = scenarios;
    this.characters = characters.filter(({ id }) => id);
    const ids = new Set(cast.map(({ id }) => id));
    const all = [...cast, ...this.characters.filter(({ id }) => !ids.has(id))];
    $("#cast").replaceChildren(...all.map((one) => choice(one, ids.has(one.id))));
    $("#cast-part").hidden = $("#answer-part").hidden = !all.length;
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
    for (const box of $("#cast").querySelectorAll("input"))
      if (cast.length) box.checked = cast.includes(box.value);
    if (preset.answer) $("#answer").value = preset.answer;
  }
}

/** What `update_room` takes of a character that is no preset. */
const OWN = ["id", "name", "class", "emoji", "personality", "backstory", "instructions", "greeting", "talkativeness", "muted", "model"];

function choice({ id, name, emoji, class: kind, personality }, checked) {
  return h(
    "label",
    { class: "choice" },
    h("input", { type: "checkbox", name: "character", value: id, checked }),
    avatar({ name, emoji, kind: "character" }),
    h("span", {}, h("b", {}, name), h("small", {}, kind || personality || "")),
  );
}

function prepare(dialog) {
  for (const button of dialog.querySelectorAll("[data-close]"))
    button.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the form: on the backdrop
  });
}

function confirm(title, text, label, work) {
  $("#confirm-title").textContent = title;
  $("#confirm-text").textContent = text;
  $("#confirm-dialog .main-button").textContent = label;
  ask("#confirm-dialog", work);
}

/** Open a dialog. It closes when its work is done, and says why when it can't be. */
export function ask(selector, work, { open = true } = {}) {
  const dialog = $(selector);
  const form = $("form", dialog);
  const error = $(".error", dialog);
  const button = $("[type=submit]", dialog);
  const complain = (text) => error && ((error.textContent = text), (error.hidden = !text));
  complain("");
  form.onsubmit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await work();
      dialog.close();
    } catch (problem) {
      complain(problem.message);
    } finally {
      button.disabled = false;
    }
  };
  if (open) dialog.showModal();
}
