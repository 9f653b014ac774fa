"""Changes to SQL: neighbours of one kind in one statement, which is what makes it fast."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text

from hub.records import Message
from hub.store.contract import (
    AddMember,
    AddMessage,
    AddTally,
    AddUser,
    Change,
    EndSessions,
    RemoveExpired,
    RemoveMember,
    RemoveMessage,
    RemoveRoom,
    RemoveSession,
    RemoveToken,
    RemoveUser,
    SaveAccount,
    SaveAnswer,
    SaveIdentity,
    SaveMessage,
    SaveRoom,
    SaveSession,
    SaveToken,
    SaveUser,
    TrimAnswers,
)
from hub.store.database import Database
from hub.store.rows import Prepared, Row, decode_message, encode
from hub.store.words import scope, words

LOOKED_UP = 500
"""Ids in one statement: SQLite allows 32,766 values, but has to parse each of them."""


def apply(
    database: Database, connection: Connection, changes: Sequence[Prepared]
) -> list[Message | None]:
    """Make all changes, in order; return what each `AddMessage` stored, None for the others."""
    results: list[Message | None] = []
    for kind, run in groupby(changes, key=lambda one: type(one.change)):
        ones = list(run)
        results += _APPLY[kind](database, connection, ones) or [None] * len(ones)
    return results


def interrupt(database: Database, connection: Connection) -> None:
    """End the replies that a program which was killed left running."""
    rows = []
    for found in connection.execute(_RUNNING).mappings():
        message = msgspec.structs.replace(decode_message(found["data"]), status="interrupted")
        row = {"n": found["n"], "status": message.status, "data": encode(message)}
        rows.append(row | {"words": _words(message, found["to_user"])})
    if rows:
        database.update_messages(connection, rows)


def _words(message: Message, to: str | None) -> list[str] | None:
    """List what a message is found by, once it has ended."""
    if message.status == "running":
        return None
    return [scope(message.room, to), *words(message.text)]


_Results: TypeAlias = Sequence[Message | None] | None
_Apply: TypeAlias = Callable[[Database, Connection, list[Prepared]], _Results]


def _add_messages(database: Database, connection: Connection, run: list[Prepared]) -> _Results:
    stored = _stored_already(connection, run)
    fresh: list[Row] = []
    results = []
    n = connection.scalar(_LAST) or 0
    for one in run:
        message, row = _message(one), one.row
        first = stored.get(row["id"]) or stored.get((row["author"], row["txn"]))
        if first is None:
            n += 1
            fresh.append(row | {"n": n, "words": _words(message, row["to_user"])})
            first = message
            stored |= _known_as(message, row["author"], row["txn"])
        results.append(first)
    if fresh:
        database.insert_messages(connection, fresh)
        written = {row["room"]: {"id": row["room"], "written": database.tick()} for row in fresh}
        connection.execute(_WRITTEN, list(written.values()))
    return results


_Known: TypeAlias = dict[str | tuple[str, str], Message]


def _known_as(message: Message, author: str, txn: str | None) -> _Known:
    known: _Known = {message.id: message}
    if txn is not None:
        known[author, txn] = message
    return known


def _stored_already(connection: Connection, run: list[Prepared]) -> _Known:
    known: _Known = {}
    for statement, key in ((_BY_ID, "id"), (_BY_TXN, "txn")):
        wanted = [one.row[key] for one in run if one.row[key] is not None]
        for row in _look_up(connection, statement, wanted):
            known |= _known_as(decode_message(row["data"]), row["author"], row["txn"])
    return known


def _look_up(connection: Connection, statement: TextClause, keys: list[str]) -> Iterable[Any]:
    for start in range(0, len(keys), LOOKED_UP):
        part = {"keys": keys[start : start + LOOKED_UP]}
        yield from connection.execute(statement, part).mappings().all()


def _save_messages(database: Database, connection: Connection, run: list[Prepared]) -> _Results:
    found = _look_up(connection, _BY_ID, [one.row["id"] for one in run])
    there = {(row["id"], row["room"]): row for row in found}
    rows = []
    for one in run:
        old = there.get((one.row["id"], one.row["room"]))
        if old is not None:
            found_by = _words(_message(one), old["to_user"])
            rows.append(one.row | {"n": old["n"], "words": found_by})
    if rows:
        database.update_messages(connection, rows)
    return None


def _message(one: Prepared) -> Message:
    assert isinstance(one.change, AddMessage | SaveMessage)
    return one.change.message


def _save_rooms(database: Database, connection: Connection, run: list[Prepared]) -> _Results:
    connection.execute(_SAVE_ROOM, [one.row | {"written": database.tick()} for one in run])
    return None


def _plain(*sql: str) -> _Apply:
    """Run each statement for all changes, one statement after the other."""
    statements = [text(one) for one in sql]

    def run_it(_: Database, connection: Connection, run: list[Prepared]) -> _Results:
        rows = [one.row for one in run]
        for statement in statements:
            connection.execute(statement, rows)
        return None

    return run_it


def _by(column: str) -> TextClause:
    """Select messages by a list of keys."""
    sql = f"SELECT n, id, room, author, to_user, txn, data FROM messages WHERE {column} IN :keys"  # noqa: S608
    return text(sql).bindparams(bindparam("keys", expanding=True))


_BY_ID = _by("id")
_BY_TXN = _by("txn")
_LAST = text("SELECT max(n) FROM messages")
_RUNNING = text("SELECT n, to_user, data FROM messages WHERE status = 'running'")
_WRITTEN = text("UPDATE rooms SET written = :written WHERE id = :id")
_SAVE_ROOM = text(
    "INSERT INTO rooms (id, visibility, invite, written, data)"
    " VALUES (:id, :visibility, :invite, :written, :data) ON CONFLICT (id) DO UPDATE SET"
    " visibility = excluded.visibility, invite = excluded.invite, data = excluded.data"
)

_COUNT = (
    "UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT)"
    " WHERE name = 'accounts' AND EXISTS (SELECT 1 FROM {} = :{})"
)
"""Raise the version of the accounts by one, if there is such a row."""

_APPLY: dict[type[Change], _Apply] = {
    AddMessage: _add_messages,
    SaveMessage: _save_messages,
    RemoveMessage: _plain("DELETE FROM messages WHERE room = :room AND id = :id"),
    SaveRoom: _save_rooms,
    RemoveRoom: _plain("DELETE FROM rooms WHERE id = :id"),
    AddMember: _plain(
        "INSERT INTO members (room, user_id) VALUES (:room, :user_id) ON CONFLICT DO NOTHING"
    ),
    RemoveMember: _plain("DELETE FROM members WHERE room = :room AND user_id = :user_id"),
    SaveUser: _plain(
        "INSERT INTO users (id, data) VALUES (:id, :data)"
        " ON CONFLICT (id) DO UPDATE SET data = excluded.data",
        _COUNT.format("accounts WHERE user_id", "id"),
    ),
    AddUser: _plain("INSERT INTO users (id, data) VALUES (:id, :data) ON CONFLICT (id) DO NOTHING"),
    SaveSession: _plain(
        "INSERT INTO sessions (id, user_id, expires, data)"
        " VALUES (:id, :user_id, :expires, :data) ON CONFLICT (id) DO UPDATE SET"
        " user_id = excluded.user_id, expires = excluded.expires, data = excluded.data"
    ),
    RemoveSession: _plain("DELETE FROM sessions WHERE id = :id"),
    EndSessions: _plain(
        "DELETE FROM sessions WHERE user_id = :user_id"
        " AND (CAST(:keep AS TEXT) IS NULL OR id <> CAST(:keep AS TEXT))"
    ),
    RemoveExpired: _plain(
        "DELETE FROM sessions WHERE expires < :now", "DELETE FROM tokens WHERE expires < :now"
    ),
    SaveAccount: _plain(
        "INSERT INTO accounts (user_id, key, data) VALUES (:user_id, :key, :data)"
        " ON CONFLICT (user_id) DO UPDATE SET key = excluded.key, data = excluded.data",
        _COUNT.format("accounts WHERE user_id", "user_id"),
    ),
    # Account, identities and tokens go with the user: their foreign keys say so.
    RemoveUser: _plain(
        _COUNT.format("users WHERE id", "id"),
        "DELETE FROM sessions WHERE user_id = :id",
        "DELETE FROM members WHERE user_id = :id",
        "DELETE FROM users WHERE id = :id",
    ),
    SaveIdentity: _plain(
        "INSERT INTO identities (subject, user_id) VALUES (:subject, :user_id)"
        " ON CONFLICT (subject) DO UPDATE SET user_id = excluded.user_id"
    ),
    SaveToken: _plain(
        "INSERT INTO tokens (id, kind, user_id, at, expires, data)"
        " VALUES (:id, :kind, :user_id, :at, :expires, :data) ON CONFLICT (id) DO UPDATE SET"
        " kind = excluded.kind, user_id = excluded.user_id, at = excluded.at,"
        " expires = excluded.expires, data = excluded.data"
    ),
    RemoveToken: _plain("DELETE FROM tokens WHERE id = :id"),
    AddTally: _plain(
        "INSERT INTO tallies"
        " (id, day, user_id, room, model, calls, input_tokens, output_tokens, cost) VALUES"
        " (:id, :day, :user_id, :room, :model, :calls, :input_tokens, :output_tokens, :cost)"
        " ON CONFLICT (id) DO UPDATE SET calls = tallies.calls + excluded.calls,"
        " input_tokens = tallies.input_tokens + excluded.input_tokens,"
        " output_tokens = tallies.output_tokens + excluded.output_tokens,"
        " cost = tallies.cost + excluded.cost"
    ),
    SaveAnswer: _plain(
        "INSERT INTO answers (key, at, size, data) VALUES (:key, :at, :size, :data)"
        " ON CONFLICT (key) DO UPDATE SET"
        " at = excluded.at, size = excluded.size, data = excluded.data"
    ),
    TrimAnswers: _plain(
        "DELETE FROM answers WHERE at < :before",
        "DELETE FROM answers WHERE key IN (SELECT key FROM (SELECT key, sum(size) OVER"
        " (ORDER BY at DESC, key DESC) AS newer FROM answers) AS sums WHERE newer > :size)",
    ),
}
