/** What this browser remembers of a user: what was read, which rooms were opened, drafts. */

const KEPT = 200; // rooms; enough for years, and far below what a browser lets us keep

export class Memory {
  constructor(local, session) {
    Object.assign(this, { local, session });
    this.data = { read: {}, opened: [] };
    this.user = null;
  }

  /** Whose memory it is: several people may share a browser, one after the other. */
  set owner(id) {
    if (this.user === id) return;
    const before = this.data;
    this.user = id;
    const stored = parse(this.local, this.#key);
    this.data = {
      read: { ...stored?.read, ...before.read },
      opened: [...new Set([...(stored?.opened ?? []), ...before.opened])],
    };
  }

  get #key() {
    return `hubbub.memory.${this.user}`;
  }

  readTo(room) {
    return this.data.read[room] ?? "";
  }

  read(room, id) {
    this.data.read[room] = id;
    this.#save();
  }

  opened(room) {
    if (this.wasOpened(room)) return;
    this.data.opened.push(room);
    this.#save();
  }

  wasOpened(room) {
    return this.data.opened.includes(room);
  }

  forget(room) {
    delete this.data.read[room];
    this.data.opened = this.data.opened.filter((id) => id !== room);
    this.#save();
  }

  draft(room) {
    return parse(this.session, `hubbub.draft.${room}`) ?? "";
  }

  setDraft(room, text) {
    attempt(() => {
      const key = `hubbub.draft.${room}`;
      if (text) this.session.setItem(key, JSON.stringify(text));
      else this.session.removeItem(key);
    });
  }

  #save() {
    if (!this.user) return;
    this.data.opened = this.data.opened.slice(-KEPT);
    const newest = Object.entries(this.data.read).sort(([, a], [, b]) => (a < b ? 1 : -1));
    this.data.read = Object.fromEntries(newest.slice(0, KEPT));
    attempt(() => this.local.setItem(this.#key, JSON.stringify(this.data)));
  }
}

function parse(storage, key) {
  return attempt(() => JSON.parse(storage.getItem(key)));
}

/** Storage may be full, forbidden or tampered with; the page works without it. */
function attempt(work) {
  try {
    return work();
  } catch {
    return null;
  }
}
