"""The tables, and how they came to be: numbered steps, each run once, in one transaction.

Plain functions, since there is one writer and no branch of history to merge: Alembic's
revision graph would be more to learn than the tables. A step never changes once released.

`data` holds a record whole, as JSON; the other columns are what is looked for. `messages.n`
counts messages in the order in which they were stored, `rooms.written` is when a room was
last written to, in microseconds. A message that has not ended has no words to be found by.
The row `accounts` of `meta` counts the changes of accounts.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from sqlalchemy import Connection, text

from hub.store.contract import StoreError

Migration: TypeAlias = Callable[[Connection], None]

_TABLES = """
CREATE TABLE users (id {key} PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE sessions (
    id {key} PRIMARY KEY, user_id {key} NOT NULL, expires {real} NOT NULL, data TEXT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expires ON sessions (expires);
CREATE TABLE rooms (
    id {key} PRIMARY KEY, visibility TEXT NOT NULL, invite {key} UNIQUE,
    written BIGINT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX rooms_visible ON rooms (visibility, written);
CREATE TABLE members (
    room {key} NOT NULL REFERENCES rooms (id) ON DELETE CASCADE, user_id {key} NOT NULL,
    PRIMARY KEY (user_id, room)
);
CREATE INDEX members_room ON members (room);
CREATE TABLE messages (
    n {serial} PRIMARY KEY, id {key} NOT NULL UNIQUE,
    room {key} NOT NULL REFERENCES rooms (id) ON DELETE CASCADE,
    author {key} NOT NULL, to_user {key}, txn {key}, status TEXT NOT NULL, at {key} NOT NULL,
    data TEXT NOT NULL{words}
);
CREATE INDEX messages_page ON messages (room, to_user, id);
CREATE UNIQUE INDEX messages_txn ON messages (txn, author) WHERE txn IS NOT NULL;
CREATE INDEX messages_running ON messages (n) WHERE status = 'running';
CREATE INDEX messages_at ON messages (at);
"""

_SQLITE_WORDS = """
CREATE VIRTUAL TABLE message_words USING fts5(
    words, detail=none, prefix='3', tokenize='ascii'
);
CREATE TRIGGER messages_removed AFTER DELETE ON messages
    BEGIN DELETE FROM message_words WHERE rowid = old.n; END;
"""

_POSTGRESQL_WORDS = "CREATE INDEX messages_words ON messages USING gin (words);"


# The id of a sum stands for day, user, room and model: an index of three long keys would be
# too long for PostgreSQL. The index of answers holds all that trimming has to read.
_ACCOUNTS = """
CREATE TABLE accounts (
    user_id {key} PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    key {key} NOT NULL UNIQUE, data TEXT NOT NULL
);
CREATE TABLE identities (
    subject {key} PRIMARY KEY, user_id {key} NOT NULL REFERENCES users (id) ON DELETE CASCADE
);
CREATE INDEX identities_user ON identities (user_id);
CREATE TABLE tokens (
    id {key} PRIMARY KEY, kind TEXT NOT NULL,
    user_id {key} NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    at {key} NOT NULL, expires {real}, data TEXT NOT NULL
);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX tokens_expires ON tokens (expires) WHERE expires IS NOT NULL;
CREATE TABLE tallies (
    id {key} PRIMARY KEY,
    day {key} NOT NULL, user_id {key} NOT NULL, room {key} NOT NULL, model {key} NOT NULL,
    calls BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
    cost {real} NOT NULL
);
CREATE INDEX tallies_day ON tallies (day);
CREATE TABLE answers (
    key {key} PRIMARY KEY, at {real} NOT NULL, size BIGINT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX answers_age ON answers (at, key, size);
INSERT INTO meta (name, value) VALUES ('accounts', '0');
"""

_SQLITE_TYPES = {"key": "TEXT", "real": "REAL", "serial": "INTEGER"}
# Ids are compared as bytes, as Python and SQLite do, not as a language sorts them.
_POSTGRESQL_TYPES = {"key": 'TEXT COLLATE "C"', "real": "DOUBLE PRECISION", "serial": "BIGINT"}


def _first(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        _run(connection, _TABLES.format_map(_SQLITE_TYPES | {"words": ""}) + _SQLITE_WORDS)
    else:
        columns = _POSTGRESQL_TYPES | {"words": ", words TSVECTOR"}
        _run(connection, _TABLES.format_map(columns) + _POSTGRESQL_WORDS)


def _second(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    _run(connection, _ACCOUNTS.format_map(_SQLITE_TYPES if sqlite else _POSTGRESQL_TYPES))


def _run(connection: Connection, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)


MIGRATIONS: Sequence[Migration] = (_first, _second)


def migrate(
    connection: Connection,
    steps: Sequence[Migration] = MIGRATIONS,
    *,
    alone: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Bring the tables to the newest version.

    Args:
        connection: in a transaction.
        steps: all that there are.
        alone: keeps hubs away while there is something to do.

    Raises:
        StoreError: a newer program has been here.

    """
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
    )
    version = version_of(connection)
    if version > len(steps):
        raise StoreError(
            f"This database was written by a newer Hubbub (version {version} of the tables,"
            f" this program knows {len(steps)}). Use the newer program, or restore a backup."
        )
    if version < len(steps):
        with alone():
            for step in steps[version:]:
                step(connection)
            connection.execute(_SET_VERSION, {"version": str(len(steps))})


def version_of(connection: Connection) -> int:
    """Return how many steps this database has gone through."""
    version = connection.scalar(text("SELECT value FROM meta WHERE name = 'version'"))
    return int(version or 0)


_SET_VERSION = text(
    "INSERT INTO meta (name, value) VALUES ('version', :version)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
