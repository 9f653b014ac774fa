/**
 * What the page knows about one room: a snapshot, and the events since then. No DOM, no I/O.
 *
 * Each function changes the room in place and returns what a view must do about it, since a
 * copy for each token would cost the length of the room.
 */

const TYPING_LASTS = 6_000; // ms; twice the pause after which a writer says so again

export function newRoom(id) {
  return {
    id,
    info: null, // the room's settings
    ready: false, // a snapshot was applied
    members: new Map(),
    messages: new Map(),
    order: [], // ids of messages, ascending
    oldest: undefined, // from this message on nothing is missing
    more: true, // there may be older ones
    typing: new Map(), // member id -> { member, until }
    turn: null, // { state, position } while something is under way
    readTo: "", // the newest message that the reader has seen
    dividerAfter: null, // where the line "New" stands while the room is open
  };
}

/** Replace all that was known by the answer to `join_room`. */
export function applySnapshot(room, { room: info, members, messages, replies }) {
  room.info = info;
  room.ready = true;
  room.messages.clear();
  room.order = [];
  room.typing.clear();
  for (const message of [...messages, ...(replies ?? [])]) place(room, message);
  // Not order[0]: a long reply that still runs may be older than all messages of the snapshot.
  room.oldest = messages[0]?.id ?? room.order[0];
  room.more = room.order.length >= SNAPSHOT;
  room.turn = (replies ?? []).length ? { state: "running" } : null;
  setMembers(room, members);
  return { kind: "reset" };
}

/** Messages of a snapshot that is full, replies included; fewer mean that there are no older ones. */
const SNAPSHOT = 50;

export function setMembers(room, members) {
  room.members = new Map(members.map((member) => [member.id, member]));
  return { kind: "members" };
}

/** Put older messages before the others. */
export function applyPage(room, { messages, more }) {
  room.more = Boolean(more) && messages.length > 0;
  room.oldest = messages[0]?.id ?? room.oldest;
  const added = messages.filter((message) => !room.messages.has(message.id));
  for (const message of added) place(room, message);
  return { kind: "older", ids: added.map((message) => message.id) };
}

const EVENTS = {
  message: (room, { message }) => put(room, message),
  message_start: (room, { message }) => put(room, message),
  token: addText,
  message_end: endMessage,
  message_removed: (room, { id }) => removeMessage(room, id),
  member_joined: addMember,
  member_left: dropMember,
  turn: setTurn,
  room_updated: updateSettings,
  typing: setTyping,
};

/** Apply one event; null where nothing changed (an unknown event is no error: servers grow). */
export function applyEvent(room, name, payload, now = Date.now()) {
  return EVENTS[name]?.(room, payload, now) ?? null;
}

function put(room, message) {
  room.typing.delete(message.author.id);
  const known = room.messages.has(message.id);
  place(room, message);
  return { kind: known ? "changed" : "added", id: message.id };
}

function place(room, message) {
  if (!room.messages.has(message.id)) insert(room.order, message.id);
  room.messages.set(message.id, { ...message });
}

/** Ids are UUIDv7: their order as text is that of the log. Most belong at the end. */
function insert(order, id) {
  let at = order.length;
  while (at > 0 && order[at - 1] > id) at -= 1;
  order.splice(at, 0, id);
}

function addText(room, { id, text }) {
  const message = room.messages.get(id);
  if (!message || message.status !== "running") return null;
  message.text += text;
  return { kind: "text", id, text };
}

function endMessage(room, { id, status, html, usage, error }) {
  const message = room.messages.get(id);
  if (!message) return null;
  Object.assign(message, { status, html, usage, error });
  return { kind: "ended", id };
}

function removeMessage(room, id) {
  if (!room.messages.delete(id)) return null;
  room.order.splice(room.order.indexOf(id), 1);
  return { kind: "removed", id };
}

function addMember(room, { member }) {
  room.members.set(member.id, member);
  return { kind: "members" };
}

function dropMember(room, { member }) {
  room.typing.delete(member.id);
  return room.members.delete(member.id) ? { kind: "members" } : null;
}

function setTurn(room, { state, position }) {
  room.turn = state === "done" ? null : { state, position };
  return { kind: "turn" };
}

function updateSettings(room, { settings }) {
  room.info = { ...room.info, ...settings };
  if (settings.cast) recast(room, settings.cast);
  return { kind: "settings" };
}

/** The cast is among the members: a new one takes the place of the old. */
function recast(room, cast) {
  for (const [id, { kind }] of room.members) if (kind === "character") room.members.delete(id);
  for (const { id, name, emoji } of cast)
    room.members.set(id, { id, name, kind: "character", ...(emoji && { emoji }) });
}

function setTyping(room, { member, typing }, now) {
  if (typing) room.typing.set(member.id, { member, until: now + TYPING_LASTS });
  else if (!room.typing.delete(member.id)) return null;
  return { kind: "typing" };
}

/** Forget those who stopped without saying so; true if any did. */
export function expireTyping(room, now) {
  const before = room.typing.size;
  for (const [id, { until }] of room.typing) if (until <= now) room.typing.delete(id);
  return room.typing.size !== before;
}

/** Messages of others after the last one read. Looks no further back than it must. */
export function unread(room, me) {
  let count = 0;
  for (let at = room.order.length - 1; at >= 0 && room.order[at] > room.readTo; at -= 1) {
    if (isNews(room.messages.get(room.order[at]), me)) count += 1;
  }
  return count;
}

function isNews(message, me) {
  return message.author.id !== me && message.author.kind !== "system";
}

export function newest(room) {
  return room.order.at(-1) ?? "";
}

/** Whether something is under way that can be stopped. */
export function busy(room) {
  return room.turn !== null || runningIn(room);
}

/** Only the tail can run: a reply that is under way is never older than a page of messages. */
function runningIn(room) {
  return room.order.slice(-SNAPSHOT).some((id) => room.messages.get(id).status === "running");
}
