"""What the SQL store does beyond the contract: opening, sharing commits, ending."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from sqlalchemy import Connection, text

from hub.records import Message
from hub.store import schema
from hub.store.contract import AddMessage, Outcome, SaveMessage, SaveRoom, StoreError
from hub.store.opening import choose, open_database, open_store
from hub.store.sqlite import SQLite
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.store.making import message, room


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "data" / "hubbub.db")
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@contextmanager
def connected(where: str) -> Iterator[Connection]:
    """A connection behind the store's back."""
    database = choose(where)
    with database.writing() as connection:
        yield connection
    database.close()


async def refused(where: str) -> str:
    with pytest.raises(StoreError) as caught:
        async with open_store(where):
            pytest.fail("it opened")
    return str(caught.value)


async def test_a_reply_that_was_running_is_interrupted_and_can_be_found(where: str) -> None:
    running = message("once upon", status="running")
    done = message("the end")
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(running), AddMessage(done))
    async with open_store(where) as store:
        found, _ = await store.messages("den", viewer=None)
        assert found == [replace(running, status="interrupted"), done]
        found, _ = await store.messages("den", viewer=None, query="upon")
        assert [one.id for one in found] == [running.id]


async def test_only_one_hub_uses_a_database(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "://" in where:
        monkeypatch.setattr("hub.store.postgresql.LOCK_SECONDS", 0.1)
    async with open_store(where):
        assert "Another Hubbub is using" in await refused(where)
    async with open_store(where):
        pass


async def test_a_newer_database_is_refused(where: str) -> None:
    async with open_store(where):
        pass
    with connected(where) as connection:
        connection.execute(text("UPDATE meta SET value = '99' WHERE name = 'version'"))
    assert "newer Hubbub (version 99" in await refused(where)
    with connected(where) as connection:
        assert schema.version_of(connection) == 99


async def test_an_older_database_goes_through_the_steps_it_lacks(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = message()
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(kept))

    def second(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE rooms ADD COLUMN colour TEXT")

    steps = (*schema.MIGRATIONS, second)
    monkeypatch.setattr("hub.store.database.migrate", lambda c, **_: schema.migrate(c, steps))
    for _ in range(2):
        async with open_store(where) as store:
            assert await store.message("den", kept.id) == (kept, None)
    with connected(where) as connection:
        assert schema.version_of(connection) == len(steps)
        assert connection.execute(text("SELECT colour FROM rooms")).all() == [(None,)]


async def test_a_step_that_fails_changes_nothing(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(where):
        pass

    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE rooms ADD COLUMN colour TEXT")
        connection.exec_driver_sql("ALTER TABLE nothing ADD COLUMN colour TEXT")

    steps = (*schema.MIGRATIONS, broken)
    with monkeypatch.context() as patch:
        patch.setattr("hub.store.database.migrate", lambda c, **_: schema.migrate(c, steps))
        await refused(where)
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()))
    with connected(where) as connection:
        assert "colour" not in connection.execute(text("SELECT * FROM rooms")).keys()  # noqa: SIM118


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("mysql://a:secret@b/c", "cannot use a mysql:// database"),
        ("sqlite://", "cannot use a sqlite:// database"),
        ("postgresql://a:secret@host:port/c", "not the address of a database"),
        ("postgresql://a:secret@127.0.0.1:1/c", "cannot be reached"),
        ("/dev/null/folder/hubbub.db", "cannot be made"),
    ],
)
async def test_what_cannot_be_opened_is_said_in_a_sentence(where: str, sentence: str) -> None:
    said = await refused(where)
    assert sentence in said
    assert "secret" not in said


async def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("To be or not to be. " * 1_000)
    assert "not a Hubbub database" in await refused(str(tmp_path / "text.db"))
    (tmp_path / "folder.db").mkdir()
    assert "cannot be opened" in await refused(str(tmp_path / "folder.db"))


@pytest.mark.postgresql
async def test_a_missing_postgresql_database(postgres: Server) -> None:  # noqa: F811
    where = postgres.new_database()
    assert "cannot be reached, or does not let us in" in await refused(where + "no")


async def test_sqlite_is_set_to_survive_a_power_cut(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db"):
        pass
    database = SQLite(tmp_path / "a.db")
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    database.close()


class Counting(SQLite):
    """Counts transactions, and holds the writer up while `gate` is closed."""

    transactions = 0
    gate = threading.Event()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self.gate.wait(10)
        type(self).transactions += 1
        with super().writing() as connection:
            yield connection


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr("hub.store.opening.SQLite", Counting)
    Counting.gate.set()
    return Counting


async def test_what_gathers_during_a_commit_shares_the_next(
    tmp_path: Path, counting: type[Counting]
) -> None:
    async with open_store(tmp_path / "a.db") as store:
        await store.commit(SaveRoom(room()))
        before = counting.transactions
        counting.gate.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(store.commit, AddMessage(message()))
            await trio.testing.wait_all_tasks_blocked()
            counting.gate.set()
        assert counting.transactions - before <= 2


async def test_closing_does_not_wait_for_ever(
    tmp_path: Path, counting: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.store.writer.CLOSE_SECONDS", 0.05)
    results: list[Outcome] = []
    async with open_store(tmp_path / "a.db") as store:
        counting.gate.clear()
        store.submit(SaveRoom(room()), then=results.append)
    counting.gate.set()
    (result,) = results
    assert isinstance(result, StoreError)
    assert result.unknown


@pytest.mark.parametrize("use", ["writing", "reading"])
def test_a_connection_that_comes_back_after_the_end_is_closed(where: str, use: str) -> None:
    """Seen: a thread that was not waited for gave its connection to a pool that was gone."""
    database = choose(where)
    open_database(database)
    with getattr(database, use)() as connection:
        raw = connection.connection.dbapi_connection
        database.close()
        assert connection.scalar(text("SELECT 1")) == 1
    with pytest.raises(Exception, match="closed"):
        raw.execute("SELECT 1")
    with pytest.raises(StoreError, match="shutting down"):
        with getattr(database, use)():
            pytest.fail("it opened")


async def test_a_then_that_fails_does_not_silence_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Outcome) -> None:
        raise ZeroDivisionError

    async with open_store(tmp_path / "a.db") as store:
        store.submit(then=fail)
        await store.commit(SaveRoom(room()))
    assert "ZeroDivisionError" in caplog.text


async def test_a_page_costs_the_same_in_a_long_room(tmp_path: Path) -> None:
    """No plan may read more than the page: the index is entered where the page is."""
    from hub.store.sql import _page

    async with open_store(tmp_path / "a.db"):
        pass
    database = SQLite(tmp_path / "a.db")
    values = {"room": "den", "viewer": "ann", "before": "m", "limit": 50}
    with database.reading() as connection:
        plan: list[Any] = list(
            connection.execute(
                text("EXPLAIN QUERY PLAN " + _page("AND id < :before", "DESC")), values
            )
        )
    database.close()
    steps = [row.detail for row in plan]
    searches = [step for step in steps if "messages" in step]
    assert len(searches) == 2
    assert all("messages_page (room=? AND to_user=? AND id<?)" in step for step in searches)


async def test_messages_of_a_crowd_keep_each_writers_order(where: str) -> None:
    async def write(author: str) -> None:
        for number in range(20):
            await store.commit(AddMessage(message(str(number), author=author), txn=f"{number}"))

    async with open_store(where) as store:
        await store.commit(SaveRoom(room()))
        async with trio.open_nursery() as nursery:
            for writer in range(20):
                nursery.start_soon(write, f"w{writer}")
        found: list[Message] = list(await store.transcript("den", viewer=None))
    for writer in range(20):
        said = [one.text for one in found if one.author.id == f"w{writer}"]
        assert said == [str(number) for number in range(20)]


async def test_replies_are_saved_while_others_write(where: str) -> None:
    reply = message("", status="running")
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(reply))
        for number in range(10):
            store.submit(SaveMessage(replace(reply, text="x" * number)))
            store.submit(AddMessage(message()))
        await store.commit(SaveMessage(replace(reply, text="end", status="done")))
        stored = await store.message("den", reply.id)
    assert stored == (replace(reply, text="end", status="done"), None)
