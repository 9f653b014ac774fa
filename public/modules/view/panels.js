/**
 * The two side panels. On a wide screen they stand beside the room; on a narrow one they are
 * drawers over it, one at a time.
 */

import { $ } from "./dom.js";

const NARROW = matchMedia("(max-width: 859px)"); // as in styles.css
const MEDIUM = matchMedia("(max-width: 1159px)");
const KEY = "hubbub.members";

export class Panels {
  constructor(memory) {
    this.memory = memory;
    this.app = $("#app");
    $("#open-sidebar").addEventListener("click", () => this.#open("sidebar"));
    $("#close-sidebar").addEventListener("click", () => this.closeAll());
    $("#open-members").addEventListener("click", () => this.#toggleMembers());
    $("#close-members").addEventListener("click", () => this.#hideMembers());
    $("#shade").addEventListener("click", () => this.closeAll());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.app.dataset.drawer) this.closeAll();
    });
    for (const query of [NARROW, MEDIUM]) query.addEventListener("change", () => this.closeAll());
    this.app.classList.toggle("with-members", this.#wanted());
    this.#settle();
  }

  /** Close the drawers; what stands beside the room stays. */
  closeAll() {
    const drawer = this.app.dataset.drawer;
    delete this.app.dataset.drawer;
    this.#settle();
    if (drawer) $(`#open-${drawer}`).focus();
  }

  #open(drawer) {
    this.app.dataset.drawer = drawer;
    this.#settle();
    $(`#close-${drawer}`).focus();
  }

  #toggleMembers() {
    if (MEDIUM.matches) return this.app.dataset.drawer ? this.closeAll() : this.#open("members");
    this.#remember(this.app.classList.toggle("with-members"));
    this.#settle();
  }

  #hideMembers() {
    if (!MEDIUM.matches) this.#remember(this.app.classList.toggle("with-members", false));
    this.closeAll();
    $("#open-members").focus();
  }

  /** What can't be seen can't be reached by keyboard either. */
  #settle() {
    const { drawer } = this.app.dataset;
    const sidebar = !NARROW.matches || drawer === "sidebar";
    const members = drawer === "members" || (!MEDIUM.matches && this.app.classList.contains("with-members"));
    $("#sidebar").inert = !sidebar;
    $("#members").inert = !members;
    $("#room").inert = Boolean(drawer);
    $("#open-sidebar").setAttribute("aria-expanded", String(sidebar));
    $("#open-members").setAttribute("aria-expanded", String(members));
  }

  #wanted() {
    try {
      return this.memory.getItem(KEY) !== "no";
    } catch {
      return true;
    }
  }

  #remember(shown) {
    try {
      this.memory.setItem(KEY, shown ? "yes" : "no");
    } catch {
      // Forbidden storage: it lasts as long as the page.
    }
  }
}
