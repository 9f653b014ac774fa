"""What the hub knows and keeps: users, rooms, messages. These are also their wire forms.

They are msgspec Structs, since they are decoded and encoded on every event: a field that
has its default `None` stays out of the JSON.
"""

from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["human", "character", "system"]
Visibility: TypeAlias = Literal["private", "link", "public"]
Answer: TypeAlias = Literal["all", "mention", "natural"]
Ending: TypeAlias = Literal["done", "stopped", "failed", "interrupted"]
Status: TypeAlias = Literal["running", "done", "stopped", "failed", "interrupted"]
Role: TypeAlias = Literal["guest", "user", "moderator", "admin"]

LOBBY = "lobby"


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all records: immutable, changed by `msgspec.structs.replace`."""


class User(Record, frozen=True, omit_defaults=False):
    """Somebody who may speak. A guest has a name and a cookie, an account a password as well."""

    id: str
    name: str
    guest: bool = True
    role: Role = "guest"


class Session(Record, frozen=True):
    """A browser that came back. `expires` is in seconds since the epoch."""

    id: str
    user: str
    expires: float


class Account(Record, frozen=True):
    """What lets a user log in by name.

    Attributes:
        user: whose it is.
        key: the name as it is compared (`hub.names.key`); no two accounts have the same.
        password: an argon2id hash (PHC string), or None: no password works.
        disabled: may not log in, and has no sessions.
        at: since when, ISO 8601 in UTC.

    """

    user: str
    key: str
    password: str | None = None
    disabled: bool = False
    at: str = ""


class Token(Record, frozen=True):
    """A secret that somebody holds: for a program of theirs, or an invitation to register.

    Attributes:
        id: SHA-256 of the secret, in hex; the secret itself is kept nowhere.
        kind: `api` speaks for `user`; `invite` lets one person make an account.
        user: whose program, or who invited.
        label: what its owner calls it.
        at: since when, ISO 8601 in UTC.
        expires: seconds since the epoch; None never.

    """

    id: str
    kind: Literal["api", "invite"]
    user: str
    label: str = ""
    at: str = ""
    expires: float | None = None


class Tally(Record, frozen=True):
    """What replies took, summed by day (`2026-11-21`, UTC), asker, room and model.

    `room` is empty for prompts without a room; `cost` is in the owner's currency.
    """

    day: str
    user: str
    room: str
    model: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0


class Author(Record, frozen=True):
    """Who a message is from, as it was when the message was written."""

    id: str
    name: str
    kind: Kind
    emoji: str | None = None


class Usage(Record, frozen=True):
    """What a reply took; see `llm.provider.Usage`."""

    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds_to_first: float | None = None
    seconds: float | None = None
    cached: bool | None = None
    finish: str | None = None
    cost: float | None = None


class Message(Record, frozen=True):
    """One message of a room: a prompt, a reply or a notice.

    Attributes:
        id: UUIDv7 as text; ids of one room rise in the order in which its log shows them.
        text: Markdown as written.
        html: made from `text` by the server, safe to show; empty while a reply is running.
        at: ISO 8601 in UTC.
        status: `running` until a reply has ended, then one of the four endings.
        demo: made up by the demo provider (invariant 7).
        private: a whisper; only its author and its addressee's owner see it.
        reply_to: the message that this one answers.
        usage, error: of a reply, what it took and what went wrong.
        swipes: earlier texts of a regenerated reply, oldest first.

    """

    id: str
    room: str
    author: Author
    text: str
    html: str
    at: str
    status: Status
    demo: bool
    private: bool
    reply_to: str | None = None
    usage: Usage | None = None
    error: str | None = None
    swipes: list[str] | None = None


class Member(Record, frozen=True):
    """Somebody in a room: a human who is present, or a character of its cast."""

    id: str
    name: str
    kind: Kind
    emoji: str | None = None


class Trigger(Record, frozen=True):
    """What a character does on a particular input: where `when` matches, `then` is to be done."""

    when: str
    then: str


class Character(Record, frozen=True, rename={"klass": "class"}):
    """A member of a cast, played by a model.

    Attributes:
        id: unique in its room, stable when the name changes.
        klass: what it is ("Wizard"); `class` on the wire.
        talkativeness: 0 (speaks when named) to 1 (always), for the answer mode `natural`.
        model: the model that plays it, if not the room's.
        muted: stays in the cast, does not speak.
        card: the character card that it came from, whole, for export.

    """

    id: str
    name: str
    klass: str = ""
    emoji: str | None = None
    personality: str = ""
    backstory: str = ""
    instructions: str = ""
    triggers: list[Trigger] = []
    greeting: str = ""
    talkativeness: float = 0.5
    model: str | None = None
    muted: bool = False
    card: dict[str, object] | None = None


class Summary(Record, frozen=True):
    """What was said in a room before, in short, made by a model; never from whispers.

    Attributes:
        text: the summary.
        upto: the id of the last message that is in it.
        since: when the first message that is in it was written, ISO 8601 in UTC.

    """

    text: str
    upto: str
    since: str


class Room(Record, frozen=True, omit_defaults=False):
    """A room's settings. Its messages are apart: they are many, this is one row.

    Attributes:
        scenario: what is going on, in words, for people and characters alike.
        invite: what lets somebody in where visibility is `link`.
        game: it was made by the object dialect, whose clients know it as a game.
        active: a game that was ended is not.
        archived: hidden from lists, still there.
        model: the model that answers, by its owner's name for it; None is the usual one.
        banned: ids of users who may not come in; clients are not told.
        summary: of the messages that no longer fit into prompts; clients are not told.

    """

    id: str
    title: str
    scenario: str = ""
    cast: list[Character] = []
    visibility: Visibility = "private"
    answer: Answer = "all"
    owner: str | None = None
    invite: str | None = None
    game: bool = False
    active: bool = True
    archived: bool = False
    pace: int = 0
    at: str = ""
    model: str | None = None
    banned: list[str] | msgspec.UnsetType = msgspec.UNSET
    summary: Summary | msgspec.UnsetType = msgspec.UNSET
