/** What goes on with the connection, and short notes. */

import { t } from "../strings.js";
import { $, h, icon } from "./dom.js";

const SHORT = 1_500; // ms a first attempt may take before it is worth a word
const NOTE = 6_000; // ms a note stays

export class Status {
  constructor(hub) {
    Object.assign(this, { hub, bar: $("#connection"), notes: $("#toasts") });
    $("#retry").addEventListener("click", () => {
      if (hub.line.name === "ended" || hub.updated) location.reload();
      else hub.connection.nudge();
    });
    setInterval(() => this.render(), 1_000);
    this.since = performance.now();
  }

  render() {
    const [text, action] = this.#words();
    this.bar.hidden = !text;
    document.body.classList.toggle("offline", this.hub.line.name !== "open");
    // Only what changed is read out; the seconds are for the eye.
    const shown = $("#connection-text");
    if (shown.textContent !== text) shown.textContent = text;
    const button = $("#retry");
    button.hidden = !action;
    button.textContent = action;
    this.#demo();
  }

  #words() {
    const { line, updated } = this.hub;
    if (line.name === "open") return updated ? [t.newVersion, t.reload] : ["", ""];
    if (line.name === "ended") return [line.reason, t.reload];
    if (line.name === "waiting") {
      const seconds = Math.ceil((line.at - Date.now()) / 1000);
      return [line.first ? t.noServer(seconds) : t.lostRetrying(seconds), t.now];
    }
    if (line.first) return performance.now() - this.since > SHORT ? [t.connecting, ""] : ["", ""];
    return [t.connecting, ""];
  }

  #demo() {
    $("#demo").hidden = !this.hub.llm?.demo;
  }

  toast(text) {
    const note = h("div", { class: "toast" }, icon("info"), h("span", {}, text));
    this.notes.append(note);
    while (this.notes.childElementCount > 3) this.notes.firstElementChild.remove();
    setTimeout(() => note.remove(), NOTE);
  }
}
