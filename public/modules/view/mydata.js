/** What is somebody's own: chats brought along, everything taken along. */

import { t } from "../strings.js";
import { $ } from "./dom.js";

export class MyData {
  /** `onImported(id)` with the first room that came in. */
  constructor(hub, api, { onImported }) {
    Object.assign(this, { hub, api, onImported, dialog: $("#import-dialog") });
    this.form = $("form", this.dialog);
    const menu = $("#my-menu");
    menu.addEventListener("click", () => menu.hidePopover());
    menu.addEventListener("beforetoggle", () => place(menu, $("#open-my-menu")));
    $("#import-chats").addEventListener("click", () => this.#open());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#bring();
    });
  }

  #open() {
    this.form.reset();
    this.#complain("");
    this.dialog.showModal();
  }

  async #bring() {
    const [file] = $("#import-file").files;
    this.#busy(true);
    this.#complain("");
    try {
      const { rooms, messages } = await this.api.importChats(file, titleOf(file.name));
      this.dialog.close();
      this.hub.toast(t.imported(rooms.length, messages));
      await this.hub.refreshRooms();
      if (rooms.length) this.onImported(rooms[0].id);
    } catch (error) {
      this.#complain(error.message);
    } finally {
      this.#busy(false);
    }
  }

  #busy(busy) {
    const button = $("[type=submit]", this.form);
    button.disabled = busy;
    button.textContent = busy ? t.importing : t.import;
  }

  #complain(text) {
    const error = $(".error", this.form);
    error.textContent = text;
    error.hidden = !text;
  }
}

/** A chat without a name is called like its file. */
const titleOf = (name) => name.replace(/\.[a-z]+$/i, "");

/** Above the button, since that stands at the bottom. */
function place(menu, button) {
  const { top, left } = button.getBoundingClientRect();
  menu.style.bottom = `${document.documentElement.clientHeight - top + 4}px`;
  menu.style.left = `${Math.max(8, left - 120)}px`;
}
