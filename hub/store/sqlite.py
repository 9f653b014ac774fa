"""SQLite: one file, write-ahead log, FTS5. See https://sqlite.org/wal.html and fts5.html."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from hub.store.contract import StoreError
from hub.store.database import OLDER, READERS, Database
from hub.store.rows import Row
from hub.store.words import Query

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

BUSY_SECONDS = 5.0
"""Waiting for another program that writes (a command of the owner's, a backup tool, a shell).
The hub never waits for itself: it has one writer, and readers do not block it."""

BESIDE_SECONDS = 30.0
"""Waiting beside a hub: SQLite asks ten times a second and nobody queues, so that a busy hub's
transactions, one upon another, leave a gap only now and then."""

WAL_BYTES = 64 * 1024 * 1024
"""Size to which the write-ahead log is cut back after a long read has made it grow."""

GONE = (
    "The database file was removed or replaced while Hubbub was running: nothing can be stored"
    " or read until it is restarted."
)

_TROUBLES = {
    "SQLITE_FULL": "The disk is full: nothing more can be stored.",
    "SQLITE_IOERR": "The disk reports errors: nothing can be stored or read.",
    "SQLITE_READONLY": "The database may only be read: check who may write to its folder.",
    "SQLITE_BUSY": "Another program keeps the database locked.",
    "SQLITE_LOCKED": "Another program keeps the database locked.",
    "SQLITE_CORRUPT": "The database file is damaged: restore a backup.",
    "SQLITE_NOTADB": "This file is not a Hubbub database, or it is damaged.",
    "SQLITE_CANTOPEN": "The database file cannot be opened: check who may read its folder.",
    "SQLITE_PERM": "The database file may not be opened: check who may read its folder.",
    "SQLITE_AUTH": "The database file may not be opened: check who may read its folder.",
}
_ABOUT_DATA = ("SQLITE_CONSTRAINT", "SQLITE_TOOBIG", "SQLITE_MISMATCH", "SQLITE_RANGE")


class SQLite(Database):
    """The file at `path`, made where it is missing."""

    found: ClassVar[str] = (
        # CROSS JOIN: the words first, whatever SQLite guesses about their number.
        "FROM message_words AS f CROSS JOIN messages AS m ON m.n = f.rowid"
        " WHERE message_words MATCH :match"
    )
    found_n: ClassVar[str] = "f.rowid"

    def __init__(
        self, path: Path, synchronous: Synchronous = "FULL", *, beside: bool = False
    ) -> None:
        self.path = path
        self._lock: Lock | None = None
        self._place: tuple[int, int] | None = None
        super().__init__(_writer(path, synchronous, beside=beside), _readers(path), beside=beside)

    def open(self) -> None:
        """See `Database.open`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder {self.path.parent} cannot be made: {error.strerror}."
            ) from None
        if not self.beside:
            self._lock = Lock(self.path)
        super().open()

        self._place = _place(self.path)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """See `Database.writing`. The file is looked for last: what it says then is stored."""
        with super().writing() as connection:
            yield connection
        self._check_place()

    @contextmanager
    def connected(self, engine: Engine) -> Iterator[Connection]:
        """See `Database.connected`. A file that is gone must not be made anew, empty."""
        self._check_place()
        with super().connected(engine) as connection:
            yield connection

    def _check_place(self) -> None:
        """Refuse to go on in a file that nobody will find again; a microsecond or two."""
        if self._place is not None and _place(self.path) != self._place:
            raise StoreError(GONE)

    @contextmanager
    def alone(self, connection: Connection) -> Iterator[None]:  # noqa: ARG002 - a file's lock
        """See `Database.alone`."""
        try:
            lock = Lock(self.path)
        except StoreError:
            raise StoreError(OLDER) from None
        try:
            yield
        finally:
            lock.release()

    def close(self) -> None:
        """See `Database.close`."""
        super().close()
        if self._lock is not None:
            self._lock.release()

    def insert_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """See `Database.insert_messages`."""
        connection.execute(_INSERT, rows)
        self._index(connection, rows)

    def update_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """See `Database.update_messages`."""
        connection.execute(_UPDATE, rows)
        hidden = [row for row in rows if row["words"] is None]
        if hidden:
            connection.execute(_UNINDEX, hidden)
        self._index(connection, rows)

    def _index(self, connection: Connection, rows: Sequence[Row]) -> None:
        found = [{"n": row["n"], "words": " ".join(row["words"])} for row in rows if row["words"]]
        if found:
            connection.execute(_INDEX, found)

    def match(self, query: Query, scopes: Sequence[str]) -> str:
        """See `Database.match`. Words hold no quotes, so that quoting them is enough."""
        terms = [f'"{word}"' for word in query.whole]
        if query.prefix:
            terms.append(f'"{query.prefix}" *')
        if scopes:
            terms.insert(0, "(" + " OR ".join(f'"{scope}"' for scope in scopes) + ")")
        return " AND ".join(terms)

    def trouble(self, error: Exception) -> str | None:
        """See `Database.trouble`."""
        if isinstance(error, OSError):
            return f"The disk reports an error: {error.strerror}."
        if not isinstance(error, DBAPIError):
            return None
        name = getattr(error.orig, "sqlite_errorname", "")
        if not name or name.startswith(_ABOUT_DATA):
            return None
        code = "_".join(name.split("_")[:2])
        return _TROUBLES.get(code, "The database reports an error.")


class Lock:
    """Keeps a second hub away from a database file. The system lifts it if we are killed.

    Raises:
        StoreError: another process has it, or it cannot be made.

    """

    def __init__(self, database: Path) -> None:
        path = database.with_suffix(".lock")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise StoreError(f"Another Hubbub is using {database}.") from None

    def release(self) -> None:
        """Let others have it."""
        os.close(self._file)


def _place(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name, or None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _writer(path: Path, synchronous: Synchronous, *, beside: bool) -> Engine:
    engine = _engine(path, size=1, busy=BESIDE_SECONDS if beside else BUSY_SECONDS)

    def connected(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: really onto the disk
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _readers(path: Path) -> Engine:
    engine = _engine(path, size=READERS)
    event.listen(engine, "connect", lambda conn, _: conn.execute("PRAGMA query_only = ON"))
    return engine


def _engine(path: Path, *, size: int, busy: float = BUSY_SECONDS) -> Engine:
    return create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # what people write is not for the log
        # Transactions begin where we say so, not where the sqlite3 module guesses.
        connect_args={"isolation_level": None, "timeout": busy, "check_same_thread": False},
    )


_INSERT = text(
    "INSERT INTO messages (n, id, room, author, to_user, txn, status, at, data)"
    " VALUES (:n, :id, :room, :author, :to_user, :txn, :status, :at, :data)"
)
_UPDATE = text("UPDATE messages SET status = :status, data = :data WHERE n = :n")
_INDEX = text("INSERT OR REPLACE INTO message_words (rowid, words) VALUES (:n, :words)")
_UNINDEX = text("DELETE FROM message_words WHERE rowid = :n")
