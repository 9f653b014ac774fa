"""PostgreSQL, through psycopg 3."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from hub.store.contract import StoreError
from hub.store.database import OLDER, READERS, Database
from hub.store.rows import Row
from hub.store.words import Query

CONNECT_SECONDS = 5
"""Waiting for a server that does not answer at all; one that is down refuses at once."""

SILENT_MS = 10_000
"""A server that has acknowledged no packet for so long is lost (`tcp_user_timeout`)."""

READ_MS, WRITE_MS = 30_000, 60_000
"""The longest that one statement may take; a room of 100,000 messages is removed in seconds."""

DOUBT_SECONDS = 10.0
"""Waiting for a server that was lost in COMMIT, to ask it whether it had committed."""

LOCK_SECONDS = 5.0
"""Waiting for the lock of a hub that was killed: its connection may outlive it for a moment."""

LOCK_KEY = 0x687562627562  # "hubbub"

TURN_KEY = LOCK_KEY + 1
"""The lock of whoever writes, for one transaction: as in SQLite, one at a time. `messages.n`
counts on it, and two that change the same rows could block each other."""

UNREACHABLE = "The database cannot be reached, or does not let us in."

_TROUBLES = {
    "53100": "The database's disk is full: nothing more can be stored.",
    "53300": "The database has no connection free.",
    "28P01": "The database refuses this password.",
    "28000": "The database refuses this user.",
    "3D000": "The database does not exist.",
    "42501": "The database does not let this user do that.",
    "25006": "The database may only be read.",
    "57014": "The database takes too long.",
}
_AHEAD = "22023"  # of txid_status: no transaction has had this number yet
_ABOUT_DATA = ("22", "23", "54")  # data exception, constraint violation, limit exceeded


class PostgreSQL(Database):
    """The database at `url`, which must exist."""

    found: ClassVar[str] = "FROM messages AS m WHERE m.words @@ CAST(:match AS tsquery)"
    found_n: ClassVar[str] = "m.n"

    def __init__(self, url: URL, *, beside: bool = False) -> None:
        url = url.set(drivername="postgresql+psycopg")
        super().__init__(_writer(url, beside=beside), _readers(url), beside=beside)

    def check(self, connection: Connection) -> None:
        """See `Database.check`."""
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise StoreError(f"The database is encoded in {encoding}; Hubbub needs UTF8.")

    def alone(self, connection: Connection) -> AbstractContextManager[object]:
        """See `Database.alone`. The lock ends with the transaction."""
        if not connection.scalar(_NO_HUB, {"key": LOCK_KEY}):
            raise StoreError(OLDER)
        return nullcontext()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction. If the server is lost in COMMIT it is asked, once it is back."""
        with self.connected(self._writer) as connection:
            transaction = connection.begin()
            try:
                number = connection.scalar(_BEGIN, {"key": TURN_KEY})
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                doubt = error
            else:
                return
        if not self._was_committed(number):
            raise doubt

    def _was_committed(self, number: int | None) -> bool:
        give_up = time.monotonic() + DOUBT_SECONDS
        while time.monotonic() < give_up:
            try:
                with self.reading() as connection:
                    status = connection.scalar(_STATUS, {"number": number})
            except DBAPIError as error:
                # A server that crashed gives a number again if nothing of it was on its disk.
                ahead = getattr(error.orig, "sqlstate", None) == _AHEAD
                status = "aborted" if ahead else "in progress"
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(0.1)
        raise StoreError(
            "The database was lost in the middle of storing this. It may be there or not;"
            " sending it again is safe.",
            unknown=True,
        )

    def insert_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """See `Database.insert_messages`."""
        connection.execute(_INSERT, rows)

    def update_messages(self, connection: Connection, rows: Sequence[Row]) -> None:
        """See `Database.update_messages`."""
        connection.execute(_UPDATE, rows)

    def match(self, query: Query, scopes: Sequence[str]) -> str:
        """See `Database.match`. Words hold no quotes, so that quoting them is enough."""
        terms = [f"'{word}'" for word in query.whole]
        if query.prefix:
            terms.append(f"'{query.prefix}':*")
        if scopes:
            terms.append("(" + " | ".join(f"'{scope}'" for scope in scopes) + ")")
        return " & ".join(terms)

    def trouble(self, error: Exception) -> str | None:
        """See `Database.trouble`."""
        if not isinstance(error, DBAPIError):
            return None
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or not state:
            return _TROUBLES.get(state) or _without_state(error)
        if state.startswith(_ABOUT_DATA):
            return None
        return _TROUBLES.get(state, "The database reports an error.")


def _without_state(error: DBAPIError) -> str | None:
    """Errors of libpq have no code: either there is no connection, or no way to send a value."""
    lost = error.connection_invalidated or "OperationalError" in type(error.orig).__name__
    return UNREACHABLE if lost else None


def _writer(url: URL, *, beside: bool) -> Engine:
    engine = _engine(url, size=1, statement_ms=WRITE_MS)
    if not beside:
        event.listen(engine, "connect", lambda connection, _: _take_lock(connection))
    return engine


def _readers(url: URL) -> Engine:
    return _engine(url, size=READERS, statement_ms=READ_MS, isolation_level="AUTOCOMMIT")


def _engine(url: URL, *, size: int, statement_ms: int, **options: Any) -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # what people write is not for the log
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENT_MS,
            "application_name": "hubbub",
            "client_encoding": "utf8",
        },
        **options,
    )

    def connected(connection: Any, _record: object) -> None:
        connection.execute(f"SET statement_timeout = {statement_ms}")
        connection.commit()

    event.listen(engine, "connect", connected)
    return engine


def _take_lock(connection: Any) -> None:
    """Keep a second hub away: it would end the replies that are running in the first."""
    give_up = time.monotonic() + LOCK_SECONDS
    while not connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone()[0]:
        if time.monotonic() > give_up:
            connection.close()
            raise StoreError("Another Hubbub is using this database.")
        time.sleep(0.05)
    connection.commit()


_BEGIN = text("SELECT txid_current(), pg_advisory_xact_lock(:key)")
_NO_HUB = text("SELECT pg_try_advisory_xact_lock(:key)")
_STATUS = text("SELECT txid_status(:number)")
_INSERT = text(
    "INSERT INTO messages (n, id, room, author, to_user, txn, status, at, data, words)"
    " VALUES (:n, :id, :room, :author, :to_user, :txn, :status, :at, :data,"
    " array_to_tsvector(CAST(:words AS text[])))"
)
_UPDATE = text(
    "UPDATE messages SET status = :status, data = :data,"
    " words = array_to_tsvector(CAST(:words AS text[])) WHERE n = :n"
)
