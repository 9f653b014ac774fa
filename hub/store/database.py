"""What the databases have in common: connections, and what their errors mean."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import ClassVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from hub.store.base import CLOSED, NAME_TAKEN, NO_ROOM, NO_USER, TAKEN
from hub.store.contract import StoreError
from hub.store.rows import Row
from hub.store.schema import migrate
from hub.store.words import Query

READERS = 4
"""Threads that read: enough that one long search does not hold up the others."""

OLDER = "The Hubbub that is using this database is older than this program: restart it first."

NOT_OURS = "This is not a Hubbub database, or it is damaged."


class Database(ABC):
    """A database, used by one writing thread and `READERS` reading ones.

    One process is the hub and keeps other hubs away. A process `beside` it may read and write
    as well; transactions take turns.

    Attributes:
        beside: this process is not the hub.
        found: the part of a SELECT that finds messages `m` by `:match`, from FROM on.
        found_n: what `messages.n` is called in it, where it is to be compared and ordered.

    """

    found: ClassVar[str]
    found_n: ClassVar[str]

    def __init__(self, writer: Engine, readers: Engine, *, beside: bool = False) -> None:
        self.beside = beside
        self._writer = writer
        self._readers = readers
        self._tick = 0
        self._closed = threading.Event()

    def open(self) -> None:
        """Make sure that no other hub is here, and bring the tables up to date.

        Raises:
            StoreError: this cannot be used.

        """
        with self.writing() as connection:
            self.check(connection)
            migrate(
                connection, alone=partial(self.alone, connection) if self.beside else nullcontext
            )
            self._tick = connection.scalar(text("SELECT max(written) FROM rooms")) or 0

    def check(self, connection: Connection) -> None:  # noqa: B027 - most have nothing to check
        """Refuse a database that is set up wrongly."""

    @abstractmethod
    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        """Keep hubs away from the tables, until the block or the transaction ends.

        Raises:
            StoreError: one is here.

        """

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, committed at the end."""
        with self.connected(self._writer) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees what was committed before each statement."""
        with self.connected(self._readers) as connection:
            yield connection

    @contextmanager
    def connected(self, engine: Engine) -> Iterator[Connection]:
        """A connection that is closed for good where `close` came in between.

        A thread that nobody waited for may come back with it, to a pool that nobody empties.
        """
        if self._closed.is_set():
            raise StoreError(CLOSED)
        pool = engine.pool
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            if self._closed.is_set():
                pool.dispose()
                engine.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what goes wrong in the block into a `StoreError`."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(self.trouble(error) or NOT_OURS) from error

    def tick(self) -> int:
        """Return a time in microseconds, later than all before, whatever the clock does."""
        self._tick = max(self._tick + 1, time.time_ns() // 1000)
        return self._tick

    def reset(self) -> None:
        """Drop the writer's connection, so that the next batch begins afresh."""
        self._writer.dispose()

    def close(self) -> None:
        """Give everything back; the writer's connection last, which then tidies up."""
        self._closed.set()
        self._readers.dispose()
        self._writer.dispose()

    @abstractmethod
    def insert_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Store new messages; `words` are those that they are found by, or None."""

    @abstractmethod
    def update_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Store `data`, `status` and `words` over those of message `n`."""

    @abstractmethod
    def match(self, query: Query, scopes: Sequence[str]) -> str:
        """Write a query for `found`; it need be in one of the scopes, if there are any."""

    @abstractmethod
    def trouble(self, error: Exception) -> str | None:
        """Say what ails the database, or None if the error is about the data only."""

    def refusal(self, error: Exception) -> StoreError:
        """Say why these data are refused."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, IntegrityError):
            return StoreError(_refusal(error))
        return StoreError("This cannot be stored.")


_OF_USERS = ("INSERT INTO accounts", "INSERT INTO identities", "INSERT INTO tokens")


def _refusal(error: IntegrityError) -> str:
    statement = error.statement or ""
    if "foreign key" in str(error.orig).lower():
        return NO_USER if statement.startswith(_OF_USERS) else NO_ROOM
    return NAME_TAKEN if statement.startswith("INSERT INTO accounts") else TAKEN
