/** Completion of @names while typing: a listbox that the text box controls. */

import { $, avatar, h } from "./dom.js";

const SHOWN = 6;

export class Mentions {
  /** `candidates()` returns the members that can be addressed. */
  constructor(box, candidates) {
    Object.assign(this, { box, candidates, list: $("#mentions"), found: [], at: 0 });
    box.addEventListener("input", () => this.#look());
    box.addEventListener("blur", () => this.close());
    box.addEventListener("click", () => this.#look());
  }

  get open() {
    return !this.list.hidden;
  }

  /** True if the key was for the list. */
  key(event) {
    if (!this.open) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) this.#select((this.at + step + this.found.length) % this.found.length);
    else if (event.key === "Enter" || event.key === "Tab") this.#take(this.found[this.at]);
    else if (event.key === "Escape") this.close();
    else return false;
    event.preventDefault();
    return true;
  }

  close() {
    this.list.hidden = true;
    this.box.removeAttribute("aria-activedescendant");
  }

  #look() {
    const typed = this.#typed();
    if (typed === null) return this.close();
    const wanted = typed.toLocaleLowerCase();
    this.found = this.candidates()
      .filter(({ name }) => name.toLocaleLowerCase().startsWith(wanted) && name !== typed)
      .slice(0, SHOWN);
    if (!this.found.length) return this.close();
    this.list.replaceChildren(...this.found.map((member, at) => this.#option(member, at)));
    this.list.hidden = false;
    this.#select(0);
  }

  /** What stands between an @ and the caret, or null. Names may hold spaces, but not many. */
  #typed() {
    const before = this.box.value.slice(0, this.box.selectionStart);
    return /(?:^|[\s(])@([^@\n]{0,40})$/u.exec(before)?.[1] ?? null;
  }

  #option(member, at) {
    return h(
      "li",
      {
        role: "option",
        id: `mention-${at}`,
        // Before blur, which would close the list.
        onpointerdown: (event) => {
          event.preventDefault();
          this.#take(member);
        },
      },
      avatar(member),
      member.name,
    );
  }

  #select(at) {
    this.at = at;
    [...this.list.children].forEach((option, index) =>
      option.setAttribute("aria-selected", String(index === at)),
    );
    this.box.setAttribute("aria-activedescendant", `mention-${at}`);
  }

  #take({ name }) {
    const caret = this.box.selectionStart;
    this.box.setRangeText(`@${name} `, caret - this.#typed().length - 1, caret, "end");
    this.close();
    this.box.dispatchEvent(new Event("input", { bubbles: true }));
  }
}

/** Names of the members that a text addresses; the longest name wins where two would do. */
export function mentioned(text, members) {
  const names = members.map(({ name }) => name).sort((a, b) => b.length - a.length);
  const found = new Set();
  let rest = text;
  for (const name of names) {
    const pattern = new RegExp(`(^|[\\s(])@${escape(name)}(?![\\p{L}\\p{N}_])`, "giu");
    if (!pattern.test(rest)) continue;
    found.add(name);
    rest = rest.replace(pattern, "$1");
  }
  return members.map(({ name }) => name).filter((name) => found.has(name));
}

const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
