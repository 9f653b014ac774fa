/** Coming in and going out: log in, make an account, change the password, log out. */

import { t } from "../strings.js";
import { ask } from "./ask.js";
import { $ } from "./dom.js";

export class Entrance {
  /** `api` holds `access`: what the server lets people do; see docs/accounts.md. */
  constructor(hub, api) {
    Object.assign(this, { hub, api, dialog: $("#entrance-dialog"), locked: false });
    this.invite = takeInvite();
    // Behind it is nothing to see yet: Esc and the backdrop don't get rid of it.
    this.dialog.addEventListener("close", () => this.locked && this.dialog.showModal());
    $("#entrance-other").addEventListener("click", () => this.#show(this.registering ? "login" : "register"));
    $("#oidc").addEventListener("click", () => location.assign("/api/oidc/start"));
    $("#to-login").addEventListener("click", () => this.#leaveFor("login"));
    $("#to-register").addEventListener("click", () => this.#leaveFor("register"));
    $("#to-password").addEventListener("click", () => this.#password());
    $("#log-out").addEventListener("click", () => this.#logOut());
  }

  /** Nobody gets in without an account: ask for it, until there is one. */
  lock() {
    if (this.locked) return;
    this.locked = true;
    this.#show(this.invite ? "register" : "login");
  }

  /** We are in; who came with an invitation and has no account yet is asked to make one. */
  welcome() {
    this.unlock();
    if (this.invite && this.hub.user?.guest) this.#show("register");
    this.invite = null;
  }

  unlock() {
    this.locked = false;
    if (this.dialog.open) this.dialog.close();
  }

  /** What the dialog of one's name offers beside the name. */
  offer() {
    const { access } = this.api;
    const guest = this.hub.user?.guest ?? true;
    $("#to-login").hidden = !guest || !access?.passwords;
    $("#to-register").hidden = !guest || access?.registration !== "open" || !access?.passwords;
    $("#to-password").hidden = guest || !access?.passwords;
    $("#log-out").hidden = guest;
  }

  #leaveFor(what) {
    $("#name-dialog").close();
    this.#show(what);
  }

  #show(what) {
    const { access } = this.api;
    this.registering = what === "register";
    const words = this.registering ? t.register : t.logIn;
    const open = access?.registration === "open" || Boolean(this.invite);
    $("#entrance-title").textContent = words.title;
    $("#entrance-text").textContent = this.#explained();
    $("#entrance-text").hidden = !$("#entrance-text").textContent;
    $("#entrance-dialog [type=submit]").textContent = words.do;
    $("#entrance-other").textContent = words.other;
    $("#entrance-other").hidden = !open || !access?.passwords;
    $("#entrance-fields").hidden = $("#entrance-dialog [type=submit]").hidden = !access?.passwords;
    for (const field of [$("#entrance-name"), $("#password")]) field.disabled = !access?.passwords;
    $("#oidc").hidden = !access?.oidc;
    $("#oidc").textContent = t.logInWith(access?.oidc ?? "");
    $("#entrance-dialog [data-close]").hidden = this.locked;
    $("#password").autocomplete = this.registering ? "new-password" : "current-password";
    if (this.registering && this.hub.user?.guest) $("#entrance-name").value ||= this.hub.user.name;
    const close = this.dialog.open;
    ask("#entrance-dialog", () => this.#enter(), { open: !close });
    ($("#entrance-name").value ? $("#password") : $("#entrance-name")).focus();
  }

  #explained() {
    if (this.registering) return this.locked ? "" : t.register.keeps;
    return this.locked && this.api.access?.registration === "invite" && !this.invite ? t.logIn.byInvite : "";
  }

  async #enter() {
    const name = $("#entrance-name").value.trim();
    const password = $("#password").value;
    try {
      if (this.registering) await this.api.register(name, password, this.invite ?? undefined);
      else await this.api.logIn(name, password);
    } catch (error) {
      $("#password").select();
      throw error;
    }
    this.locked = false;
    location.reload(); // another person: nothing of what the page knows is theirs
  }

  #password() {
    $("#name-dialog").close();
    for (const id of ["#old-password", "#new-password"]) $(id).value = "";
    ask("#password-dialog", async () => {
      await this.api.changePassword($("#old-password").value, $("#new-password").value);
      this.hub.toast(t.passwordChanged);
    });
  }

  async #logOut() {
    try {
      await this.api.logOut();
      location.assign("/");
    } catch (error) {
      this.hub.toast(error.message);
    }
  }
}

/** An invitation is a key: it is taken out of the address, and the server never sees it there. */
function takeInvite() {
  const [, secret] = /^#register=(.+)$/.exec(location.hash) ?? [];
  if (secret) history.replaceState(history.state, "", location.pathname + location.search);
  return secret ? decodeURIComponent(secret) : null;
}
