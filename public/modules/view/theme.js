/** Light, dark, or as the system says. theme.js at the root sets it before the first paint. */

import { t } from "../strings.js";
import { icon } from "./dom.js";

const KEY = "hubbub.theme";
const ORDER = ["auto", "light", "dark"];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function themeButton(button) {
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.replaceChildren(icon(ICONS[theme]));
    button.setAttribute("aria-label", t.themes[theme]);
    button.title = t.themes[theme];
  };
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(document.documentElement.dataset.theme) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, next);
    } catch {
      // Forbidden storage: the choice lasts as long as the page.
    }
    show(next);
  });
  show(ORDER.includes(document.documentElement.dataset.theme) ? document.documentElement.dataset.theme : "auto");
}
