/** The messages of the room that is open. Changes one message at a time, never the whole list. */

import { busy, newest } from "../state.js";
import { t } from "../strings.js";
import { $, dayName, dayOf, h } from "./dom.js";
import { MessageView, pendingView } from "./message.js";
import { Scroller } from "./scroller.js";

const TOGETHER = 5 * 60_000; // ms between messages of one author that still stand as one group
const FAR = 40; // pages that a jump to an old message may load

export class Transcript {
  constructor(hub) {
    this.hub = hub;
    this.room = null;
    this.views = new Map();
    this.list = $("#messages");
    this.pendingList = $("#pending");
    this.empty = $("#empty");
    this.older = $("#older");
    this.jump = $("#jump");
    this.said = $("#announcer");
    this.scroller = new Scroller($("#transcript"), $("#scrolled"), {
      onMoved: () => this.#looked(),
      onTop: () => this.#loadOlder(),
    });
    this.actions = {
      regenerate: (message) => this.#again(message, () => hub.regenerate(this.room, message.id)),
      goOn: (message) => this.#again(message, () => hub.continueReply(this.room, message.id)),
      toast: (text) => hub.toast(text),
      written: () => {},
    };
    this.jump.addEventListener("click", () => {
      this.scroller.toEnd({ smooth: true });
      $("#text").focus();
    });
    document.addEventListener("visibilitychange", () => this.#looked());
    window.addEventListener("focus", () => this.#looked());
  }

  show(room) {
    this.room = room;
    this.#reset();
    this.scroller.toEnd();
    const divider = $(".divider.new", this.list);
    if (divider) this.scroller.toElement(divider, "start");
    this.#fillView();
  }

  change(change) {
    const { kind, id } = change;
    if (kind === "reset") this.show(this.room);
    else if (kind === "added") this.#add(id);
    else if (kind === "text") this.views.get(id)?.append(change.text);
    else if (kind === "ended") this.#end(id);
    else if (kind === "changed") this.#rerender(id);
    else if (kind === "removed") this.scroller.keep(() => this.#remove(id));
    else if (kind === "older") this.#addOlder(change.ids);
    else if (kind === "members" || kind === "settings") this.#showEmpty();
  }

  /** What was typed and not yet acknowledged. */
  showPending() {
    const { sender, user } = this.hub;
    const items = user && this.room ? sender.pending(this.room) : [];
    const act = { retry: (item) => sender.retry(item), discard: (item) => sender.discard(item) };
    this.pendingList.replaceChildren(...items.map((item) => pendingView(item, user, act)));
    this.#showEmpty();
    this.scroller.follow();
  }

  /** Go to a message, wherever it is; loads what lies between. */
  async find(id) {
    for (let page = 0; page < FAR && !this.views.has(id); page += 1)
      if (this.room.oldest < id || !(await this.hub.loadOlder(this.room, 200))) break;
    const view = this.views.get(id);
    if (!view) return this.hub.toast(t.notLoaded);
    this.scroller.toElement(view.element);
    view.element.focus({ preventScroll: true });
    view.element.classList.add("found");
    setTimeout(() => view.element.classList.remove("found"), 2_000);
  }

  #reset() {
    for (const view of this.views.values()) view.stream?.end();
    this.views.clear();
    const { order, messages } = this.room;
    this.list.replaceChildren(...order.map((id) => this.#make(messages.get(id)).element));
    order.forEach((id, at) => this.#decorate(id, order[at - 1]));
    this.showPending();
    this.#showOlder();
  }

  #make(message) {
    const view = new MessageView(message, {
      me: this.hub.user?.id,
      to: this.#addressee(message),
      actions: this.actions,
    });
    this.views.set(message.id, view);
    return view;
  }

  /** Whom a reply answers, where that is not plain from what stands before it. */
  #addressee({ id, reply_to: prompt, author }) {
    if (author.kind !== "character" || !prompt) return null;
    const { order, messages } = this.room;
    for (let at = order.indexOf(id) - 1; at >= 0; at -= 1) {
      const before = messages.get(order[at]);
      if (before.id === prompt) return null;
      if (before.author.kind === "human") return messages.get(prompt)?.author.name ?? null;
    }
    return null;
  }

  #add(id) {
    const { order, messages } = this.room;
    const message = messages.get(id);
    const at = order.lastIndexOf(id);
    const following = this.views.get(order[at + 1])?.element ?? null;
    const own = message.author.id === this.hub.user.id;
    this.#markNew(message, order[at - 1], own);
    this.scroller.keep(() => {
      this.list.insertBefore(this.#make(message).element, following);
      this.#decorate(id, order[at - 1]);
      if (following) this.#decorate(order[at + 1], id);
    });
    if (own) this.scroller.toEnd();
    this.#showEmpty();
    this.#looked();
    if (message.status !== "running" && !own) this.#announce(message);
  }

  /** The line "New" goes before the first message that came while nobody looked. */
  #markNew(message, previous, own) {
    const missed = this.room.dividerAfter !== null && this.room.dividerAfter >= this.room.readTo;
    if (own) this.#dropDivider();
    else if (!this.#looking && !missed && previous) {
      this.#dropDivider();
      this.room.dividerAfter = previous;
    }
  }

  #dropDivider() {
    this.room.dividerAfter = null;
    $(".divider.new", this.list)?.remove();
  }

  get #looking() {
    return document.visibilityState === "visible" && this.scroller.atEnd;
  }

  #end(id) {
    const view = this.views.get(id);
    if (!view) return;
    this.scroller.keep(() => view.end());
    this.#announce(view.message);
    this.#looked();
  }

  #rerender(id) {
    const view = this.views.get(id);
    if (!view) return;
    view.message = this.room.messages.get(id);
    this.scroller.keep(() => view.render());
  }

  #remove(id) {
    const view = this.views.get(id);
    if (!view) return;
    const next = view.element.nextElementSibling;
    view.stream?.end();
    view.element.remove();
    this.views.delete(id);
    const at = this.room.order.findIndex((other) => other > id);
    if (next && at >= 0) this.#decorate(this.room.order[at], this.room.order[at - 1]);
    this.#showEmpty();
  }

  #addOlder(ids) {
    const { messages, order } = this.room;
    const fragment = document.createDocumentFragment();
    for (const id of ids) fragment.append(this.#make(messages.get(id)).element);
    this.scroller.keep(() => {
      this.list.prepend(fragment);
      for (let at = 0; at <= ids.length && at < order.length; at += 1)
        this.#decorate(order[at], order[at - 1]);
      this.#showOlder();
    });
  }

  /** What depends on the message before: group, date, the line "New". */
  #decorate(id, previousId) {
    const message = this.room.messages.get(id);
    const previous = this.room.messages.get(previousId);
    const { element } = this.views.get(id);
    for (const old of element.querySelectorAll(":scope > .divider")) old.remove();
    const lines = [];
    if (!previous || dayOf(previous.at) !== dayOf(message.at))
      lines.push(h("div", { class: "divider day" }, h("span", {}, dayName(message.at))));
    if (previous && previousId === this.room.dividerAfter)
      lines.push(h("div", { class: "divider new" }, h("span", {}, t.newMessages)));
    element.prepend(...lines);
    element.classList.toggle("grouped", !lines.length && together(previous, message));
  }

  #showEmpty() {
    const { room } = this;
    const blank = room.ready && !room.order.length && !this.pendingList.childElementCount;
    this.empty.hidden = !blank;
    if (!blank) return;
    const names = [...room.members.values()]
      .filter((member) => member.kind === "character")
      .map((member) => member.name);
    const list = new Intl.ListFormat("en").format(names);
    $("h2", this.empty).textContent = room.info?.title || t.untitled;
    $("p", this.empty).textContent = emptyText(room)(list);
    const scenario = $(".scenario", this.empty);
    scenario.textContent = room.info?.scenario ?? "";
    scenario.hidden = !room.info?.scenario;
  }

  #showOlder() {
    const { room } = this;
    this.older.hidden = !room.ready || !room.order.length;
    this.older.textContent = room.more ? t.older : t.began;
  }

  async #loadOlder() {
    const { room } = this;
    if (!room?.more || !room.ready || room.loading || !this.hub.connection.open) return;
    room.loading = true;
    try {
      await this.hub.loadOlder(room);
    } catch (error) {
      if (error.code !== "lost") room.more = false;
    } finally {
      room.loading = false;
    }
    if (room === this.room) {
      this.#showOlder();
      this.#fillView();
    }
  }

  /** A page may be shorter than the screen, and then there is nothing to scroll. */
  #fillView() {
    const { scrollHeight, clientHeight } = this.scroller.view;
    if (scrollHeight <= clientHeight * 1.5) this.#loadOlder();
  }

  /** Whoever sees the end of the transcript has read it. */
  #looked() {
    if (!this.room) return;
    if (this.room.ready && this.#looking) this.hub.markRead(this.room, newest(this.room));
    this.jump.hidden = this.scroller.atEnd;
    if (this.jump.hidden) return;
    const count = this.hub.unread(this.room);
    $("span", this.jump).textContent = count ? t.jumpNew(count) : t.jump;
  }

  #announce({ author, text, error, status }) {
    if (author.id === this.hub.user?.id) return;
    const line = t.says(author.name, status === "failed" ? (error ?? t.failed) : text);
    this.said.append(h("p", {}, line.slice(0, 1_000)));
    while (this.said.childElementCount > 5) this.said.firstElementChild.remove();
  }

  async #again(message, ask) {
    if (busy(this.room) && message.status === "running") return;
    try {
      await ask();
      this.scroller.follow();
    } catch (error) {
      this.hub.toast(error.message);
    }
  }
}

function emptyText({ id, info }) {
  if (id === "lobby") return t.emptyLobby;
  if (info?.answer !== "all") return t.emptyByName;
  return info.visibility === "private" ? t.emptyPrivate : t.emptyRoom;
}

function together(previous, message) {
  return (
    previous?.author.id === message.author.id &&
    previous.private === message.private &&
    previous.demo === message.demo &&
    Date.parse(message.at) - Date.parse(previous.at) < TOGETHER
  );
}
