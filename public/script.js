/** Builds the page's parts and tells them what changed. */

import { Api } from "./modules/api.js";
import { Hub, LOBBY } from "./modules/hub.js";
import { Memory } from "./modules/memory.js";
import { Outbox } from "./modules/outbox.js";
import { t } from "./modules/strings.js";
import { CharacterDialog } from "./modules/view/character.js";
import { Composer } from "./modules/view/composer.js";
import { Dialogs } from "./modules/view/dialogs.js";
import { $, nextFrame } from "./modules/view/dom.js";
import { Entrance } from "./modules/view/entrance.js";
import { MemberMenu } from "./modules/view/membermenu.js";
import { Members } from "./modules/view/members.js";
import { Models } from "./modules/view/models.js";
import { MyData } from "./modules/view/mydata.js";
import { Panels } from "./modules/view/panels.js";
import { Search } from "./modules/view/search.js";
import { Sidebar } from "./modules/view/sidebar.js";
import { Status } from "./modules/view/status.js";
import { themeButton } from "./modules/view/theme.js";
import { Transcript } from "./modules/view/transcript.js";

const local = storage("localStorage");
const session = storage("sessionStorage");
const memory = new Memory(local, session);
const api = new Api();
const hub = new Hub({ api, outbox: new Outbox(session), memory });
const status = new Status(hub);
const transcript = new Transcript(hub);
const editor = new CharacterDialog(hub);
const members = new Members(hub, new MemberMenu(hub, editor));
const models = new Models(hub);
const composer = new Composer(hub, { command: (text) => models.command(text) });
const dialogs = new Dialogs(hub, editor);
const entrance = new Entrance(hub, api);
const panels = new Panels(local);
const sidebar = new Sidebar(hub, { onOpen: go });
const search = new Search(hub, { onFound: goToMessage });
new MyData(hub, api, { onImported: go });

const showMembers = () => (members.render(), members.renderNow(), models.render());

/** What each kind of change means for what is on the screen. */
const CHANGES = {
  state: () => (status.render(), hub.line.name === "locked" && entrance.lock()),
  toast: ({ text }) => status.toast(text),
  welcome: () => (status.render(), entrance.welcome(), sidebar.refresh(), transcript.showPending(), nextFrame(showMembers)),
  user: () => (sidebar.refresh(), nextFrame(showMembers), transcript.change({ kind: "reset" })),
  rooms: () => (sidebar.refresh(), nextFrame(showMembers), composer.render(), hideInvite()),
  gone: ({ id }) => (sidebar.refresh(), leaveAddress(id)),
  unread: () => sidebar.refresh(),
  outbox: ({ room }) => room.id === hub.current && (transcript.showPending(), composer.render()),
  current: showRoom,
  room: roomChanged,
};

hub.listen((change) => CHANGES[change.kind](change));

function showRoom() {
  const room = hub.here;
  search.clear();
  transcript.show(room);
  composer.show(room);
  sidebar.refresh();
  showMembers();
}

function roomChanged({ room, change }) {
  if (change.kind !== "text" && change.kind !== "typing") sidebar.refresh();
  if (room.id !== hub.current) return;
  transcript.change(change);
  if (["members", "settings", "reset"].includes(change.kind)) nextFrame(showMembers);
  else members.renderNow();
  if (change.kind !== "text") composer.render();
}

/** Open a room because somebody chose it: that is a step that "back" undoes. */
function go(id) {
  if (id !== hub.current) history.pushState({ room: id }, "", address(id));
  panels.closeAll();
  const opened = hub.open(id);
  composer.focus();
  return opened;
}

async function goToMessage(id, room) {
  if (room === hub.current) panels.closeAll();
  else await go(room);
  transcript.find(id);
}

/** An invite is a key: once used it should not stay in the address bar and go along with a copy. */
function hideInvite() {
  if (!new URLSearchParams(location.search).has("invite") || !hub.connection.open) return;
  history.replaceState({}, "", address(hub.current));
}

/** An address that leads nowhere should not be the one that is reloaded. */
function leaveAddress(id) {
  if (new URLSearchParams(location.search).get("room") === id) history.replaceState({}, "", "/");
}

const address = (id) => (id === LOBBY ? "/" : `/?room=${encodeURIComponent(id)}`);

const exported = (id, format) => `/api/rooms/${encodeURIComponent(id)}/export?format=${format}`;

async function toggleArchived(room) {
  const archived = !room.info.archived;
  await hub.updateRoom(room, { archived });
  if (archived) status.toast(t.archived(room.info.title || t.untitled));
}

function bind(selector, work) {
  $(selector).addEventListener("click", work);
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    status.toast(error.message);
  }
}

bind("#new-private", () =>
  attempt(async () => {
    const room = await hub.createRoom({ visibility: "private" });
    history.pushState({ room: room.id }, "", address(room.id));
    panels.closeAll();
    composer.focus();
  }),
);
bind("#new-room", () => (panels.closeAll(), dialogs.newRoom()));
bind("#me", () => (entrance.offer(), dialogs.name()));
bind("#invite", () => dialogs.invite(hub.here));
bind("#room-settings", () => dialogs.changeRoom(hub.here));
bind("#archive-room", () => attempt(() => toggleArchived(hub.here)));
bind("#delete-room", () => dialogs.remove(hub.here));
bind("#open-search", () => search.open());
bind("#room-menu", () => $("#room-menu").hidePopover());
$("#room-menu").addEventListener("beforetoggle", ({ target }) => {
  const { bottom, right } = $("#open-menu").getBoundingClientRect();
  $("#archive-room").textContent = hub.here.info?.archived ? t.unarchive : t.archive;
  for (const format of ["md", "json"]) $(`#export-${format}`).href = exported(hub.current, format);
  target.style.top = `${bottom + 4}px`;
  target.style.right = `${document.documentElement.clientWidth - right}px`;
});

/** Where storage is forbidden even the name throws. */
function storage(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}

// Rooms made in another tab, or by somebody else meanwhile.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") hub.lookAround();
});

window.addEventListener("popstate", () => {
  panels.closeAll();
  hub.open(new URLSearchParams(location.search).get("room") ?? LOBBY);
});

themeButton($("#theme"));
const wanted = new URLSearchParams(location.search);
hub.open(wanted.get("room") ?? LOBBY, { invite: wanted.get("invite") ?? undefined });
hub.connection.start();
composer.focus(); // who opens the page can talk at once
