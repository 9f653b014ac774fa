/** What a reply took: a line below it that a button shows. */

import { t } from "../strings.js";
import { h, iconButton } from "./dom.js";

export class Took {
  constructor() {
    this.line = h("p", { class: "took", hidden: true });
    this.button = iconButton("info", t.took, () => this.#show(this.line.hidden), {
      "aria-expanded": "false",
    });
    this.update(null);
  }

  /** `usage` is a message's; without it there is nothing to tell. */
  update(usage) {
    this.button.hidden = !usage;
    this.line.textContent = usage ? words(usage).join(" · ") : "";
    if (!usage) this.#show(false);
  }

  #show(open) {
    this.line.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
  }
}

/** What is known of it, each in a few words. */
export function words({ model, input_tokens, output_tokens, seconds_to_first, seconds, cost, cached }) {
  return [
    model,
    cached && t.cached,
    seconds_to_first != null && t.firstText(seconds_to_first),
    seconds != null && t.wholeReply(seconds),
    (input_tokens ?? output_tokens) != null && t.tokens(input_tokens, output_tokens),
    cost != null && t.cost(cost),
  ].filter(Boolean);
}
