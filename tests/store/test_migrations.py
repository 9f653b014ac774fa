"""Databases of every released version are opened, and everything is there."""

from pathlib import Path

import pytest
from sqlalchemy import text

from hub.records import Account, Author, Message, Room, Session, User
from hub.store import schema
from hub.store.contract import SaveAccount, StoreError
from hub.store.database import Database
from hub.store.maintenance import backup, check, restore
from hub.store.opening import choose, open_store
from tests.postgres import postgres  # noqa: F401 - a fixture

# What version 1 wrote, word for word. It stays as it is, whatever the program writes today.
VERSION_1 = """
INSERT INTO users (id, data) VALUES
 ('u1', '{"id":"u1","name":"Ann","guest":true,"role":"guest"}');
INSERT INTO sessions (id, user_id, expires, data) VALUES
 ('s1', 'u1', 4102444800.5, '{"id":"s1","user":"u1","expires":4102444800.5}');
INSERT INTO rooms (id, visibility, invite, written, data) VALUES
 ('den', 'link', 'secret', 1763690000000000, '{"id":"den","title":"Den","scenario":"A cave","cast":[],"visibility":"link","answer":"all","owner":"u1","invite":"secret","game":false,"active":true,"archived":false,"pace":0,"at":"2026-11-20T10:00:00Z"}');
INSERT INTO members (room, user_id) VALUES ('den', 'u1');
INSERT INTO messages (n, id, room, author, to_user, txn, status, at, data) VALUES
 (1, 'm1', 'den', 'u1', NULL, 't1', 'done', '2026-11-20T10:00:01Z', '{"id":"m1","room":"den","author":{"id":"u1","name":"Ann","kind":"human"},"text":"Hello Mia","html":"<p>Hello Mia</p>","at":"2026-11-20T10:00:01Z","status":"done","demo":false,"private":false}'),
 (2, 'm2', 'den', 'c1', 'u1', NULL, 'running', '2026-11-20T10:00:02Z', '{"id":"m2","room":"den","author":{"id":"c1","name":"Mia","kind":"character"},"text":"Once upon","html":"","at":"2026-11-20T10:00:02Z","status":"running","demo":true,"private":true,"reply_to":"m1"}');
"""  # noqa: E501
HELLO_DATA = VERSION_1.partition("'2026-11-20T10:00:01Z', '")[2].partition("'),\n")[0]
ANN = User("u1", "Ann")
ROOM = Room(
    "den",
    "Den",
    scenario="A cave",
    visibility="link",
    owner="u1",
    invite="secret",
    at="2026-11-20T10:00:00Z",
)
HELLO = Message(
    "m1",
    "den",
    Author("u1", "Ann", "human"),
    "Hello Mia",
    "<p>Hello Mia</p>",
    "2026-11-20T10:00:01Z",
    "done",
    demo=False,
    private=False,
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that version 1 has made and filled."""
    if request.param == "sqlite":
        where = str(tmp_path / "hubbub.db")
    else:
        where = request.getfixturevalue("postgres").new_database()
    database = choose(where)
    fill(database)
    database.close()
    return where


def fill(database: Database) -> None:
    with database.writing() as connection:
        schema.migrate(connection, schema.MIGRATIONS[:1])
        for statement in VERSION_1.split(";\n"):
            connection.exec_driver_sql(statement)
        words = {"n": 1, "words": ["§e8c33ff4abf8cf80", "hello", "mia"]}
        database.update_messages(connection, [words | {"status": "done", "data": HELLO_DATA}])


async def everything_is_there(where: str) -> None:
    async with open_store(where) as store:
        assert await store.user("u1") == ANN
        assert await store.session("s1") == Session("s1", "u1", 4102444800.5)
        assert await store.room_by_invite("secret") == ROOM
        assert list(await store.rooms("u1")) == [ROOM]
        found, _ = await store.messages("den", viewer="u1")
        assert found[0] == HELLO
        assert [(one.text, one.status) for one in found[1:]] == [("Once upon", "interrupted")]
        found, _ = await store.messages("den", viewer="u1", query="mia")
        assert found == [HELLO]
        assert await store.accounts() == []
        assert await store.accounts_version() == 0
        await store.commit(SaveAccount(Account("u1", "ann")))
        assert list(await store.accounts()) == [(ANN, Account("u1", "ann"))]
        assert await store.accounts_version() == 1


async def test_a_database_of_version_1_is_brought_up_to_date(where: str) -> None:
    assert check(where) == []
    await everything_is_there(where)
    assert check(where) == []
    database = choose(where)
    with database.reading() as connection:
        assert schema.version_of(connection) == 2
    database.close()


async def test_an_older_program_refuses_the_newer_database(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(where):
        pass
    first = schema.MIGRATIONS[:1]
    monkeypatch.setattr("hub.store.database.migrate", lambda c, **_: schema.migrate(c, first))
    with pytest.raises(StoreError, match=r"newer Hubbub \(version 2 .* knows 1\)"):
        async with open_store(where):
            pytest.fail("it opened")


async def test_a_step_that_is_cut_short_leaves_version_1(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_ACCOUNTS", schema._ACCOUNTS + "INSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(StoreError):
        async with open_store(where):
            pytest.fail("it opened")
    monkeypatch.undo()
    await everything_is_there(where)


async def test_a_backup_of_version_1_is_restored(tmp_path: Path) -> None:
    database = choose(tmp_path / "old.db")
    fill(database)
    database.close()
    backup(tmp_path / "old.db", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "new.db")
    await everything_is_there(str(tmp_path / "new.db"))


async def test_a_database_of_the_future_is_not_restored(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db"):
        pass
    database = choose(tmp_path / "a.db")
    with database.writing() as connection:
        connection.execute(text("UPDATE meta SET value = '99' WHERE name = 'version'"))
    database.close()
    with pytest.raises(StoreError, match="version 99"):
        restore(tmp_path / "a.db", tmp_path / "b.db")
