/** The REST side of the server. Errors are sentences that can be shown. */

import { t } from "./strings.js";

export class ApiError extends Error {
  /** `status` 0: the server was not reached. `retryAfter` in seconds, or null. */
  constructor(message, { status = 0, code = "", retryAfter = null, access = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, access });
  }
}

const PATIENCE = 15_000; // ms; longer than any of these calls takes on a server that is well

const LONG = 300_000; // ms for a large file over a slow line

export class Api {
  constructor() {
    this.csrf = "";
    this.access = null; // how one comes in here; see docs/accounts.md
  }

  /** Who we are; makes a guest where there is none. Status 401: one has to log in first. */
  async session() {
    return this.#keep(await this.#call("GET", "/api/session"));
  }

  async logIn(name, password) {
    return this.#keep(await this.#call("POST", "/api/session", { name, password }));
  }

  async register(name, password, invite) {
    return this.#keep(await this.#call("POST", "/api/users", { name, password, invite }));
  }

  logOut() {
    return this.#call("DELETE", "/api/session");
  }

  changePassword(old, fresh) {
    return this.#call("POST", "/api/password", { old, new: fresh });
  }

  async rename(name) {
    return this.#keep(await this.#call("POST", "/api/session", { name }));
  }

  characters() {
    return this.#call("GET", "/api/characters");
  }

  scenarios() {
    return this.#call("GET", "/api/scenarios");
  }

  deleteRoom(id) {
    return this.#call("DELETE", `/api/rooms/${encodeURIComponent(id)}`);
  }

  /** Make rooms of a file of chats; `title` is for those that bring none. */
  importChats(file, title) {
    return this.#upload(`/api/import?title=${encodeURIComponent(title)}`, file);
  }

  /** What is in a character card. */
  lookAtCard(file) {
    return this.#upload("/api/cards", file);
  }

  /** Put a card's character into a room. */
  addCard(room, file) {
    return this.#upload(`/api/rooms/${encodeURIComponent(room)}/cards`, file);
  }

  async #upload(path, file) {
    const response = await fetch(path, {
      method: "POST",
      headers: { Accept: "application/json", "X-CSRF-Token": this.csrf },
      body: file,
      signal: AbortSignal.timeout(LONG),
    }).catch(() => {
      throw new ApiError(t.cantImport);
    });
    if (!response.ok) throw await errorOf(response);
    return response.json();
  }

  #keep(session) {
    this.csrf = session.csrf ?? this.csrf;
    this.access = session.access ?? this.access;
    return session;
  }

  async #call(method, path, body) {
    const response = await this.#fetch(method, path, body);
    const text = await response.text();
    return text ? JSON.parse(text) : {};
  }

  async #fetch(method, path, body) {
    const headers = { Accept: "application/json" };
    if (method !== "GET") headers["X-CSRF-Token"] = this.csrf;
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(path, {
      method,
      headers,
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    }).catch(() => {
      throw new ApiError(t.unreachable);
    });
    if (response.ok) return response;
    const error = await errorOf(response);
    this.access = error.access ?? this.access;
    throw error;
  }
}

async function errorOf(response) {
  const said = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  return new ApiError(said.error ?? t.serverSaid(response.status), {
    status: response.status,
    code: said.code ?? "",
    retryAfter,
    access: said.access ?? null,
  });
}
