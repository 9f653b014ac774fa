/** Text that grows while it is read. */

import { nextFrame } from "./dom.js";

/**
 * Appends text to an element, once a frame. Each line is a block of its own, so that the
 * browser lays out the last line again and not the whole text: the cost of a token does not
 * depend on how much there is already.
 */
export class Streaming {
  constructor(element, text = "", { written = () => {} } = {}) {
    Object.assign(this, { element, written, waiting: "", line: null });
    this.flush = this.flush.bind(this);
    element.replaceChildren();
    element.classList.add("streaming");
    this.push(text);
    this.flush();
  }

  push(text) {
    if (!text) return;
    this.waiting += text;
    nextFrame(this.flush);
  }

  flush() {
    if (!this.waiting || !this.element) return;
    const [rest, ...lines] = this.waiting.split("\n");
    this.waiting = "";
    if (rest) (this.line ?? this.#newLine()).append(rest);
    for (const line of lines) this.#newLine().append(line);
    this.written();
  }

  /** Nothing is written any more; the element is somebody else's now. */
  end() {
    this.element.classList.remove("streaming");
    this.element = null;
    this.waiting = "";
  }

  #newLine() {
    this.line = document.createElement("div");
    this.element.append(this.line);
    return this.line;
  }
}
