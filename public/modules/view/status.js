/** What goes on with the connection, and short notes. */

import { t } from "../strings.js";
import { $, h, icon } from "./dom.js";
import { modelOf } from "./models.js";

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
    setText($("#connection-text"), text);
    // The seconds are for the eye: read out is only that it went, and that it is back.
    setText($("#connection-said"), this.#said(text));
    const button = $("#retry");
    button.hidden = !action;
    button.textContent = action;
    this.#demo();
  }

  #words() {
    const { line, updated } = this.hub;
    if (line.name === "open") return updated ? [t.newVersion, t.reload] : ["", ""];
    if (line.name === "locked") return ["", ""];
    if (line.name === "ended") return [line.reason, t.reload];
    if (line.name === "waiting") {
      const seconds = Math.ceil((line.at - Date.now()) / 1000);
      return [line.first ? t.noServer(seconds) : t.lostRetrying(seconds), t.now];
    }
    if (line.first) return performance.now() - this.since > SHORT ? [t.connecting, ""] : ["", ""];
    return [t.connecting, ""];
  }

  #said(text) {
    const { name, first } = this.hub.line;
    if (name === "open" || name === "ended" || first) return text;
    return t.lost;
  }

  #demo() {
    const { llm, here } = this.hub;
    $("#demo").hidden = !llm?.demo || modelOf(here, llm) !== llm.model;
  }

  toast(text) {
    const note = h("div", { class: "toast" }, icon("info"), h("span", {}, text));
    this.notes.append(note);
    while (this.notes.childElementCount > 3) this.notes.firstElementChild.remove();
    setTimeout(() => note.remove(), NOTE);
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
