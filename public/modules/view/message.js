/** One message as an element, and what can be done with it. */

import { t } from "../strings.js";
import { avatar, copyText, h, icon, iconButton, timeOf } from "./dom.js";
import { Streaming } from "./streaming.js";
import { Took } from "./took.js";

export class MessageView {
  /** `actions`: regenerate(message), goOn(message), toast(text), written(). */
  constructor(message, { me, to, actions }) {
    Object.assign(this, { message, me, to, actions, stream: null, swipe: 0 });
    this.element = h("li", { class: "message", id: `m-${message.id}`, tabindex: "-1" });
    this.render();
  }

  /** Build everything anew, from what the message is now. */
  render() {
    const { message, element } = this;
    const { author, status } = message;
    this.stream?.end();
    this.stream = null;
    this.swipe = message.swipes?.length ?? 0;
    element.className = ["message", author.kind, status, this.#own && "own"].filter(Boolean).join(" ");
    element.classList.toggle("whisper", message.private);
    this.body = h("div", { class: "body", dir: "auto" });
    this.foot = h("div", { class: "foot" });
    this.took = new Took();
    element.replaceChildren(
      ...element.querySelectorAll(":scope > .divider"),
      avatar(author),
      h("div", { class: "content" }, this.#head(), this.body, this.foot),
    );
    element.append(this.#tools());
    this.#fill();
  }

  get #own() {
    return this.message.author.id === this.me;
  }

  #head() {
    const { author, at, demo, private: whisper } = this.message;
    return h(
      "div",
      { class: "head" },
      h("span", { class: "name" }, author.name),
      this.#own && h("span", { class: "tag you" }, t.you),
      author.kind === "character" && h("span", { class: "tag" }, t.ai),
      demo && h("span", { class: "tag demo" }, t.demoBadge),
      whisper && h("span", { class: "tag whisper-tag" }, icon("lock"), t.onlyYou),
      this.to && h("span", { class: "to" }, t.replyTo(this.to)),
      timeOf(at),
    );
  }

  #fill() {
    const { message } = this;
    if (message.status === "running") this.#startStream();
    else this.#showText();
    this.took.update(message.usage);
    this.foot.replaceChildren(...this.#footing());
    if (message.usage) this.foot.append(this.took.line);
  }

  #startStream() {
    this.element.setAttribute("aria-busy", "true");
    this.stream = new Streaming(this.body, this.message.text, { written: this.actions.written });
  }

  /** `html` was made safe by the server; without it the text is shown as it is. */
  #showText() {
    this.element.removeAttribute("aria-busy");
    const { html, text } = this.message;
    this.body.classList.toggle("plain", !html);
    if (html) {
      this.body.innerHTML = html;
      dress(this.body, this.actions.toast);
    } else this.body.textContent = text;
  }

  append(text) {
    this.stream?.push(text);
  }

  /** The reply has ended: what was shown as plain text gets its form. */
  end() {
    this.stream?.end();
    this.stream = null;
    this.element.classList.remove("running");
    this.element.classList.add(this.message.status);
    this.#fill();
  }

  #footing() {
    const { status, error } = this.message;
    if (status === "failed") return [h("p", { class: "error" }, icon("alert"), error || t.failed), ...this.#again()];
    if (status === "interrupted") return [h("span", { class: "mark" }, t.interrupted), ...this.#again()];
    if (status === "stopped") return [h("span", { class: "mark" }, t.stopped), ...this.#again()];
    return [
      this.message.swipes?.length && this.#swipes(),
      this.message.usage?.cached && h("span", { class: "mark cached" }, t.cached),
    ].filter(Boolean);
  }

  /** What broke off goes on, where there is something to go on with, or is made anew. */
  #again() {
    const button = (sign, label, act) =>
      h("button", { type: "button", class: "small-button again", onclick: () => act(this.message) }, icon(sign), label);
    const { regenerate, goOn } = this.actions;
    if (!this.message.text.trim()) return [button("redo", t.tryAgain, regenerate)];
    return [button("play", t.goOn, goOn), button("redo", t.redo, regenerate)];
  }

  /** Earlier texts of this reply, to leaf through. */
  #swipes() {
    const all = this.message.swipes;
    const show = (at) => {
      this.swipe = Math.max(0, Math.min(all.length, at));
      if (this.swipe === all.length) this.#showText();
      else {
        this.body.classList.add("plain");
        this.body.textContent = all[this.swipe];
      }
      count.textContent = `${this.swipe + 1} / ${all.length + 1}`;
    };
    const count = h("span", { "aria-live": "polite" }, `${all.length + 1} / ${all.length + 1}`);
    return h(
      "div",
      { class: "swipes" },
      iconButton("back", t.earlier, () => show(this.swipe - 1)),
      count,
      iconButton("forward", t.later, () => show(this.swipe + 1)),
    );
  }

  #tools() {
    const { author } = this.message;
    const copy = iconButton("copy", t.copy, () => copied(copy, this.message.text, this.actions.toast));
    const again = iconButton("redo", t.regenerate, () => this.actions.regenerate(this.message), {
      class: "icon-button again-tool",
    });
    return h("div", { class: "tools" }, author.kind === "character" && again, this.took.button, copy);
  }
}

/** What the server's HTML gets from the page: copying of code, safe links, tables that scroll. */
export function dress(body, toast) {
  for (const pre of body.querySelectorAll("pre")) {
    const button = iconButton("copy", t.copy, () => copied(button, pre.innerText, toast));
    const frame = h("div", { class: "code" });
    pre.replaceWith(frame);
    pre.setAttribute("tabindex", "0");
    frame.append(pre, button);
  }
  for (const link of body.querySelectorAll("a[href]")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of body.querySelectorAll("table")) {
    const frame = h("div", { class: "wide", tabindex: "0" });
    table.replaceWith(frame);
    frame.append(table);
  }
}

async function copied(button, text, toast) {
  try {
    await copyText(text);
  } catch {
    return toast(t.copyFailed);
  }
  button.replaceChildren(icon("check"));
  button.setAttribute("aria-label", t.copied);
  setTimeout(() => {
    button.replaceChildren(icon("copy"));
    button.setAttribute("aria-label", t.copy);
  }, 1_500);
}

/** A prompt that is on its way, or could not be sent. */
export function pendingView(item, user, { retry, discard }) {
  const state = item.error
    ? h(
        "div",
        { class: "foot" },
        h("p", { class: "error" }, icon("alert"), `${t.notSent} ${item.error}`),
        h("button", { type: "button", class: "small-button", onclick: () => retry(item) }, t.sendAgain),
        h("button", { type: "button", class: "small-button", onclick: () => discard(item) }, t.discard),
      )
    : h("div", { class: "foot" }, h("span", { class: "mark sending" }, t.sending));
  const whisper = item.reply === "me" && h("span", { class: "tag whisper-tag" }, icon("lock"), t.onlyYou);
  return h(
    "li",
    { class: `message human own pending${whisper ? " whisper" : ""}`, "data-txn": item.txn },
    avatar({ name: user.name, kind: "human" }),
    h(
      "div",
      { class: "content" },
      h("div", { class: "head" }, h("span", { class: "name" }, user.name), h("span", { class: "tag you" }, t.you), whisper),
      h("div", { class: "body plain", dir: "auto" }, item.text),
      state,
    ),
  );
}
