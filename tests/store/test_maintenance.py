"""Backup, restore, check and retention, on real files while a hub has them open."""

from pathlib import Path

import pytest
from sqlalchemy import text

from hub.records import Account, Message, Tally, Token, User
from hub.store.contract import (
    AddMember,
    AddMessage,
    AddTally,
    SaveAccount,
    SaveAnswer,
    SaveIdentity,
    SaveRoom,
    SaveToken,
    SaveUser,
    StoreError,
)
from hub.store.maintenance import backup, check, expire, restore
from hub.store.opening import choose, open_store
from hub.store.sqlite import SQLite
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.store.making import message, room


async def stored(where: Path) -> list[Message]:
    async with open_store(where) as store:
        return list(await store.transcript("den", viewer=None))


async def test_a_backup_taken_while_the_hub_runs_is_restored(tmp_path: Path) -> None:
    database, copy = tmp_path / "hubbub.db", tmp_path / "copy.db"
    kept, later = message("kept"), message("later")
    async with open_store(database) as store:
        await store.commit(SaveRoom(room()), AddMember("den", "ann"), AddMessage(kept))
        backup(database, copy)
        await store.commit(AddMessage(later))
        with pytest.raises(StoreError, match="Another Hubbub is using"):
            restore(copy, database)
    replaced = restore(copy, database)
    assert await stored(database) == [kept]
    assert replaced is not None
    assert await stored(replaced) == [kept, later]
    async with open_store(database) as store:
        assert await store.is_member("den", "ann")
        found, _ = await store.messages("den", viewer=None, query="kept")
        assert found == [kept]


async def test_a_backup_holds_accounts_and_all_that_hangs_on_them(tmp_path: Path) -> None:
    account, token = Account("a", "ann", "hash"), Token("t", "api", "a")
    tally = Tally("2026-11-21", "a", "", "m", 1, 2, 3, 0.5)
    async with open_store(tmp_path / "a.db") as store:
        await store.commit(SaveUser(User("a", "Ann")), SaveAccount(account), SaveToken(token))
        await store.commit(SaveIdentity("x|1", "a"), AddTally(tally), SaveAnswer("k", "v", 1.0))
        version = await store.accounts_version()
        backup(tmp_path / "a.db", tmp_path / "copy.db")
    assert check(tmp_path / "copy.db") == []
    restore(tmp_path / "copy.db", tmp_path / "b.db")
    async with open_store(tmp_path / "b.db") as store:
        assert await store.account_by_key("ann") == account
        assert await store.token("t") == token
        assert await store.identity("x|1") == "a"
        assert list(await store.usage("2026")) == [tally]
        assert await store.answer("k") == ("v", 1.0)
        assert await store.accounts_version() == version


async def test_a_backup_is_restored_where_nothing_was(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db") as store:
        await store.commit(SaveRoom(room()))
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    assert restore(tmp_path / "copy.db", tmp_path / "new" / "b.db") is None
    async with open_store(tmp_path / "new" / "b.db") as store:
        assert await store.room("den") == room()


async def test_backups_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no database"):
        backup(tmp_path / "a.db", tmp_path / "copy.db")
    async with open_store(tmp_path / "a.db"):
        pass
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        backup(tmp_path / "a.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    with pytest.raises(StoreError, match="cannot be opened"):
        backup(tmp_path / "a.db", tmp_path / "nowhere" / "copy.db")
    with pytest.raises(StoreError, match="pg_dump"):
        backup("postgresql://hub@127.0.0.1/hub", tmp_path / "b.db")


async def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db") as store:
        await store.commit(SaveRoom(room()), *(AddMessage(message()) for _ in range(500)))
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    whole = (tmp_path / "copy.db").read_bytes()
    (tmp_path / "copy.db").write_bytes(whole[:20_000] + bytes(20_000) + whole[40_000:])
    with pytest.raises(StoreError):
        restore(tmp_path / "copy.db", tmp_path / "a.db")
    (tmp_path / "text.db").write_text("nothing of the kind " * 100)
    with pytest.raises(StoreError, match="not a Hubbub database"):
        restore(tmp_path / "text.db", tmp_path / "a.db")
    assert len(await stored(tmp_path / "a.db")) == 500


async def test_check_finds_contradictions(tmp_path: Path) -> None:
    where = tmp_path / "a.db"
    sent = message()
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(sent), AddMessage(message()))
        assert check(where) == []
    database = SQLite(where)
    with database.writing() as connection:
        connection.execute(text("DELETE FROM message_words WHERE rowid = 1"))
        connection.execute(text("UPDATE messages SET data = '{' WHERE n = 1"))
        connection.exec_driver_sql("INSERT INTO users (id, data) VALUES ('a', '{}')")
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("INSERT INTO accounts VALUES ('b', 'bob', '{}')")
        connection.exec_driver_sql("BEGIN")
    database.close()
    assert check(where) == [
        "1 ended messages cannot be found by search.",
        "1 accounts are of no user.",
        f"Message {sent.id} cannot be read.",
        "1 users cannot be read.",
        "1 accounts cannot be read.",
    ]


@pytest.mark.postgresql
async def test_check_of_postgresql(postgres: Server) -> None:  # noqa: F811
    where = postgres.new_database()
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()), AddMessage(message()))
        assert check(where) == []
    database = choose(where)
    with database.writing() as connection:
        connection.execute(text("UPDATE messages SET words = NULL"))
    database.close()
    assert check(where) == ["1 ended messages cannot be found by search."]


@pytest.mark.parametrize("where", ["memory:", "file"])
async def test_old_messages_expire(where: str, tmp_path: Path) -> None:
    async with open_store(where if where == "memory:" else tmp_path / "a.db") as store:
        await store.commit(SaveRoom(room()))
        old = [message(at="2025-01-01T00:00:00Z") for _ in range(1_200)]
        kept = message("kept")
        await store.commit(*(AddMessage(one) for one in [*old, kept]))
        assert await expire(store, "2026-01-01") == 1_200
        assert list(await store.transcript("den", viewer=None)) == [kept]
        assert await expire(store, "2026-01-01") == 0
