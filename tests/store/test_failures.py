"""A full disk, a lost server, a commit in doubt: said plainly, and got over."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import make_url, text

from hub.records import Message
from hub.store.contract import AddMessage, Outcome, SaveRoom, Store, StoreError
from hub.store.opening import choose, open_database, open_store
from hub.store.postgresql import DOUBT_SECONDS, PostgreSQL
from hub.store.sqlite import SQLite
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.store.making import message, room


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB. Only root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux to mount a small tmpfs")
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def stored(store: Store) -> list[Message]:
    return list(await store.transcript("den", viewer=None, limit=100_000))


async def fill(store: Store, acknowledged: list[Message | None]) -> None:
    for _ in range(100):
        stored = await store.commit(AddMessage(message("x" * 10_000)))
        acknowledged.append(stored)


async def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    acknowledged: list[Message | None] = []
    async with open_store(small_disk / "hubbub.db") as store:
        await store.commit(SaveRoom(room()))
        acknowledged.append(await store.commit(AddMessage(message("before"))))
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 3_000_000)
        with pytest.raises(StoreError, match=r"disk is full|disk reports errors"):
            await fill(store, acknowledged)
        assert await stored(store) == acknowledged
        ballast.unlink()
        acknowledged.append(await store.commit(AddMessage(message("after"))))
        assert await stored(store) == acknowledged
    async with open_store(small_disk / "hubbub.db") as store:
        assert await stored(store) == acknowledged


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_that_is_gone_is_noticed(tmp_path: Path, how: str) -> None:
    """What SQLite still writes to a file without a name nobody would find again."""
    file = tmp_path / "hubbub.db"
    async with open_store(file) as store:
        await store.commit(SaveRoom(room()))
        kept = await store.commit(AddMessage(message()))
        assert kept is not None
        file.rename(tmp_path / "away.db")
        if how == "replaced":
            shutil.copyfile(tmp_path / "away.db", file)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"removed or replaced.* restarted"):
                await store.commit(AddMessage(message()))
            with pytest.raises(StoreError, match="removed or replaced"):
                await store.room("den")
        if how == "removed":
            assert not file.exists()  # nor made anew, empty
        (tmp_path / "away.db").rename(file)
        again = await store.commit(AddMessage(message()))
        assert await stored(store) == [kept, again]
    async with open_store(file) as store:
        assert await stored(store) == [kept, again]


async def test_a_file_that_goes_during_a_commit_is_noticed(tmp_path: Path) -> None:
    database = SQLite(tmp_path / "a.db")
    open_database(database)
    with pytest.raises(StoreError, match="removed or replaced"):
        with database.writing():
            (tmp_path / "a.db").unlink()
    database.close()


@pytest.mark.postgresql
async def test_a_server_that_is_killed_and_restarted_while_people_write() -> None:
    """A server of its own, so that others are not disturbed. Killed as a crash would."""
    from tests.postgres import find

    binaries = find()
    if binaries is None:
        pytest.skip("no PostgreSQL is installed")
    server = await trio.to_thread.run_sync(Server, binaries)
    try:
        await trio.to_thread.run_sync(server.start)
        async with open_store(server.new_database()) as store:
            await store.commit(SaveRoom(room()))
            acknowledged, refused = await _write_through_restarts(store, server)
            found = [one.id for one in await stored(store)]
        assert len(set(found)) == len(found)
        assert [id for id in found if id in set(acknowledged)] == acknowledged
        assert not set(refused) & set(found)
    finally:
        await trio.to_thread.run_sync(server.remove)


async def _told(
    store: Store, sent: Message, stored: list[str], refused: list[str], doubts: list[bool]
) -> None:
    """Submit a message; note in the `then` itself, which has an order, what became of it."""
    done = trio.Event()

    def then(outcome: Outcome) -> None:
        (refused if isinstance(outcome, StoreError) else stored).append(sent.id)
        doubts.append(isinstance(outcome, StoreError) and outcome.unknown)
        done.set()

    store.submit(AddMessage(sent), then=then)
    await done.wait()


async def _write_through_restarts(store: Store, server: Server) -> tuple[list[str], list[str]]:
    acknowledged: list[str] = []
    refused: list[str] = []
    doubts: list[bool] = []

    async def write() -> None:
        while True:
            await _told(store, message(), acknowledged, refused, doubts)
            await trio.sleep(0.005)

    async def until(more: list[str]) -> None:
        size = len(more)
        while len(more) < size + 5:  # noqa: ASYNC110 - counts what other tasks get
            await trio.sleep(0.005)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(write)
            for _ in range(3):
                await until(acknowledged)
                await trio.to_thread.run_sync(server.stop, signal.SIGQUIT)
                # Nothing is refused while the writer waits to ask what became of a COMMIT that was
                # under way; it gives up at some time, and the server has to be there before.
                with trio.move_on_after(DOUBT_SECONDS / 3):
                    await until(refused)
                with pytest.raises(StoreError, match="cannot be reached"):
                    await store.room("den")
                await trio.to_thread.run_sync(server.start)
            await until(acknowledged)
            nursery.cancel_scope.cancel()
    await store.commit()
    assert not any(doubts)  # the server came back in time to be asked
    return acknowledged, refused


class Cutter:
    """A relay to the server that cuts the line around one COMMIT, and lets later ones through."""

    def __init__(self, server: Server, *, arrives: bool) -> None:
        self._server = server
        self._arrives = arrives
        self.armed = False
        self._swallow = False

    async def serve(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, upstream, client, nursery.cancel_scope)
            await self._asks(client, upstream)
            nursery.cancel_scope.cancel()

    async def _asks(self, client: trio.SocketStream, upstream: trio.SocketStream) -> None:
        try:
            async for data in client:
                if self.armed and b"COMMIT" in data:
                    self.armed = False
                    self._swallow = self._arrives
                    if not self._arrives:
                        return
                await upstream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async def _answers(
        self, upstream: trio.SocketStream, client: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in upstream:
                if self._swallow:
                    self._swallow = False
                    break
                await client.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()


@pytest.mark.postgresql
@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_in_doubt_is_settled_by_asking(
    postgres: Server,  # noqa: F811
    nursery: trio.Nursery,
    arrives: bool,
) -> None:
    cutter = Cutter(postgres, arrives=arrives)
    listeners = await nursery.start(trio.serve_tcp, cutter.serve, 0)
    port = listeners[0].socket.getsockname()[1]
    where = make_url(postgres.new_database()).set(host="127.0.0.1", port=port)
    kept = message()
    async with open_store(where.render_as_string(hide_password=False)) as store:
        await store.commit(SaveRoom(room()))
        cutter.armed = True
        if arrives:
            assert await store.commit(AddMessage(kept)) == kept
            assert await stored(store) == [kept]
        else:
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                await store.commit(AddMessage(kept))
            assert not caught.value.unknown
            assert await stored(store) == []
        assert not cutter.armed
        again = message()
        assert await store.commit(AddMessage(again)) == again


@pytest.mark.postgresql
def test_a_transaction_that_a_crash_has_wiped_out_was_not_committed(
    postgres: Server,  # noqa: F811
) -> None:
    """The server lost its number too, and says that it is in the future: no doubt is left."""
    database = PostgreSQL(make_url(postgres.new_database()))
    with database.writing() as connection:
        number = connection.scalar(text("SELECT txid_current()"))
    assert database._was_committed(number)
    assert not database._was_committed(number + 1_000)
    database.close()


@pytest.mark.postgresql
async def test_a_commit_whose_fate_stays_unknown_says_so(
    postgres: Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub.store.postgresql.DOUBT_SECONDS", 0.0)
    cutter = Cutter(postgres, arrives=True)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, cutter.serve, 0)
        port = listeners[0].socket.getsockname()[1]
        where = make_url(postgres.new_database()).set(host="127.0.0.1", port=port)
        kept = message()
        async with open_store(where.render_as_string(hide_password=False)) as store:
            await store.commit(SaveRoom(room()))
            cutter.armed = True
            with pytest.raises(StoreError, match="may be there or not") as caught:
                await store.commit(AddMessage(kept, txn="t"))
            assert caught.value.unknown
            assert await store.commit(AddMessage(kept, txn="t")) == kept
            assert await stored(store) == [kept]
        nursery.cancel_scope.cancel()


@pytest.mark.postgresql
async def test_a_database_in_another_encoding_is_refused(postgres: Server) -> None:  # noqa: F811
    where = postgres.new_database()
    database = choose(where)
    with database.reading() as connection:
        connection.execute(
            text(
                "CREATE DATABASE odd ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C'"
                " LC_CTYPE 'C'"
            )
        )
    database.close()
    with pytest.raises(StoreError, match="Hubbub needs UTF8"):
        async with open_store(where.rsplit("/", 1)[0] + "/odd"):
            pass
