/** What can be done with somebody in a room: a menu beside each name, and the talk among characters. */

import { t } from "../strings.js";
import { confirm } from "./ask.js";
import { fieldsOf } from "./character.js";
import { $, h, iconButton } from "./dom.js";

const WATCHERS = ["moderator", "admin"]; // roles that look after others' rooms

export class MemberMenu {
  constructor(hub, editor) {
    Object.assign(this, { hub, editor });
    this.menu = $("#member-menu");
    this.menu.addEventListener("click", () => this.menu.hidePopover());
    $("#talk").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(() => hub.talk(hub.here, Number($("#talk-turns").value)));
    });
  }

  /** The button that opens the menu of a member; null where there is nothing to do. */
  button(member) {
    if (!this.#acts(member).length) return null;
    const button = iconButton("more", t.actionsFor(member.name), () => this.#fill(member, button), {
      class: "icon-button member-more",
      popovertarget: "member-menu",
    });
    return button;
  }

  /** Show whether the characters can talk among themselves. */
  render() {
    const { info } = this.hub.here;
    const able = (info?.cast ?? []).filter(({ muted }) => !muted);
    $("#talk").hidden = able.length < 2 || info.active === false;
    $("#talk-turns").max = this.hub.limits?.self_talk ?? 20;
  }

  #fill(member, button) {
    const acts = this.#acts(member).map(([label, work, kind]) =>
      h("button", { type: "button", class: kind, onclick: () => this.#try(work) }, label),
    );
    this.menu.replaceChildren(...acts);
    const { bottom, right, top } = button.getBoundingClientRect();
    const height = acts.length * 44 + 16;
    this.menu.style.top = `${bottom + height < innerHeight ? bottom + 2 : Math.max(8, top - height)}px`;
    this.menu.style.right = `${document.documentElement.clientWidth - right}px`;
  }

  get #rules() {
    const { here, user } = this.hub;
    return Boolean(here.info) && (here.info.owner === user?.id || WATCHERS.includes(user?.role));
  }

  #acts(member) {
    return member.kind === "character" ? this.#actsOfCharacter(member) : this.#actsOfPerson(member);
  }

  #actsOfCharacter({ id, name }) {
    const { hub } = this;
    const room = hub.here;
    const character = room.info?.cast?.find((one) => one.id === id);
    if (!character || room.info.active === false) return [];
    const acts = [[t.speakNow, () => hub.speak(room, id)]];
    if (room.info.owner || WATCHERS.includes(hub.user?.role)) {
      const { muted = false } = character;
      acts.push([muted ? t.unmute : t.mute, () => hub.mute(room, id, !muted)]);
    }
    if (this.#rules) acts.push([`${t.editCharacter(name)}…`, () => this.#edit(room, character)]);
    return acts;
  }

  #edit(room, character) {
    this.editor.open(character, {
      room,
      save: (changed) => {
        const cast = room.info.cast.map(({ id }) => (id === changed.id ? fieldsOf(changed) : id));
        return this.hub.updateRoom(room, { characters: cast });
      },
    });
  }

  #actsOfPerson({ id, name }) {
    const { hub } = this;
    const room = hub.here;
    if (!this.#rules || id === hub.user?.id || id === room.info.owner) return [];
    const acts = [[t.banNow, () => confirm(t.banQuestion(name), t.banText, t.banNow, () => hub.ban(room, id)), "danger"]];
    // Where anybody may come in, who is sent out is back at once.
    if (room.info.visibility !== "public") acts.unshift([t.kickNow, () => hub.kick(room, id)]);
    return acts;
  }

  async #try(work) {
    try {
      await work();
    } catch (error) {
      this.hub.toast(error.message);
    }
  }
}
