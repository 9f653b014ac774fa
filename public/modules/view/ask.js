/** Opening dialogs that ask for something. */

import { $ } from "./dom.js";

/** Open a dialog. It closes when its work is done, and says why when it can't be. */
export function ask(selector, work, { open = true } = {}) {
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
  if (open) dialog.showModal();
}

export function confirm(title, text, label, work) {
  $("#confirm-title").textContent = title;
  $("#confirm-text").textContent = text;
  $("#confirm-dialog .main-button").textContent = label;
  ask("#confirm-dialog", work);
}
