"""A second process beside the hub: it reads and writes, and the hub's replies go on."""

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import trio
from sqlalchemy import text

from hub.records import Account, User
from hub.store import schema
from hub.store.contract import AddMessage, SaveAccount, SaveRoom, SaveUser, Store, StoreError
from hub.store.opening import choose, open_store
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.store.making import message, room

COMMITS = 50
WRITERS = 20


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "data" / "hubbub.db")
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.test_beside", "hub.store.postgresql"])
    return context


def _add_accounts(where: str, name: str) -> None:
    trio.run(_add, where, name)


async def _add(where: str, name: str) -> None:
    async with open_store(where, beside=True) as store:
        for number in range(COMMITS):
            id = f"{name}{number}"
            await store.commit(SaveUser(User(id, id)), SaveAccount(Account(id, id)))


async def ran(process: Any) -> None:
    """Wait for a process, as long as the test may take."""
    await trio.to_thread.run_sync(process.join, abandon_on_cancel=True)
    assert process.exitcode == 0


async def test_replies_go_on_while_another_opens_the_database(where: str) -> None:
    reply = message("once upon", status="running")
    async with open_store(where) as hub:
        await hub.commit(SaveRoom(room()), AddMessage(reply))
        async with open_store(where, beside=True) as store:
            assert await store.message("den", reply.id) == (reply, None)
            before = await hub.accounts_version()
            await store.commit(SaveUser(User("a", "Ann")), SaveAccount(Account("a", "ann")))
        assert await hub.message("den", reply.id) == (reply, None)
        assert await hub.account_by_key("ann") == Account("a", "ann")
        assert await hub.accounts_version() > before
        sent = message()
        assert await hub.commit(AddMessage(sent)) == sent


async def test_another_writes_while_the_hub_is_busy(
    where: str, processes: ForkServerContext
) -> None:
    """Nobody is told that the database is locked, and all that was acknowledged is there."""
    sent: list[str] = []

    async def write(hub: Store) -> None:
        while True:
            one = message("x" * 1_000)
            assert await hub.commit(AddMessage(one)) == one
            sent.append(one.id)

    async with open_store(where) as hub:
        await hub.commit(SaveRoom(room()))
        async with trio.open_nursery() as nursery:
            for _ in range(WRITERS):
                nursery.start_soon(write, hub)
            others = [processes.Process(target=_add_accounts, args=(where, n)) for n in "ab"]
            for process in others:
                process.start()
            for process in others:
                await ran(process)
            # Who gets the lock is up to SQLite: the hub may have come off badly until now.
            with trio.fail_after(60):
                while len(sent) < COMMITS:  # noqa: ASYNC110 - counts what other tasks do
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert len(await hub.accounts()) == 2 * COMMITS
        assert await hub.accounts_version() == 2 * COMMITS
        stored = await hub.transcript("den", viewer=None, limit=1_000_000)
        assert {one.id for one in stored} >= set(sent)


async def test_a_new_database_is_made_beside_no_hub(where: str) -> None:
    async with open_store(where, beside=True) as store:
        await store.commit(SaveUser(User("a", "Ann")), SaveAccount(Account("a", "ann")))
    async with open_store(where) as hub:
        assert await hub.account("a") == Account("a", "ann")


async def test_several_make_a_new_database_at_once(
    where: str, processes: ForkServerContext
) -> None:
    others = [processes.Process(target=_add_accounts, args=(where, n)) for n in "abcd"]
    for process in others:
        process.start()
    for process in others:
        await ran(process)
    async with open_store(where) as hub:
        assert len(await hub.accounts()) == 4 * COMMITS


async def test_the_tables_of_a_running_older_hub_are_left_alone(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = schema.MIGRATIONS[:1]
    with monkeypatch.context() as patch:
        patch.setattr("hub.store.database.migrate", lambda c, **_: schema.migrate(c, first))
        async with open_store(where):
            patch.undo()
            with pytest.raises(StoreError, match="older than this program: restart it"):
                async with open_store(where, beside=True):
                    pytest.fail("it opened")
    database = choose(where)
    with database.reading() as connection:
        assert connection.scalar(text("SELECT value FROM meta WHERE name = 'version'")) == "1"
    database.close()
    async with open_store(where, beside=True) as store:
        assert await store.accounts() == []
