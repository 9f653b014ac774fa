/** The list of rooms, and who we are. */

import { t } from "../strings.js";
import { $, avatar, h, icon, nextFrame } from "./dom.js";

const SIGNS = { lobby: "home", private: "lock", link: "link", public: "globe" };

export class Sidebar {
  /** `onOpen(id)` when a room is chosen. */
  constructor(hub, { onOpen }) {
    Object.assign(this, { hub, onOpen, nav: $("#rooms") });
    this.render = this.render.bind(this);
  }

  refresh() {
    nextFrame(this.render);
  }

  render() {
    const { hub } = this;
    const all = [...new Set([...hub.listed, ...hub.archived])].map((id) => hub.room(id));
    const known = all.filter((room) => room.info);
    const rooms = known.filter(({ info }) => !info.archived);
    const lobby = rooms.filter(({ id }) => id === "lobby");
    const rest = rooms.filter(({ id }) => id !== "lobby");
    const mine = rest.filter((room) => this.#mine(room));
    const open = rest.filter((room) => !this.#mine(room));
    const focused = document.activeElement?.dataset?.room;
    this.nav.replaceChildren(
      ...this.#section(null, lobby),
      ...this.#section(t.yourRooms, mine),
      ...this.#section(t.publicRooms, open),
      ...this.#fold(known.filter(({ info }) => info.archived)),
    );
    if (focused) $(`[data-room="${CSS.escape(focused)}"]`, this.nav)?.focus();
    this.#me();
    this.#title(rooms);
  }

  #mine({ info }) {
    return info.visibility !== "public" || info.owner === this.hub.user?.id;
  }

  #section(title, rooms) {
    if (!rooms.length) return [];
    const list = h("ul", {}, ...rooms.map((room) => this.#row(room)));
    return title ? [h("h2", {}, title), list] : [list];
  }

  /** The archive: closed until somebody looks into it, or is in one of its rooms. */
  #fold(rooms) {
    if (!rooms.length) return [];
    const open = this.unfolded ?? rooms.some(({ id }) => id === this.hub.current);
    const fold = h(
      "details",
      { class: "fold", open },
      h("summary", {}, `${t.archivedRooms} (${rooms.length})`),
      h("ul", {}, ...rooms.map((room) => this.#row(room))),
    );
    fold.firstChild.addEventListener("click", () => (this.unfolded = !fold.open));
    return [fold];
  }

  #row(room) {
    const { id, info } = room;
    const here = id === this.hub.current;
    const count = this.hub.unread(room);
    const title = info.title || t.untitled;
    return h(
      "li",
      {},
      h(
        "a",
        {
          href: `?room=${encodeURIComponent(id)}`,
          class: count ? "room-link unread" : "room-link",
          "aria-current": here && "page",
          "aria-label": t.unreadIn(title, count),
          "data-room": id,
          onclick: (event) => {
            if (event.metaKey || event.ctrlKey || event.shiftKey) return;
            event.preventDefault();
            this.onOpen(id);
          },
        },
        icon(SIGNS[id] ?? SIGNS[info.visibility] ?? "globe"),
        h("span", { class: "room-title" }, title),
        count > 0 && h("span", { class: "count", "aria-hidden": "true" }, count > 99 ? "99+" : String(count)),
      ),
    );
  }

  #me() {
    const { user } = this.hub;
    if (!user) return;
    $("#me").setAttribute("aria-label", t.changeName(user.name));
    $("#me").replaceChildren(
      avatar({ name: user.name, kind: "human" }),
      h("span", { class: "me-name" }, user.name),
      icon("pen"),
    );
  }

  /** The tab tells how much is new, also while it is in the background. */
  #title(rooms) {
    const count = rooms.reduce((sum, room) => sum + this.hub.unread(room), 0);
    const title = this.hub.here.info?.title ?? t.lobby;
    $("#open-sidebar .dot").hidden = count === this.hub.unread(this.hub.here);
    document.title = `${count ? `(${count}) ` : ""}${title} · ${t.app}`;
  }
}
