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

  title(room) {
    const input = $("#title");
    input.value = room.info?.title ?? "";
    ask("#title-dialog", () => this.hub.updateRoom(room, { title: input.value.trim() }));
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
    const form = $("#room-dialog form");
    form.reset();
    $("#new-title").maxLength = this.hub.limits?.title_chars ?? 100;
    this.#presets();
    ask("#room-dialog", async () => {
      const room = await this.hub.createRoom(this.#settings(form));
      if (room.info.visibility === "link" && room.info.invite) this.invite(room);
    });
    $("#new-title").focus();
  }

  /** Only what was chosen: the server knows better defaults than a page. */
  #settings(form) {
    const data = new FormData(form);
    const characters = data.getAll("character");
    const settings = { visibility: data.get("visibility") };
    const title = $("#new-title").value.trim();
    const scenario = $("#scenario").value.trim();
    if (title) settings.title = title;
    if (scenario) settings.scenario = scenario;
    if (characters.length) settings.characters = characters;
    if (characters.length) settings.answer = $("#answer").value;
    return settings;
  }

  /** Presets are an addition: a server without them still makes rooms. */
  async #presets() {
    const [characters, scenarios] = await Promise.all([
      this.hub.api.characters().catch(() => []),
      this.hub.api.scenarios().catch(() => []),
    ]);
    this.scenarios = scenarios;
    $("#cast").replaceChildren(...characters.filter(({ id }) => id).map(choice));
    $("#cast-part").hidden = $("#answer-part").hidden = !characters.length;
    const options = scenarios.map(({ title, name, id }, at) => h("option", { value: at }, title ?? name ?? id));
    const select = $("#scenario-preset");
    select.replaceChildren(h("option", { value: "" }, "–"), ...options);
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

function choice({ id, name, emoji, class: kind, personality }) {
  return h(
    "label",
    { class: "choice" },
    h("input", { type: "checkbox", name: "character", value: id }),
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
function ask(selector, work) {
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
  dialog.showModal();
}
