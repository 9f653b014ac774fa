/**
 * Prompts that the server has not acknowledged. They survive a lost connection and a reload;
 * each keeps its `txn`, so that sending one again stores it once.
 */

export class Outbox {
  /** `storage` is a Storage (sessionStorage); where it fails, the box lives in memory only. */
  constructor(storage, key = "hubbub.outbox") {
    this.storage = storage;
    this.key = key;
    this.items = this.#load();
  }

  add(item) {
    const full = { txn: newTxn(), at: new Date().toISOString(), error: null, ...item };
    this.items.push(full);
    this.#save();
    return full;
  }

  of(room) {
    return this.items.filter((item) => item.room === room);
  }

  /** The next one to be sent in a room; order is kept by sending one at a time. */
  next(room) {
    return this.items.find((item) => item.room === room && !item.error) ?? null;
  }

  remove(txn) {
    this.items = this.items.filter((item) => item.txn !== txn);
    this.#save();
  }

  fail(txn, error) {
    this.#change(txn, { error });
  }

  retry(txn) {
    this.#change(txn, { error: null });
  }

  #change(txn, change) {
    this.items = this.items.map((item) => (item.txn === txn ? { ...item, ...change } : item));
    this.#save();
  }

  #load() {
    try {
      const items = JSON.parse(this.storage.getItem(this.key) ?? "[]");
      return Array.isArray(items) ? items.filter((item) => item?.txn && item.room) : [];
    } catch {
      return [];
    }
  }

  #save() {
    try {
      this.storage.setItem(this.key, JSON.stringify(this.items));
    } catch {
      // Storage is full or forbidden: the box still works until the page is reloaded.
    }
  }
}

/** 128 random bits; crypto.randomUUID is missing on plain http from another machine. */
export function newTxn() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
