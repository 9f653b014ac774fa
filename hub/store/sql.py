"""The store on a database: one writer thread, a few reading ones."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import trio
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from hub.records import Account, Message, Room, Session, Tally, Token, User
from hub.store import base
from hub.store.contract import ROOMS_LISTED, Change, StoreError, Then
from hub.store.database import READERS, Database
from hub.store.rows import decode_message, is_key
from hub.store.words import parse, scope
from hub.store.writer import Writer

READ_SECONDS = 30.0
"""The longest that somebody waits for a read; none takes a second unless the disk is ill."""

SCOPES = 200
"""Rooms named in one search. In more, the words are looked up first and the rooms after."""

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R", User, Session, Room, Account, Token)


class SqlStore:
    """See `hub.store.contract.Store`. Made by `hub.store.opening.open_store`."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._limiter = trio.CapacityLimiter(READERS)

    def submit(self, *changes: Change, then: Then | None = None) -> None:
        """See the contract."""
        self._writer.submit(changes, then)

    async def commit(self, *changes: Change) -> Message | None:
        """See the contract."""
        return await base.commit(self, *changes)

    async def aclose(self) -> None:
        """See the contract. Leaving `open_store` does the same, and closes the database."""
        self._writer.finish()
        await self._writer.ended.wait()

    async def user(self, id: str) -> User | None:
        """See the contract."""
        return await self._record(User, "SELECT data FROM users WHERE id = :key", id)

    async def session(self, id: str) -> Session | None:
        """See the contract."""
        return await self._record(Session, "SELECT data FROM sessions WHERE id = :key", id)

    async def account(self, user: str) -> Account | None:
        """See the contract."""
        return await self._record(Account, "SELECT data FROM accounts WHERE user_id = :key", user)

    async def account_by_key(self, key: str) -> Account | None:
        """See the contract."""
        return await self._record(Account, "SELECT data FROM accounts WHERE key = :key", key)

    async def accounts(self) -> Sequence[tuple[User, Account]]:
        """See the contract."""
        rows = await self._rows(
            "SELECT u.data AS who, a.data FROM accounts AS a JOIN users AS u ON u.id = a.user_id"
            " ORDER BY a.key"
        )
        decode = msgspec.json.decode
        return [(decode(row.who, type=User), decode(row.data, type=Account)) for row in rows]

    async def accounts_version(self) -> int:
        """See the contract."""
        rows = await self._rows("SELECT value FROM meta WHERE name = 'accounts'")
        return int(rows[0].value)

    async def identity(self, subject: str) -> str | None:
        """See the contract."""
        sql = "SELECT user_id FROM identities WHERE subject = :subject"
        rows = await self._rows(sql, subject=subject)
        return rows[0].user_id if rows else None

    async def token(self, id: str) -> Token | None:
        """See the contract."""
        return await self._record(Token, "SELECT data FROM tokens WHERE id = :key", id)

    async def tokens(self, kind: str, user: str | None = None) -> Sequence[Token]:
        """See the contract."""
        whose = "" if user is None else " AND user_id = :user"
        sql = f"SELECT data FROM tokens WHERE kind = :kind{whose} ORDER BY at, id"  # noqa: S608
        rows = await self._rows(sql, kind=kind, user=user)
        return [msgspec.json.decode(row.data, type=Token) for row in rows]

    async def usage(self, since: str, until: str = "9999") -> Sequence[Tally]:
        """See the contract."""
        rows = await self._rows(
            "SELECT day, user_id, room, model, calls, input_tokens, output_tokens, cost"
            " FROM tallies WHERE day >= :since AND day < :until"
            " ORDER BY day, user_id, room, model",
            since=since,
            until=until,
        )
        return [Tally(*row) for row in rows]

    async def answer(self, key: str) -> tuple[str, float] | None:
        """See the contract."""
        rows = await self._rows("SELECT data, at FROM answers WHERE key = :key", key=key)
        return (rows[0].data, rows[0].at) if rows else None

    async def room(self, id: str) -> Room | None:
        """See the contract."""
        return await self._record(Room, "SELECT data FROM rooms WHERE id = :key", id)

    async def room_by_invite(self, invite: str) -> Room | None:
        """See the contract."""
        return await self._record(Room, "SELECT data FROM rooms WHERE invite = :key", invite)

    async def _record(self, kind: type[R], sql: str, key: str) -> R | None:
        rows = await self._rows(sql, key=key)
        return msgspec.json.decode(rows[0].data, type=kind) if rows else None

    async def rooms(self, user: str, *, limit: int = ROOMS_LISTED) -> Sequence[Room]:
        """See the contract."""
        rows = await self._rows(_LATEST, user=user, limit=limit)
        return [msgspec.json.decode(row.data, type=Room) for row in rows]

    async def is_member(self, room: str, user: str) -> bool:
        """See the contract."""
        sql = "SELECT 1 FROM members WHERE user_id = :user AND room = :room"
        return bool(await self._rows(sql, user=user, room=room))

    async def message(self, room: str, id: str) -> tuple[Message, str | None] | None:
        """See the contract."""
        sql = "SELECT data, to_user FROM messages WHERE id = :id AND room = :room"
        rows = await self._rows(sql, room=room, id=id)
        return (decode_message(rows[0].data), rows[0].to_user) if rows else None

    async def messages(
        self,
        room: str,
        *,
        viewer: str | None,
        before: str | None = None,
        limit: int = 50,
        query: str | None = None,
    ) -> tuple[Sequence[Message], bool]:
        """See the contract."""
        if query and query.strip():
            if not _are_keys(room, viewer, before):
                return [], False
            return await self._read(
                lambda connection: self._search_room(connection, room, viewer, before, limit, query)
            )
        where = "" if before is None else "AND id < :before"
        sql = _page(where, "DESC")
        rows = await self._rows(sql, room=room, viewer=viewer, before=before, limit=limit + 1)
        return _page_of(rows, limit)

    async def search(
        self, user: str, query: str, *, before: str | None = None, limit: int = 50
    ) -> tuple[Sequence[Message], bool]:
        """See the contract."""
        if not _are_keys(user, before):
            return [], False
        return await self._read(
            lambda connection: self._search_rooms(connection, user, before, limit, query)
        )

    async def transcript(
        self, room: str, *, viewer: str | None, after: str = "", limit: int = 500
    ) -> Sequence[Message]:
        """See the contract."""
        sql = _page("AND id > :after", "ASC")
        rows = await self._rows(sql, room=room, viewer=viewer, after=after, limit=limit)
        return [decode_message(row.data) for row in rows]

    async def older(self, at: str, *, limit: int = 500) -> Sequence[Message]:
        """See the contract."""
        sql = "SELECT data FROM messages WHERE at < :at ORDER BY at LIMIT :limit"
        rows = await self._rows(sql, at=at, limit=limit)
        return [decode_message(row.data) for row in rows]

    def _search_room(
        self,
        connection: Connection,
        room: str,
        viewer: str | None,
        before: str | None,
        limit: int,
        query: str,
    ) -> tuple[list[Message], bool]:
        scopes = [scope(room, None)] + ([] if viewer is None else [scope(room, viewer)])
        where = "AND m.room = :room AND (m.to_user IS NULL OR m.to_user = :viewer)"
        if before is not None:
            where += " AND m.id < :before"
        return self._find(
            connection, query, scopes, where, limit, room=room, viewer=viewer, before=before
        )

    def _search_rooms(
        self, connection: Connection, user: str, before: str | None, limit: int, query: str
    ) -> tuple[list[Message], bool]:
        rooms = connection.scalars(
            text(f"SELECT id FROM rooms WHERE {_VISIBLE} LIMIT :limit"),  # noqa: S608
            {"user": user, "limit": SCOPES + 1},
        ).all()
        scopes = [scope(room, whose) for room in rooms for whose in (None, user)]
        where = (
            f"AND m.room IN (SELECT id FROM rooms WHERE {_VISIBLE})"  # noqa: S608
            " AND (m.to_user IS NULL OR m.to_user = :user)"
        )
        if before is not None:
            end = connection.scalar(_N, {"id": before})
            where += f" AND {self._database.found_n} < {int(end)}" if end is not None else ""
        narrow = scopes if len(rooms) <= SCOPES else []
        return (
            self._find(connection, query, narrow, where, limit, user=user) if rooms else ([], False)
        )

    def _find(
        self,
        connection: Connection,
        query: str,
        scopes: Sequence[str],
        where: str,
        limit: int,
        **values: str | None,
    ) -> tuple[list[Message], bool]:
        wanted = parse(query)
        if not wanted:
            return [], False
        found, n = self._database.found, self._database.found_n
        sql = f"SELECT m.data {found} {where} ORDER BY {n} DESC LIMIT :limit"
        values["match"] = self._database.match(wanted, scopes)
        rows = connection.execute(text(sql), {**values, "limit": limit + 1}).all()
        return _page_of(rows, limit)

    async def _rows(self, sql: str, **values: str | int | None) -> Sequence[Any]:
        """Run a SELECT. What cannot be a key is in no row."""
        if not _are_keys(*values.values()):
            return []
        return await self._read(lambda connection: connection.execute(text(sql), values).all())

    async def _read(self, read: Callable[[Connection], T]) -> T:
        """Read in a thread. Whoever is cancelled leaves at once; the thread ends by itself."""
        with trio.move_on_after(READ_SECONDS):
            return await trio.to_thread.run_sync(
                self._read_now, read, abandon_on_cancel=True, limiter=self._limiter
            )
        raise StoreError("The database takes too long.")

    def _read_now(self, read: Callable[[Connection], T]) -> T:
        try:
            try:
                return self._try(read)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return self._try(read)  # the server was restarted: the first call has noticed
        except StoreError:
            raise
        except Exception as error:
            log.error("Cannot read: %s", error)  # noqa: TRY400 - told in words
            sentence = self._database.trouble(error) or "The database cannot be read."
            raise StoreError(sentence) from error

    def _try(self, read: Callable[[Connection], T]) -> T:
        with self._database.reading() as connection:
            return read(connection)


def _are_keys(*values: str | int | None) -> bool:
    """Say whether all could be in a row: what could not is not there, which is no error."""
    return all(is_key(value) for value in values if isinstance(value, str))


_VISIBLE = "(visibility = 'public' OR id IN (SELECT room FROM members WHERE user_id = :user))"
# Public rooms come from the end of their index: their number does not matter.
_LATEST = """
SELECT data FROM (
    SELECT * FROM (
        SELECT written, data FROM rooms WHERE visibility = 'public'
        ORDER BY written DESC LIMIT :limit
    ) AS open
    UNION ALL SELECT * FROM (
        SELECT r.written, r.data FROM members AS m JOIN rooms AS r ON r.id = m.room
        WHERE m.user_id = :user AND r.visibility <> 'public'
        ORDER BY r.written DESC LIMIT :limit
    ) AS joined
) AS visible ORDER BY written DESC LIMIT :limit
"""
_N = text("SELECT n FROM messages WHERE id = :id")


def _page(where: str, order: str) -> str:
    """Select a page of what the viewer sees.

    Whispers and the rest come from two ends of the same index, so that a page costs the same
    however many messages the room has, and however many are not for these eyes.
    """
    half = (
        "SELECT id, data FROM messages WHERE room = :room AND to_user {} "  # noqa: S608
        f"{where} ORDER BY id {order} LIMIT :limit"
    )
    return (
        f"SELECT id, data FROM ({half.format('IS NULL')}) AS a UNION ALL"  # noqa: S608
        f" SELECT id, data FROM ({half.format('= :viewer')}) AS b"
        f" ORDER BY id {order} LIMIT :limit"
    )


def _page_of(rows: Sequence[Any], limit: int) -> tuple[list[Message], bool]:
    """Turn rows, newest first and one more than asked for, into a page, oldest first."""
    return [decode_message(row.data) for row in reversed(rows[:limit])], len(rows) > limit
