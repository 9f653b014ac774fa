/**
 * What the page knows of the hub, kept right: which rooms are followed, from where, and what
 * is unread. Views listen to changes: { kind, … }; script.js lists the kinds.
 */

import { Connection } from "./connection.js";
import { Cursor } from "./cursor.js";
import { Sender } from "./sender.js";
import * as state from "./state.js";
import { t } from "./strings.js";

export const LOBBY = "lobby";
const FOLLOWED = 40; // rooms that are followed from the start; others when they are opened

export class Hub {
  constructor({ api, outbox, memory }) {
    Object.assign(this, { api, outbox, memory });
    this.rooms = new Map();
    this.listed = []; // ids that the server listed, in its order
    this.archived = []; // the same, of those in the archive
    this.current = LOBBY;
    this.user = null;
    this.llm = null;
    this.limits = {};
    this.version = null;
    this.inbox = null;
    this.line = { name: "connecting", first: true };
    this.listeners = new Set();
    this.sender = new Sender(this, outbox);
    this.connection = new Connection({
      api,
      onState: (line) => this.#line(line),
      onWelcome: (welcome) => this.#welcome(welcome),
      onEvent: (name, payload) => this.#event(name, payload),
    });
    setInterval(() => this.#expireTyping(), 1_000);
  }

  listen(listener) {
    this.listeners.add(listener);
  }

  emit(change) {
    for (const listener of this.listeners) listener(change);
  }

  toast(text) {
    this.emit({ kind: "toast", text });
  }

  #line(line) {
    this.line = line;
    if (line.name !== "open") for (const room of this.rooms.values()) room.live = false;
    this.emit({ kind: "state" });
  }

  room(id) {
    if (!this.rooms.has(id)) {
      const room = state.newRoom(id);
      room.readTo = this.memory.readTo(id);
      this.rooms.set(id, room);
    }
    return this.rooms.get(id);
  }

  get here() {
    return this.room(this.current);
  }

  /** Show a room; joins it where that wasn't done. `invite` lets somebody in by link. */
  async open(id, { invite } = {}) {
    const room = this.room(id);
    this.current = id;
    this.memory.opened(id);
    this.#placeDivider(room);
    this.emit({ kind: "current" });
    if (room.ready && !invite) return;
    room.invite = invite;
    if (this.connection.open) await this.follow(room);
  }

  #placeDivider(room) {
    room.dividerAfter = this.unread(room) ? room.readTo : null;
  }

  /** Join, or resume after a loss. A room that is closed to us is forgotten. */
  async follow(room, { fresh = false } = {}) {
    if (room.joining) return;
    room.joining = true;
    room.held = [];
    try {
      const since = fresh ? undefined : room.cursor?.since;
      this.#joined(room, await this.connection.request("join_room", compact({
        room: room.id, invite: room.invite, since,
      })), since);
    } catch (error) {
      // Not in a `finally`: what was held may have shown another gap, and then the next join
      // is under way already; its events must be held as well.
      room.joining = false;
      if (error.code !== "lost") this.#refused(room, error);
    }
  }

  #joined(room, result, since) {
    room.invite = undefined;
    room.live = true;
    room.cursor = new Cursor(result.epoch, result.recovered ? since.offset : result.offset);
    if (result.recovered) {
      room.info = result.room;
      this.#changed(room, state.setMembers(room, result.members));
    } else {
      const change = state.applySnapshot(room, result);
      if (room.readTo === "") this.markRead(room);
      if (room.id === this.current) this.#placeDivider(room);
      this.#changed(room, change);
    }
    const held = room.held ?? [];
    room.held = [];
    room.joining = false;
    for (const [name, payload] of held) this.#event(name, payload);
    if (!this.listed.includes(room.id)) this.listed.push(room.id);
    this.emit({ kind: "rooms" });
    this.sender.drain(room.id);
  }

  #refused(room, error) {
    if (["no_room", "not_found", "forbidden"].includes(error.code)) this.forget(room.id);
    this.toast(error.message || t.roomGone);
  }

  /** The room is gone for us. */
  forget(id) {
    this.rooms.delete(id);
    this.listed = this.listed.filter((other) => other !== id);
    this.archived = this.archived.filter((other) => other !== id);
    this.memory.forget(id);
    this.emit({ kind: "gone", id });
    if (this.current === id) this.open(LOBBY);
  }

  async #welcome({ user, inbox, limits, llm, version }) {
    if (this.user && this.user.id !== user.id) this.#somebodyElse();
    this.updated = Boolean(this.version && version !== this.version);
    this.version ??= version;
    Object.assign(this, { user, limits, llm });
    this.memory.owner = user.id;
    for (const room of this.rooms.values()) room.readTo ||= this.memory.readTo(room.id);
    this.emit({ kind: "welcome" });
    try {
      await this.#resumeInbox(inbox);
      await this.follow(this.here);
    } catch (error) {
      if (error.code !== "lost") this.toast(error.message);
    }
    await this.lookAround();
  }

  /** Learn of rooms, and follow those that concern us. */
  async lookAround() {
    if (!this.connection.open) return;
    try {
      await this.refreshRooms();
    } catch (error) {
      return error.code === "lost" || this.toast(error.message);
    }
    const away = this.#followed().filter((room) => !room.live);
    await Promise.all(away.map((room) => this.follow(room)));
  }

  #somebodyElse() {
    this.rooms.clear();
    this.listed = [];
    this.archived = [];
    this.inbox = null;
    this.emit({ kind: "current" });
  }

  /** Catch up on whispers. Where that can't be done, snapshots hold them: take new ones. */
  async #resumeInbox(head) {
    const since = this.inbox?.since;
    if (!since) {
      this.inbox = new Cursor(head.epoch, head.offset);
      return;
    }
    this.heldInbox ??= [];
    const result = await this.connection.request("resume_inbox", { since });
    this.inbox = new Cursor(result.epoch, result.recovered ? since.offset : result.offset);
    if (!result.recovered) for (const room of this.rooms.values()) room.cursor = null;
    const held = this.heldInbox;
    this.heldInbox = null;
    for (const [name, payload] of held) this.#event(name, payload);
  }

  async refreshRooms() {
    const { rooms } = await this.connection.request("list_rooms", {});
    const archive = await this.connection.request("list_rooms", { archived: true });
    this.archived = archive.rooms.map((info) => info.id);
    for (const info of archive.rooms) this.room(info.id).info = info;
    this.listed = rooms.map((info) => info.id);
    for (const info of rooms) this.room(info.id).info = info;
    for (const id of [this.current, LOBBY]) if (!this.listed.includes(id)) this.listed.push(id);
    this.emit({ kind: "rooms" });
  }

  /** Ours, the lobby and those opened before; not every public room of the server. */
  #followed() {
    const wanted = (room) =>
      room.id === LOBBY || room.info?.visibility !== "public" || this.memory.wasOpened(room.id);
    return this.listed
      .filter((id) => id !== this.current)
      .map((id) => this.room(id))
      .filter(wanted)
      .slice(0, FOLLOWED);
  }

  #event(name, payload) {
    if (name === "error") return this.toast(payload.message);
    if (!payload?.room) return;
    const room = this.rooms.get(payload.room);
    if (name === "room_removed") return room && this.#removed(room);
    if (payload.inbox) this.#fromInbox(name, payload, room);
    else if (!room) return; // one that we left, or don't follow
    else if (room.joining) room.held.push([name, payload]);
    else if (payload.offset === undefined) this.#apply(room, name, payload);
    else this.#fromLog(room, name, payload);
  }

  #removed(room) {
    this.toast(t.roomRemoved(room.info?.title ?? ""));
    this.forget(room.id);
  }

  #fromLog(room, name, payload) {
    if (!room.cursor) return;
    for (const [due, its] of room.cursor.accept(payload.offset, [name, payload]))
      this.#apply(room, due, its);
    if (room.cursor.gap) this.follow(room);
  }

  #fromInbox(name, payload, room) {
    if (this.heldInbox) return this.heldInbox.push([name, payload]);
    for (const [due, its] of this.inbox.accept(payload.offset, [name, payload]))
      this.#whisper(due, its);
    if (this.inbox.gap) this.#resumeInbox().catch(() => {});
    if (!room) this.refreshRooms().catch(() => {});
  }

  /**
   * Not held while the room is being joined: an answer comes after all that happened before,
   * so a new snapshot holds this already, and a resumed room needs it.
   */
  #whisper(name, payload) {
    const room = this.rooms.get(payload.room);
    if (room) this.#apply(room, name, payload);
  }

  #apply(room, name, payload) {
    if (!room.ready) return;
    const change = state.applyEvent(room, name, payload);
    if (change?.kind === "added") this.#noteOwn(room, change.id);
    if (name === "member_joined") this.#noteName(payload.member);
    if (change) this.#changed(room, change);
  }

  /** What we said ourselves, here or in another tab, is not news; nor is what came before. */
  #noteOwn(room, id) {
    const message = room.messages.get(id);
    if (message.author.id !== this.user.id) return;
    if (id > room.readTo) this.markRead(room, id);
    this.sender.seen(room, message);
  }

  /** We may have taken another name in another tab. */
  #noteName({ id, name }) {
    if (id !== this.user.id || name === this.user.name) return;
    this.user = { ...this.user, name };
    this.emit({ kind: "user" });
  }

  #changed(room, change) {
    this.emit({ kind: "room", room, change });
  }

  /** An acknowledged prompt; its event may have come before. */
  accepted(room, message) {
    if (!room.ready || room.messages.has(message.id)) return;
    this.#apply(room, "message", { message });
  }

  markRead(room, id = state.newest(room)) {
    if (id <= room.readTo) return;
    room.readTo = id;
    this.memory.read(room.id, id);
    this.emit({ kind: "unread", room });
  }

  unread(room) {
    return state.unread(room, this.user?.id);
  }

  #expireTyping() {
    for (const room of this.rooms.values())
      if (room.typing.size && state.expireTyping(room, Date.now()))
        this.#changed(room, { kind: "typing" });
  }

  // What people do. Each rejects with an error whose message can be shown.

  async createRoom(settings) {
    const result = await this.connection.request("create_room", settings);
    const room = this.room(result.room.id);
    this.#joined(room, result);
    await this.open(room.id);
    return room;
  }

  async rename(name) {
    const { user } = await this.api.rename(name);
    this.user = { ...this.user, ...user };
    this.emit({ kind: "user" });
  }

  async updateRoom(room, settings) {
    const result = await this.connection.request("update_room", { room: room.id, ...settings });
    room.info = { ...room.info, ...result.room };
    this.#changed(room, { kind: "settings" });
  }

  async deleteRoom(room) {
    await this.api.deleteRoom(room.id);
    this.forget(room.id);
  }

  /** Put the character of a card into a room; the answer has its id. */
  async addCard(room, file) {
    const result = await this.api.addCard(room.id, file);
    room.info = { ...room.info, ...result.room };
    this.#changed(room, { kind: "settings" });
    return result;
  }

  speak(room, character) {
    return this.connection.request("speak", { room: room.id, character });
  }

  talk(room, turns) {
    return this.connection.request("talk", { room: room.id, turns });
  }

  mute(room, character, muted) {
    return this.connection.request("mute", { room: room.id, character, muted });
  }

  kick(room, user) {
    return this.connection.request("kick", { room: room.id, user });
  }

  ban(room, user) {
    return this.connection.request("ban", { room: room.id, user });
  }

  stop(room) {
    return this.connection.request("stop", { room: room.id });
  }

  regenerate(room, message) {
    return this.connection.request("regenerate", { room: room.id, message });
  }

  /** A page of older messages; false where there are none. */
  async loadOlder(room, limit = 50) {
    if (!room.more || !room.ready) return false;
    const cursor = room.cursor;
    const before = room.oldest;
    const page = await this.connection.request("read_messages", compact({
      room: room.id, before, limit,
    }));
    if (room.cursor?.epoch === cursor?.epoch && room.oldest === before)
      this.#changed(room, state.applyPage(room, page));
    return room.more;
  }

  /** Go on with a reply that broke off. */
  continueReply(room, message) {
    return this.connection.request("continue_reply", { room: room.id, message });
  }

  /** In all rooms; the answer has their titles. */
  searchAll(query) {
    return this.connection.request("search_messages", { query, limit: 50 });
  }

  search(room, query) {
    return this.connection.request("read_messages", { room: room.id, query, limit: 50 });
  }

  typing(room, typing) {
    if (room.live) this.connection.notify("set_typing", { room: room.id, typing });
  }
}

/** Keys without a value are left out: the server refuses those it doesn't expect. */
function compact(payload) {
  return Object.fromEntries(Object.entries(payload).filter(([, value]) => value !== undefined));
}
