"""What a store promises, whatever it is made of.

Writes are *changes* handed over by `submit`, which never waits. One writer takes them in
the order of submission, commits all that have gathered in one transaction (group commit)
and then calls each `then`, in the same order, in one go, on the trio thread. Hence

    commit, then append to the log, then answer: in one order (invariant 5)

holds even if whoever submitted was cancelled meanwhile: what is committed is also shown.
A `then` is plain code: it must not wait and must not raise.

If the store fails (disk full, database gone), each `then` of the failed batch gets the
error; nothing of that batch is stored. The store tries the next batch afresh, so that it
recovers by itself.

Reads see all that was committed before they were asked for.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from attrs import frozen

from hub.records import Message, Room, Session, User


@frozen
class AddMessage:
    """Store a message. `to` is the whisper's owner (a user id), None for the whole room.

    With a `txn`, the same author's same `txn` again stores nothing: the result is the
    message that was stored first. The result is the stored message.
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
    """Store a room's settings, new or changed."""

    room: Room


@frozen
class RemoveRoom:
    """Remove a room with its messages and members for good."""

    id: str


@frozen
class AddMember:
    """A user may be in a room from now on. Twice is once."""

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
class SaveSession:
    """Store a session, new or changed."""

    session: Session


@frozen
class RemoveSession:
    """End a session."""

    id: str


Change: TypeAlias = (
    AddMessage
    | SaveMessage
    | RemoveMessage
    | SaveRoom
    | RemoveRoom
    | AddMember
    | RemoveMember
    | SaveUser
    | SaveSession
    | RemoveSession
)

Outcome: TypeAlias = "Message | None | StoreError"
"""What `then` is called with: the message of the last `AddMessage`, else None; or the error."""

Then: TypeAlias = Callable[[Outcome], None]


class StoreError(Exception):
    """The store cannot keep or read anything just now; its text is for people."""


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

    async def room(self, id: str) -> Room | None:
        """Return the room, or None."""

    async def room_by_invite(self, invite: str) -> Room | None:
        """Return the room with this invite, or None."""

    async def rooms(self, user: str) -> Sequence[Room]:
        """Public rooms, and those that the user is a member of; the latest written to first."""

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
            query: only messages that hold all these words (as the store's text search sees
                words); None or blank for no search.
        """

    async def aclose(self) -> None:
        """Store what was submitted, then close. Bounded by a deadline of its own."""
