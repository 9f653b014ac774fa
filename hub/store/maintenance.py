"""What an owner does with a store: back up, restore, check, read, forget what is old.

All but `restore` work while a hub uses the database, from another process. All but
`expire` block, and are meant for the command line.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import Connection, text

from hub.records import Account, Message, Record, Room, Session, Token, User
from hub.store.contract import RemoveMessage, Store, StoreError
from hub.store.opening import choose
from hub.store.rows import decode_message
from hub.store.schema import MIGRATIONS, version_of
from hub.store.sqlite import Lock, SQLite

PROBLEMS = 100
"""Problems that are listed; after so many it is clear that the database is broken."""

ONLY_SQLITE = "For a PostgreSQL database use its own tools: pg_dump and pg_restore."


def backup(where: str | Path, target: Path) -> None:
    """Write a copy of a database to a new file, whole and as of one moment.

    Raises:
        StoreError: there is nothing to copy, or the copy cannot be written.

    """
    source = _file(where)
    if target.exists():
        raise StoreError(f"{target} exists already; nothing was written.")
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    database = SQLite(source)
    try:
        with database.explained(), database.reading() as connection:
            connection.exec_driver_sql("PRAGMA query_only = OFF")
            connection.execute(text("VACUUM INTO :target"), {"target": str(partial)})
            _onto_disk(partial)
            partial.rename(target)
    finally:
        database.close()
        partial.unlink(missing_ok=True)


def restore(copy: Path, where: str | Path) -> Path | None:
    """Put a backup in the place of a database that no hub is using.

    Returns:
        Where the database that was there is now; None if there was none.

    Raises:
        StoreError: the backup is damaged, or a hub is using the database.

    """
    problems = check(copy)
    if problems:
        raise StoreError(f"{copy} is damaged and was not restored: {problems[0]}")
    target = _path(where)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(target)
    try:
        with SQLite(target).explained():
            partial = target.with_name(target.name + ".partial")
            shutil.copyfile(copy, partial)
            _onto_disk(partial)
            replaced = _move_away(target)
            partial.replace(target)
            return replaced
    finally:
        lock.release()


def check(where: str | Path) -> list[str]:
    """Look for damage and contradictions; return what is wrong, in sentences.

    Raises:
        StoreError: the database cannot be read at all.

    """
    database = choose(where)
    if isinstance(database, SQLite):
        _file(where)
    try:
        with database.explained(), database.reading() as connection:
            return _problems(connection)[:PROBLEMS]
    finally:
        database.close()


def room(where: str | Path, id: str) -> Room:
    """Return a room's settings.

    Raises:
        StoreError: there is none, or the database cannot be read.

    """
    database = choose(where)
    if isinstance(database, SQLite):
        _file(where)
    try:
        with database.explained(), database.reading() as connection:
            data = connection.scalar(_ROOM, {"id": id})
            if data is None:
                raise StoreError(f"There is no room {id}.")
            return msgspec.json.decode(data, type=Room)
    finally:
        database.close()


def pages(where: str | Path, id: str) -> Iterator[Sequence[Message]]:
    """Give a room's messages, oldest first, in pages; without whispers.

    Raises:
        StoreError: the database cannot be read.

    """
    database = choose(where)
    try:
        after = ""
        while True:
            with database.explained(), database.reading() as connection:
                rows = connection.execute(_SAID, {"room": id, "after": after}).all()
                page = [decode_message(row.data) for row in rows]
            if not page:
                return
            yield page
            after = page[-1].id
    finally:
        database.close()


_ROOM = text("SELECT data FROM rooms WHERE id = :id")
_SAID = text(
    "SELECT data FROM messages WHERE room = :room AND to_user IS NULL AND id > :after"
    " ORDER BY id LIMIT 500"
)


async def expire(store: Store, before: str) -> int:
    """Remove messages written before `before` (ISO 8601 in UTC); return how many.

    It goes through the store's writer in small steps, so that people hardly wait for it.

    Raises:
        StoreError: the store failed; what was removed until then stays removed.

    """
    removed = 0
    while old := await store.older(before):
        await store.commit(*(RemoveMessage(message.room, message.id) for message in old))
        removed += len(old)
    return removed


def _problems(connection: Connection) -> list[str]:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        damage = connection.scalars(text(f"PRAGMA integrity_check({PROBLEMS})")).all()
        if list(damage) != ["ok"]:
            return [f"The file is damaged: {what}." for what in damage]
    version = version_of(connection)
    if not 0 < version <= len(MIGRATIONS):
        return [f"The tables have version {version}, this program knows {len(MIGRATIONS)}."]
    checks = _CHECKS | (_SQLITE_CHECKS if sqlite else _POSTGRESQL_CHECKS)
    records = _RECORDS
    if version > 1:  # an older hub's tables are whole without these
        checks, records = checks | _SECOND_CHECKS, records | _SECOND_RECORDS
    return [
        *_contradictions(connection, checks),
        *_unreadable(connection),
        *_unreadable_records(connection, records),
    ]


def _contradictions(connection: Connection, checks: dict[str, str]) -> list[str]:
    counts = {what: connection.scalar(text(sql)) for what, sql in checks.items()}
    return [f"{count} {what}." for what, count in counts.items() if count]


def _unreadable(connection: Connection) -> list[str]:
    found: list[str] = []
    n = 0
    while page := connection.execute(_PAGE, {"n": n}).all():
        found += [
            f"Message {row.id} cannot be read."
            for row in page
            if not _is_readable(row.data, Message)
        ]
        n = page[-1].n
    return found


def _unreadable_records(connection: Connection, records: dict[str, type[Record]]) -> list[str]:
    found = []
    for table, kind in records.items():
        rows = connection.execute(text(f"SELECT * FROM {table}")).mappings()  # noqa: S608
        bad = sum(not _is_readable(row["data"], kind) for row in rows)
        found += [f"{bad} {table} cannot be read."] if bad else []
    return found


def _is_readable(data: str, kind: type[Record]) -> bool:
    try:
        msgspec.json.decode(data, type=kind)
    except ValueError:
        return False
    return True


_PAGE = text("SELECT n, id, data FROM messages WHERE n > :n ORDER BY n LIMIT 1000")
_CHECKS = {
    "messages are in no room": (
        "SELECT count(*) FROM messages WHERE room NOT IN (SELECT id FROM rooms)"
    ),
    "members are of no room": (
        "SELECT count(*) FROM members WHERE room NOT IN (SELECT id FROM rooms)"
    ),
}
_SECOND_CHECKS = {
    f"{table} are of no user": (
        f"SELECT count(*) FROM {table} WHERE user_id NOT IN (SELECT id FROM users)"  # noqa: S608
    )
    for table in ("accounts", "identities", "tokens")
}
_RECORDS: dict[str, type[Record]] = {"users": User, "sessions": Session, "rooms": Room}
_SECOND_RECORDS: dict[str, type[Record]] = {"accounts": Account, "tokens": Token}
_SQLITE_CHECKS = {
    "ended messages cannot be found by search": (
        "SELECT count(*) FROM messages WHERE status <> 'running'"
        " AND n NOT IN (SELECT rowid FROM message_words)"
    ),
    "entries of the search are of no message": (
        "SELECT count(*) FROM message_words WHERE rowid NOT IN (SELECT n FROM messages)"
    ),
}
_POSTGRESQL_CHECKS = {
    "ended messages cannot be found by search": (
        "SELECT count(*) FROM messages WHERE status <> 'running' AND words IS NULL"
    ),
}


def _path(where: str | Path) -> Path:
    database = choose(where)
    if not isinstance(database, SQLite):
        raise StoreError(ONLY_SQLITE)
    return database.path


def _file(where: str | Path) -> Path:
    path = _path(where)
    if not path.is_file():
        raise StoreError(f"There is no database at {path}.")
    return path


def _move_away(path: Path) -> Path | None:
    """Keep what a backup replaces. Its log goes along: without it the file may be incomplete."""
    if not path.exists():
        return None
    replaced = path.with_name(path.name + ".replaced")
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        replaced.with_name(replaced.name + suffix).unlink(missing_ok=True)
        if log.exists():
            log.replace(replaced.with_name(replaced.name + suffix))
    return path.replace(replaced)


def _onto_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
