"""What a store promises, whatever it is made of.

Writes are *changes* handed over by `submit`, which never waits. One writer takes them in
the order of submission, commits all that have gathered in one transaction (group commit)
and then calls each `then`, in the same order, in one go, on the trio thread. Hence

    commit, then append to the log, then answer: in one order (invariant 5)

holds even if whoever submitted was cancelled meanwhile: what is committed is also shown.
A `then` is plain code: it must not wait and must not raise. It is never called inside
`submit` itself.

If the store fails (disk full, database gone), each `then` of the failed batch gets the
error; nothing of that batch is stored (but see `StoreError.unknown`). The store tries the
next batch afresh, so that it recovers by itself. What is wrong with the changes of one
`submit` (a text that cannot be stored, a room that is gone) fails those only.

Reads see all that was committed before they were asked for.

Keys (ids, invites, txns) are opaque text of at most `KEY_LENGTH` characters. The ids of
one room's messages rise in the order in which they are added; paging relies on it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from attrs import frozen

from hub.records import Account, Message, Room, Session, Tally, Token, User

KEY_LENGTH = 255
"""Characters: two keys in four bytes a character fit PostgreSQL's index entries (2,704 bytes)."""

ROOMS_LISTED = 500
"""Rooms in one list: more than anybody looks through, few enough to send at once."""


@frozen
class AddMessage:
    """Store a message. `to` is the whisper's owner (a user id), None for the whole room.

    With a `txn`, the same author's same `txn` again stores nothing: the result is the
    message that was stored first. So it is with the same id again. The result is the stored
    message. A room that is not there (removed meanwhile) refuses it with a `StoreError`.
    """

    message: Message
    to: str | None = None
    txn: str | None = None


@frozen
class SaveMessage:
    """Store the message's present text, html, status and so on over the earlier ones.

    A message that is not there (removed meanwhile) stays away.
    """

    message: Message


@frozen
class RemoveMessage:
    """Remove a message for good."""

    room: str
    id: str


@frozen
class SaveRoom:
    """Store a room's settings, new or changed. An invite that another room has is refused."""

    room: Room


@frozen
class RemoveRoom:
    """Remove a room with its messages and members for good."""

    id: str


@frozen
class AddMember:
    """A user may be in a room from now on. Twice is once. A room that is gone refuses it."""

    room: str
    user: str


@frozen
class RemoveMember:
    """A user is no member of a room any more."""

    room: str
    user: str


@frozen
class SaveUser:
    """Store a user, new or changed."""

    user: User


@frozen
class AddUser:
    """Store a user who is not there yet; one who is stays as they are stored.

    For those who know a user only as they were a moment ago, and must not undo what has
    changed since: a role taken, an account made.
    """

    user: User


@frozen
class SaveSession:
    """Store a session, new or changed."""

    session: Session


@frozen
class RemoveSession:
    """End a session."""

    id: str


@frozen
class EndSessions:
    """End all sessions of a user, but `keep` (a session's id)."""

    user: str
    keep: str | None = None


@frozen
class RemoveExpired:
    """Remove sessions and tokens that expired before `now` (seconds since the epoch)."""

    now: float


@frozen
class SaveAccount:
    """Store an account, new or changed.

    A key that another account has is refused, and so is the account of a user that is gone.
    """

    account: Account


@frozen
class RemoveUser:
    """Remove a user with account, identities, tokens, sessions and memberships.

    What they said stays: it is part of other people's rooms.
    """

    id: str


@frozen
class SaveIdentity:
    """Somebody whom another service knows as `subject` is this user, from now on.

    A user that is gone refuses it.
    """

    subject: str
    user: str


@frozen
class SaveToken:
    """Store a token, new or changed. A user that is gone refuses it."""

    token: Token


@frozen
class RemoveToken:
    """A token opens nothing any more. Twice is once."""

    id: str


@frozen
class AddTally:
    """Add to the sums of the same day, user, room and model."""

    tally: Tally


@frozen
class SaveAnswer:
    """Keep a model's answer under a key, over an earlier one.

    `at` is seconds since the epoch. `data` is JSON, or other text without NUL.
    """

    key: str
    data: str
    at: float


@frozen
class TrimAnswers:
    """Forget answers from before `before`, then the oldest until `size` bytes are left at most.

    The bytes are those of `data` in UTF-8.
    """

    before: float
    size: int


Change: TypeAlias = (
    AddMessage
    | SaveMessage
    | RemoveMessage
    | SaveRoom
    | RemoveRoom
    | AddMember
    | RemoveMember
    | SaveUser
    | AddUser
    | SaveSession
    | RemoveSession
    | EndSessions
    | RemoveExpired
    | SaveAccount
    | RemoveUser
    | SaveIdentity
    | SaveToken
    | RemoveToken
    | AddTally
    | SaveAnswer
    | TrimAnswers
)

Outcome: TypeAlias = "Message | StoreError | None"
"""What `then` is called with: the message of the last `AddMessage`, else None; or the error."""

Then: TypeAlias = Callable[[Outcome], None]


class StoreError(Exception):
    """The store cannot keep or read this just now; its text is for people.

    Attributes:
        unknown: the database was lost while it committed, and did not come back in time to
            say whether it had. The same changes may be submitted again: a message with the
            same id or txn is stored once.

    """

    def __init__(self, sentence: str, *, unknown: bool = False) -> None:
        super().__init__(sentence)
        self.unknown = unknown


class Store(Protocol):
    """See the module's own text. All ids are opaque text to the store."""

    def submit(self, *changes: Change, then: Then | None = None) -> None:
        """Hand over changes that belong together: all are stored, or none."""

    async def commit(self, *changes: Change) -> Message | None:
        """Submit and wait for it. Cancelled: the changes are stored all the same.

        Raises:
            StoreError: they are not stored.

        """

    async def user(self, id: str) -> User | None:
        """Return the user, or None."""

    async def session(self, id: str) -> Session | None:
        """Return the session, expired or not, or None."""

    async def account(self, user: str) -> Account | None:
        """Return a user's account, or None."""

    async def account_by_key(self, key: str) -> Account | None:
        """Return the account of a name (`hub.names.key`), or None."""

    async def accounts(self) -> Sequence[tuple[User, Account]]:
        """Return all accounts with their users, by key."""

    async def accounts_version(self) -> int:
        """Return a number that rises whenever a user with an account, or an account, changes.

        Also where another process did it: so that a running hub notices.
        """

    async def identity(self, subject: str) -> str | None:
        """Return the id of the user whom another service knows as `subject`, or None."""

    async def token(self, id: str) -> Token | None:
        """Return the token, expired or not, or None."""

    async def tokens(self, kind: str, user: str | None = None) -> Sequence[Token]:
        """Return all tokens of a kind, or those of one user, the oldest first."""

    async def usage(self, since: str, until: str = "9999") -> Sequence[Tally]:
        """Return the sums of the days from `since` until before `until`, by day."""

    async def answer(self, key: str) -> tuple[str, float] | None:
        """Return what was kept under a key, and since when; or None."""

    async def room(self, id: str) -> Room | None:
        """Return the room, or None."""

    async def room_by_invite(self, invite: str) -> Room | None:
        """Return the room with this invite, or None."""

    async def rooms(self, user: str, *, limit: int = ROOMS_LISTED) -> Sequence[Room]:
        """Public rooms, and those that the user is a member of; the latest written to first.

        A new room counts as written to, changed settings do not.
        """

    async def is_member(self, room: str, user: str) -> bool:
        """Whether the user was added to the room."""

    async def message(self, room: str, id: str) -> tuple[Message, str | None] | None:
        """Return a message and whose whisper it is (a user id, or None), or None."""

    async def messages(
        self,
        room: str,
        *,
        viewer: str | None,
        before: str | None = None,
        limit: int = 50,
        query: str | None = None,
    ) -> tuple[Sequence[Message], bool]:
        """A page of a room's messages, oldest first, and whether there are older ones.

        Args:
            room: whose messages.
            viewer: sees the whispers that are theirs; None sees no whispers at all.
            before: an id; only messages with smaller ids.
            limit: the newest so many of those.
            query: only messages that hold all these words, as `hub.store.words` sees words;
                None or blank for no search. A reply is found once it has ended.

        """

    async def search(
        self, user: str, query: str, *, before: str | None = None, limit: int = 50
    ) -> tuple[Sequence[Message], bool]:
        """Find words in all rooms that `rooms` would list for the user, without its limit.

        Args:
            user: whose rooms; sees the whispers that are theirs.
            query: as in `messages`; blank finds nothing.
            before: the id of a message; only those that were stored earlier.
            limit: the latest stored so many.

        Returns:
            The messages in the order in which they were stored, and whether there are earlier
            ones.

        """

    async def transcript(
        self, room: str, *, viewer: str | None, after: str = "", limit: int = 500
    ) -> Sequence[Message]:
        """The oldest `limit` messages with ids greater than `after`; empty at the end.

        For those who walk through a whole room in order, page by page.
        """

    async def older(self, at: str, *, limit: int = 500) -> Sequence[Message]:
        """Some messages of any room that were written before `at` (ISO 8601 in UTC)."""

    async def aclose(self) -> None:
        """Store what was submitted, then close. Bounded by a deadline of its own."""
