"""Opening a store: a file, a server, or memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from hub.store.changes import interrupt
from hub.store.contract import Store, StoreError
from hub.store.database import Database
from hub.store.memory import MemoryStore
from hub.store.sql import SqlStore
from hub.store.sqlite import SQLite, Synchronous
from hub.store.writer import Writer

MEMORY = "memory:"

CLOSE_SECONDS = 5.0
"""Closing connections, once everything is stored."""


@asynccontextmanager
async def open_store(
    where: str | Path, *, synchronous: Synchronous = "FULL", beside: bool = False
) -> AsyncIterator[Store]:
    """Open a store, and close it when the block is left, with all that was submitted stored.

    Args:
        where: the path of an SQLite file, `sqlite:///PATH`, `postgresql://USER@HOST/DATABASE`,
            or `memory:`.
        synchronous: of SQLite; `NORMAL` is faster, and a power cut may take the last seconds.
        beside: another process is the hub, or may be; leave its running replies alone.

    Raises:
        StoreError: it cannot be opened; the text says what to do.

    """
    if where == MEMORY:
        memory = MemoryStore()
        try:
            yield memory
        finally:
            await memory.aclose()
        return
    database = choose(where, synchronous=synchronous, beside=beside)
    try:
        # Not abandoned when cancelled: a server has its own time limits, a file needs none.
        await trio.to_thread.run_sync(open_database, database)
        async with _written_by(Writer(database)) as writer:
            yield SqlStore(database, writer)
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await trio.to_thread.run_sync(database.close, abandon_on_cancel=True)


@asynccontextmanager
async def _written_by(writer: Writer) -> AsyncIterator[Writer]:
    """Run the writer while the block runs, and until it has stored everything."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield writer
            finally:
                writer.finish()
    except BaseExceptionGroup as group:
        # The block's own error, which is no business of this nursery, as it was.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


def choose(
    where: str | Path, *, synchronous: Synchronous = "FULL", beside: bool = False
) -> Database:
    """Find the database that a path or URL means, without touching it.

    Raises:
        StoreError: it means none.

    """
    if isinstance(where, Path) or "://" not in where:
        return SQLite(Path(where), synchronous, beside=beside)
    scheme = where.split("://", 1)[0]
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise StoreError(f"This is not the address of a database: {scheme}://...") from None
    if scheme == "sqlite" and url.database:
        return SQLite(Path(url.database), synchronous, beside=beside)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql(where, beside=beside)
    raise StoreError(
        f"Hubbub cannot use a {scheme}:// database; it knows postgresql:// and sqlite:///PATH."
    )


def _postgresql(where: str, *, beside: bool) -> Database:
    try:
        from hub.store.postgresql import PostgreSQL  # noqa: PLC0415 - needs an extra

        url = make_url(where.replace("postgres://", "postgresql://", 1))
        return PostgreSQL(url, beside=beside)
    except ImportError:
        raise StoreError(
            "PostgreSQL needs one more package: pip install 'hubbub[postgresql]'."
        ) from None


def open_database(database: Database) -> None:
    """Open a database for writing; the hub also ends the replies that were left running.

    Raises:
        StoreError: it cannot be opened.

    """
    with database.explained():
        database.open()
        if not database.beside:
            with database.writing() as connection:
                interrupt(database, connection)
