"""A log of events, each encoded once; a cursor is a reader's place in it.

A log numbers its events from 1 without a gap. It holds the newest ones, as many as its
window in bytes allows. A reader that has seen everything up to `offset` of this `epoch`
can go on from there for as long as the window holds the event after it (invariant 4).
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from hub.events import Event
from hub.wire.dialect import Dialect

if TYPE_CHECKING:
    from hub.client import Client

# A reader that lags gets its frames in pieces of about this size: large enough that system
# calls don't matter, small enough that one laggard doesn't hold up the others for long.
CHUNK = 64 * 1024

# What an event costs besides its frame: the objects around it.
OVERHEAD = 250


class _Entry:
    __slots__ = ("event", "frames", "room", "size")

    def __init__(self, room: str, event: Event) -> None:
        self.room = room
        self.event = event
        self.frames: dict[Dialect, bytes] = {}
        self.size = 0


class Cursor:
    """A client's place in a log: it has been given all events up to `offset`."""

    __slots__ = ("client", "dialect", "log", "offset")

    def __init__(self, client: "Client", log: "Log", offset: int) -> None:
        self.client = client
        self.dialect = client.dialect
        self.log = log
        self.offset = offset


class Behind(Exception):
    """The window no longer holds what the reader needs next."""


class Log:
    """Append-only events, with the cursors that follow them.

    Args:
        native: the dialect whose frames measure the window.
        window: bytes of frames that are held.
        grown: called after each append; the pump's ear.
        inbox: the log is a user's inbox; its events come from many rooms.

    """

    __slots__ = (
        "_bytes",
        "_entries",
        "_grown",
        "_joined",
        "_native",
        "_window",
        "dropped",
        "epoch",
        "followers",
        "inbox",
    )

    def __init__(
        self, native: Dialect, window: int, grown: Callable[["Log"], None], *, inbox: bool = False
    ) -> None:
        self.epoch = secrets.token_hex(6)
        self.inbox = inbox
        self.followers: dict[Cursor, None] = {}
        self.dropped = 0
        self._entries: list[_Entry] = []
        self._bytes = 0
        self._joined: dict[tuple[int, Dialect], tuple[bytes, int]] = {}
        self._native = native
        self._window = window
        self._grown = grown

    @property
    def head(self) -> int:
        """Offset of the newest event; 0 if there was none yet."""
        return self.dropped + len(self._entries)

    def append(self, room: str, event: Event) -> int:
        """Add an event and return its offset."""
        entry = _Entry(room, event)
        self._entries.append(entry)
        entry.size = len(self._frame(entry, self.head, self._native)) + OVERHEAD
        self._bytes += entry.size
        if self._bytes > self._window:
            self._shrink()
        self._joined.clear()
        self._grown(self)
        return self.head

    def holds(self, epoch: str, offset: int) -> bool:
        """Whether a reader that has seen `offset` of `epoch` can go on from there."""
        return epoch == self.epoch and self.dropped <= offset <= self.head

    def forget(self, gone: Callable[[Event], bool]) -> None:
        """Drop all events up to the last of which `gone` says that nobody may have it any more.

        A reader that still needs one of those is `Behind`.
        """
        counts = (n for n, entry in enumerate(self._entries, 1) if gone(entry.event))
        self._drop(max(counts, default=0))

    def follow(self, client: "Client", offset: int | None = None) -> Cursor:
        """Add a reader which has seen everything up to `offset` (None: up to now)."""
        cursor = Cursor(client, self, self.head if offset is None else offset)
        self.followers[cursor] = None
        if cursor.offset < self.head:
            self._grown(self)
        return cursor

    def unfollow(self, cursor: Cursor) -> None:
        """Forget a reader; twice is once."""
        self.followers.pop(cursor, None)

    def after(self, offset: int, dialect: Dialect) -> tuple[bytes, int]:
        """Frames of the events after `offset`, about CHUNK bytes at most, and the new offset.

        Readers at the same place get the same bytes object.

        Raises:
            Behind: those events are gone.

        """
        key = (offset, dialect)
        found = self._joined.get(key)
        if found is None:
            found = self._joined[key] = self._join(offset, dialect)
        return found

    def _join(self, offset: int, dialect: Dialect) -> tuple[bytes, int]:
        index = offset - self.dropped
        if index < 0:
            raise Behind
        frames = []
        size = 0
        while index < len(self._entries) and size < CHUNK:
            entry = self._entries[index]
            index += 1
            frame = self._frame(entry, self.dropped + index, dialect)
            frames.append(frame)
            size += len(frame)
        return (frames[0] if len(frames) == 1 else b"".join(frames)), self.dropped + index

    def _frame(self, entry: _Entry, offset: int, dialect: Dialect) -> bytes:
        frame = entry.frames.get(dialect)
        if frame is None:
            frame = dialect.event(entry.room, offset, self.inbox, entry.event)
            entry.frames[dialect] = frame
        return frame

    def _shrink(self) -> None:
        # The newest event stays, however big: someone who keeps up must always get it.
        # An eighth at a time, since cutting a list's front moves all the rest.
        left = self._bytes - self._window + self._window // 8
        count = 0
        while left > 0 and count < len(self._entries) - 1:
            left -= self._entries[count].size
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        self._bytes -= sum(entry.size for entry in self._entries[:count])
        del self._entries[:count]
        self.dropped += count
        self._joined.clear()
