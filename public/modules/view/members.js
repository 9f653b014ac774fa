/** Head of the room, and who is in it. */

import { busy } from "../state.js";
import { t } from "../strings.js";
import { $, avatar, h, icon } from "./dom.js";
import { modelOf } from "./models.js";

const SIGNS = { private: "lock", link: "link", public: "globe" };

export class Members {
  constructor(hub, menu) {
    Object.assign(this, { hub, menu });
    this.panel = $("#member-list");
    this.now = $("#now");
  }

  render() {
    const { here: room, llm } = this.hub;
    const members = [...room.members.values()];
    const people = members.filter(({ kind }) => kind === "human").sort(byName);
    const cast = members.filter(({ kind }) => kind === "character");
    this.panel.replaceChildren(
      ...this.#section(t.people, people),
      ...this.#section(t.characters, cast),
      ...(cast.length > 1 ? [h("p", { class: "about" }, t.answers[room.info?.answer] ?? "")] : []),
      ...(room.info?.scenario
        ? [h("h3", {}, t.scenario), h("p", { class: "about" }, room.info.scenario)]
        : []),
      ...(llm && !llm.demo ? [h("p", { class: "model" }, t.answeredBy(modelOf(room, llm)))] : []),
    );
    this.menu.render();
    this.#head(room, people.length);
  }

  #head(room, count) {
    const { info } = room;
    const visibility = info?.visibility ?? "public";
    $("#room-title").textContent = info?.title ?? "";
    $("#room-sub").replaceChildren(
      ...(info ? [icon(SIGNS[visibility]), h("span", {}, `${t[visibility]} · ${t.peopleHere(count)}`)] : []),
    );
    const own = info?.owner && info.owner === this.hub.user?.id;
    $("#invite").hidden = !(info?.visibility === "link" && info.invite);
    for (const id of ["#room-settings", "#archive-room", "#delete-room"]) $(id).hidden = !own;
  }

  #section(title, members) {
    if (!members.length) return [];
    return [
      h("h3", {}, title, h("span", { class: "number" }, String(members.length))),
      h("ul", {}, ...members.map((member) => this.#row(member))),
    ];
  }

  #row(member) {
    const own = member.id === this.hub.user?.id;
    return h(
      "li",
      { class: "member", "data-member": member.id },
      avatar(member),
      h("span", { class: "member-name" }, member.name),
      own && h("span", { class: "tag you" }, t.you),
      this.#muted(member) && h("span", { class: "tag" }, t.muted),
      this.menu.button(member),
    );
  }

  #muted({ id }) {
    return this.hub.here.info?.cast?.find((one) => one.id === id)?.muted;
  }

  /** The line over the composer: who is typing, what is being waited for. */
  renderNow() {
    const { here: room, user } = this.hub;
    const names = [...room.typing.values()]
      .map(({ member }) => member)
      .filter(({ id }) => id !== user?.id)
      .map(({ name }) => name);
    const waiting = busy(room) && room.turn && !running(room) ? turnText(room.turn) : "";
    const text = names.length ? t.typing(names) : waiting;
    this.now.classList.toggle("active", Boolean(text));
    if ($("span", this.now).textContent !== text) $("span", this.now).textContent = text;
  }
}

const turnText = ({ state, position }) => (state === "queued" ? t.queued(position) : t.thinking);

const running = (room) =>
  room.order.slice(-10).some((id) => {
    const { status, text } = room.messages.get(id);
    return status === "running" && text;
  });

const byName = (a, b) => a.name.localeCompare(b.name);
