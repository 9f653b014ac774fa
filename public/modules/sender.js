/** Sends what is in the outbox: one prompt of a room at a time, so that their order is kept. */

import { t } from "./strings.js";

export class Sender {
  constructor(hub, outbox) {
    Object.assign(this, { hub, outbox });
    this.busy = new Set(); // rooms with a prompt on its way
    this.shown = new Map(); // txn -> id of the message that appeared before its answer did
  }

  /** Take a prompt; it is shown as pending until the server has stored it. */
  send(room, { text, to, reply }) {
    this.outbox.add({ room: room.id, text, to, reply });
    this.#changed(room.id);
    this.drain(room.id);
  }

  retry(item) {
    this.outbox.retry(item.txn);
    this.#changed(item.room);
    this.drain(item.room);
  }

  discard(item) {
    this.outbox.remove(item.txn);
    this.#changed(item.room);
  }

  /** Those to be shown as pending: not acknowledged, and not there as a message already. */
  pending(room) {
    return this.outbox.of(room.id).filter((item) => !this.shown.has(item.txn));
  }

  /** Our message has appeared: it is the oldest pending one with that text. */
  seen(room, message) {
    const item = this.pending(room).find((one) => one.text === message.text);
    if (!item) return;
    this.shown.set(item.txn, message.id);
    this.#changed(room.id);
  }

  async drain(id) {
    if (this.busy.has(id) || !this.outbox.next(id)) return;
    this.busy.add(id);
    try {
      for (let item; this.hub.room(id).live && (item = this.outbox.next(id)); )
        await this.#deliver(item);
    } finally {
      this.busy.delete(id);
    }
  }

  async #deliver(item) {
    const { room, text, txn, to, reply } = item;
    const payload = { room, text, txn, ...(to?.length && { to }), ...(reply && { reply }) };
    try {
      const { message } = await this.hub.connection.request("send_prompt", payload);
      this.outbox.remove(txn);
      this.hub.accepted(this.hub.room(room), message);
    } catch (error) {
      if (error.code === "lost") return;
      if (error.code === "not_joined") return this.#joinAgain(room);
      this.outbox.fail(txn, error.code === "too_big" ? t.tooBig : error.message);
    } finally {
      this.shown.delete(txn);
      this.#changed(room);
    }
  }

  /** The server took us out of the room: it stays in the box until we are in again. */
  #joinAgain(id) {
    const room = this.hub.room(id);
    room.live = false;
    this.hub.follow(room, { fresh: true });
  }

  #changed(id) {
    this.hub.emit({ kind: "outbox", room: this.hub.room(id) });
  }
}
