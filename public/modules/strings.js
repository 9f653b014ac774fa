/** Every sentence of the page, so that a translation is one file. */

const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

const ordinal = (n) => {
  const rule = new Intl.PluralRules("en", { type: "ordinal" }).select(n);
  return `${n}${{ one: "st", two: "nd", few: "rd", other: "th" }[rule]}`;
};

const duration = (seconds) =>
  seconds < 0.1 ? "under 0.1 s" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;

export const t = {
  app: "Hubbub",

  // Connection
  connecting: "Connecting…",
  lost: "Connection lost. The page comes back by itself.",
  lostRetrying: (seconds) =>
    seconds > 0 ? `Connection lost. Trying again in ${seconds} s…` : "Connection lost. Trying again…",
  noServer: (seconds) =>
    seconds > 0 ? `The server can't be reached. Trying again in ${seconds} s…` : "The server can't be reached. Trying again…",
  now: "Now",
  reload: "Reload",
  notConnected: "Not connected just now.",
  notAllowed: (reason) => reason || "The server has ended this session. Reload the page to start again.",
  misunderstood: "This page and the server don't understand each other. Reload the page.",
  newVersion: "The server was updated. Reload the page to get its new version.",
  unreachable: "The server can't be reached.",
  serverSaid: (status) => `The server refused this (${status}).`,

  // Accounts
  logIn: {
    title: "Log in",
    do: "Log in",
    other: "Make an account",
    byInvite: "New here? Ask somebody who is in for an invitation.",
  },
  register: {
    title: "Make an account",
    do: "Make account",
    other: "Log in instead",
    keeps: "You keep your rooms, and come back to them from any browser.",
  },
  logInWith: (provider) => `Log in with ${provider}`,
  passwordChanged: "Your password was changed.",

  // Rooms
  lobby: "Lobby",
  yourRooms: "Your rooms",
  publicRooms: "Public rooms",
  archivedRooms: "Archived",
  archive: "Archive",
  unarchive: "Take out of the archive",
  archived: (title) => `“${title}” is in the archive now, at the end of the list.`,
  untitled: "Untitled",
  newRoom: "New room",
  roomSettings: "Settings of this room",
  createRoom: "Create room",
  save: "Save",
  ownScenario: "A scenario of your own",
  private: "Private",
  link: "By invitation",
  public: "Public",
  unreadIn: (title, count) => (count ? `${title}, ${count} unread` : title),
  peopleHere: (count) => `${plural(count, "person", "people")} here`,
  roomGone: "This room isn't there any more, or isn't open to you.",
  inviteCopied: "Invitation copied.",
  deleteRoom: (title) => `Delete “${title}”?`,
  roomRemoved: (title) => `“${title}” was deleted, or is not open to you any more.`,
  deleteRoomText: "The room and everything said in it will be gone for good, for everybody.",
  delete: "Delete",

  // People
  people: "People",
  characters: "Characters",
  scenario: "Scenario",
  answers: {
    all: "All of them answer, one after the other.",
    mention: "Those who are @mentioned answer.",
    natural: "Whoever has something to say answers.",
  },
  you: "you",
  muted: "muted",
  actionsFor: (name) => `What can be done with ${name}`,
  speakNow: "Speak now",
  mute: "Mute",
  unmute: "Let speak again",
  kickNow: "Send out of the room",
  banNow: "Ban from the room",
  banQuestion: (name) => `Ban ${name}?`,
  banText: "They are sent out of this room and can't come in again, by an invitation either.",
  newCharacter: "New character",
  editCharacter: (name) => `Edit ${name}`,
  cardRead: (name) => `${name} is in the list.`,
  triggerWhen: "When somebody says",
  triggerWhenLike: "wine, open * door",
  triggerThen: "then",
  triggerThenLike: "Hiccup before you answer.",
  triggerRemove: "Remove this",
  talkativeness: (percent) => {
    if (percent === 0) return "Speaks when named";
    if (percent === 100) return "Always has something to say";
    return percent < 40 ? "Quiet" : percent > 60 ? "Talkative" : "Now and then";
  },
  changeName: (name) => `${name}: change your name`,
  ai: "AI",
  typing: (names) => {
    if (names.length === 1) return `${names[0]} is typing…`;
    if (names.length === 2) return `${names[0]} and ${names[1]} are typing…`;
    return "Several people are typing…";
  },
  thinking: "Thinking…",
  queued: (position) =>
    position ? `Waiting for the model, ${ordinal(position)} in line…` : "Waiting for the model…",
  usualModel: (model) => `${model} (usual)`,
  modelPicked: (model) => `${model} answers in this room from now on.`,
  models: (now, all) => `${now} answers here. Type /model and a name to change it: ${all.join(", ")}.`,
  answeredBy: (model) => `Answers come from ${model}.`,

  // Messages
  emptyLobby: (names) =>
    `Everybody on this server meets here. Say something, and ${names || "a model"} will answer.`,
  emptyRoom: (names) => `Nothing said yet. Write a message, and ${names || "a model"} will answer.`,
  emptyPrivate: (names) => `A room of your own: nobody else sees it. ${names || "A model"} answers.`,
  emptyByName: (names) => `Nothing said yet. Address ${names || "a character"} with an @.`,
  newMessages: "New",
  jump: "Latest",
  jumpNew: (count) => plural(count, "new message", "new messages"),
  sending: "Sending…",
  notSent: "Not sent.",
  sendAgain: "Send again",
  discard: "Discard",
  failed: "This reply failed.",
  interrupted: "Interrupted",
  stopped: "Stopped",
  tryAgain: "Try again",
  goOn: "Go on",
  redo: "Redo",
  onlyYou: "Only you see this",
  demoBadge: "demo",
  took: "What this reply took",
  cached: "from the cache",
  firstText: (seconds) => `first word after ${duration(seconds)}`,
  wholeReply: (seconds) => `${duration(seconds)} in all`,
  tokens: (read, written) =>
    `${(read ?? "?").toLocaleString()} tokens read, ${(written ?? "?").toLocaleString()} written`,
  cost: (cost) => `cost ${cost.toLocaleString(undefined, { maximumSignificantDigits: 3 })}`,
  copy: "Copy",
  copied: "Copied",
  copyFailed: "The browser doesn't allow copying here.",
  regenerate: "Another reply",
  earlier: "Earlier reply",
  later: "Later reply",
  says: (name, text) => `${name}: ${text}`,
  replyTo: (name) => `to ${name}`,
  older: "Loading older messages…",
  began: "The beginning of this room.",

  // Composer
  placeholder: (title) => `Message ${title}`,
  placeholderMe: "Ask so that only you see question and answer",
  tooLong: (limit) => `This is longer than ${limit.toLocaleString()} characters.`,
  tooBig: "This message is too long to send.",

  // Search
  inRoom: (title) => `in ${title}`,
  searchEmpty: "Nothing found.",
  searching: "Searching…",
  searchMore: "There are more; add a word to narrow it down.",
  notLoaded: "That message is too far back to be shown here.",

  // My data
  importing: "Importing…",
  import: "Import",
  imported: (rooms, messages) =>
    `${plural(rooms, "room", "rooms")} with ${plural(messages, "message", "messages")} imported.`,
  cantImport: "The server could not be reached, or it took too long.",

  // Appearance
  themes: { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" },
};
