/**
 * One WebSocket that is always on its way to being open (dialect `dm-rpc`).
 *
 * Tells its owner by callbacks: `onState(state)`, `onWelcome(payload)`, `onEvent(name, payload)`.
 * States: { name: "connecting" | "open" | "waiting" | "locked" | "ended", at?, reason?, first? };
 * `at` is when the next attempt starts; `locked`: somebody has to log in; `ended` is for good.
 */

import { pause } from "./backoff.js";
import { t } from "./strings.js";

const OPENING = 10_000; // ms until an attempt that says nothing counts as failed
const QUIET = 25_000; // ms of silence after which we ask whether the other end is there
const ANSWER = 8_000; // ms it may take to answer that
const REQUEST = 30_000; // ms for any other answer; a prompt waits for the disk, not for a model
const STEADY = 5_000; // ms open after which the next loss starts again with short pauses

export class RequestError extends Error {
  /** `code` is the server's, or `lost` where the connection went before the answer came. */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class Connection {
  constructor({ api, onState, onWelcome, onEvent }) {
    Object.assign(this, { api, onState, onWelcome, onEvent });
    this.socket = null;
    this.open = false;
    this.ended = false;
    this.attempt = 0;
    this.stale = true; // the session must be asked for before the next attempt
    this.waiting = new Map(); // request id -> { resolve, reject, timer }
    this.lastId = 0;
    this.timer = 0;
    this.heard = 0;
  }

  start() {
    window.addEventListener("online", () => this.nudge());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.nudge();
    });
    setInterval(() => this.#watch(), 5_000);
    this.#connect();
  }

  /** Something woke up: try at once if we wait, look whether the line is alive if we don't. */
  nudge() {
    if (this.ended) return;
    if (this.open) this.#check();
    else if (this.timer) this.#connect();
  }

  /** Ask; resolves to the result. Rejects with a RequestError. */
  request(method, payload) {
    if (!this.open) return Promise.reject(new RequestError("lost", t.notConnected));
    return this.#ask(method, payload, REQUEST);
  }

  notify(method, payload) {
    if (this.open) this.socket.send(JSON.stringify([method, payload, null]));
  }

  #ask(method, payload, patience) {
    const id = String((this.lastId += 1));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#lose({ code: 1006 }), patience);
      this.waiting.set(id, { resolve, reject, timer });
      this.socket.send(JSON.stringify([method, payload, id]));
    });
  }

  async #connect() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.onState({ name: "connecting", first: this.heard === 0, attempt: this.attempt });
    try {
      if (this.stale) await this.api.session();
    } catch (error) {
      if (error.status === 401) return this.onState({ name: "locked" });
      return this.#comeBack({ least: (error.retryAfter ?? 0) * 1000 });
    }
    if (!this.socket && !this.ended) this.#dial();
  }

  #dial() {
    const url = new URL("/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("csrf", this.api.csrf);
    const socket = new WebSocket(url, ["dm-rpc"]);
    this.socket = socket;
    this.stale = true; // until the welcome: a refusal may mean that our session is gone
    this.opening = setTimeout(() => this.#lose({ code: 1006 }), OPENING);
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = (event) => this.#lose(event);
  }

  #receive(data) {
    this.heard = performance.now();
    const [name, payload, id] = JSON.parse(data);
    if (id != null) this.#settle(name, payload, id);
    else if (name === "welcome") this.#welcome(payload);
    else this.onEvent(name, payload);
  }

  #welcome(payload) {
    clearTimeout(this.opening);
    this.open = true;
    this.openSince = performance.now();
    this.stale = false;
    this.onState({ name: "open" });
    this.onWelcome(payload);
  }

  #settle(name, payload, id) {
    const { resolve, reject, timer } = this.waiting.get(id) ?? {};
    if (!resolve) return;
    this.waiting.delete(id);
    clearTimeout(timer);
    if (name === "error") reject(new RequestError(payload.code, payload.message));
    else resolve(payload);
  }

  /** The socket is gone, or as good as: let go of it without waiting for its goodbye. */
  #lose({ code, reason = "" }) {
    const { socket } = this;
    if (!socket) return;
    clearTimeout(this.opening);
    socket.onmessage = socket.onclose = null;
    socket.close();
    if (this.open && performance.now() - this.openSince > STEADY) this.attempt = 0;
    this.socket = null;
    this.open = false;
    for (const { reject, timer } of this.waiting.values()) {
      clearTimeout(timer);
      reject(new RequestError(code === 1009 ? "too_big" : "lost", t.notConnected));
    }
    this.waiting.clear();
    if (code === 1008 || code === 1002) this.#end(code, reason);
    else this.#comeBack({ overloaded: code === 1013 });
  }

  #end(code, reason) {
    this.ended = true;
    this.onState({ name: "ended", reason: code === 1008 ? t.notAllowed(reason) : t.misunderstood });
  }

  #comeBack({ overloaded = false, least = 0 }) {
    const wait = Math.max(least, pause(this.attempt, { overloaded }));
    this.attempt += 1;
    this.timer = setTimeout(() => this.#connect(), wait);
    this.onState({ name: "waiting", at: Date.now() + wait, first: this.heard === 0 });
  }

  #watch() {
    if (this.open && performance.now() - this.heard > QUIET) this.#check();
  }

  #check() {
    if (this.checking) return;
    this.checking = true;
    this.#ask("ping", {}, ANSWER)
      .catch(() => {}) // a line that is dead was let go of by the deadline
      .finally(() => (this.checking = false));
  }
}
