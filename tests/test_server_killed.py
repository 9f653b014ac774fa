"""The whole hub, killed at any moment; and its database, killed under it.

A real process under load by real sockets. Clients do what the page does: after a loss they come
back and send again, with the same `txn`, what was not answered.
"""

import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio_websocket
from attrs import define, field

from hub.records import LOBBY, Message
from hub.store.contract import StoreError
from hub.store.maintenance import check
from hub.store.memory import MemoryStore
from tests import postgres as pg
from tests.hubs import Closed, Native, Refusal, Running, running_hub
from tests.postgres import Server as PostgreSQL
from tests.postgres import postgres  # noqa: F401 - a fixture
from tests.scripted import Gate, Scripted
from tests.server import Server, running_server
from tests.sockets import PATIENCE

ROUNDS = 8
WRITERS = 6

BACK_SECONDS = 30.0
"""The longest that a killed database server may take to be there again, and be noticed."""

LOST = (Closed, OSError, trio.TooSlowError, trio_websocket.HandshakeError)


@define
class Person:
    """Somebody with a browser's session, at a hub that comes and goes."""

    url: str
    cookie: str
    csrf: str

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Native]:
        there = Running(self.url.rstrip("/"), None, None)  # type: ignore[arg-type]
        headers = [(b"cookie", self.cookie.encode())]
        async with there.connect(path=f"/ws?csrf={self.csrf}", headers=headers) as client:
            await client.call("join_room", room=LOBBY)
            yield client

    async def said(self) -> list[Message]:
        """Everything in the lobby, as a file has it."""
        headers = {"cookie": self.cookie}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30) as http:
            file = await http.get(f"/api/rooms/{LOBBY}/export?format=jsonl")
        return [msgspec.json.decode(line, type=Message) for line in file.iter_lines()]


async def newcomer(server: Server) -> Person:
    async with httpx.AsyncClient(base_url=server.url) as http:
        me = (await http.get("/api/session")).json()
        cookie = f"hubbub_session={http.cookies['hubbub_session']}"
    return Person(server.url, cookie, me["csrf"])


@define
class Writer:
    """Sends one prompt after the other; each again until it is answered."""

    person: Person
    name: str
    number: int = 0
    waiting: str = ""
    acknowledged: list[tuple[str, str]] = field(factory=list)
    sent_again: int = 0
    answered: trio.Event = field(factory=trio.Event)

    async def write(self, until: trio.Event) -> None:
        while not until.is_set() or self.waiting:
            try:
                async with self.person.connect() as client:
                    while not until.is_set() or self.waiting:
                        await self.send(client)
            except LOST:
                await trio.sleep(0.02)  # a pause before coming back, not a wait for something

    async def send(self, client: Native) -> None:
        if self.waiting:
            self.sent_again += 1
        else:
            self.number += 1
            self.waiting = f"{self.name} {self.number}"
        result = await client.call("send_prompt", room=LOBBY, text=self.waiting, txn=self.waiting)
        self.acknowledged.append((self.waiting, result["message"]["id"]))
        self.waiting = ""
        client.events.clear()
        self.answered.set()
        self.answered = trio.Event()


async def survive(server: Server) -> None:
    chance = random.Random(7)
    writers = [Writer(await newcomer(server), f"w{n}") for n in range(WRITERS)]
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        for one in writers:
            nursery.start_soon(one.write, over)
        for _ in range(ROUNDS):
            await trio.sleep(chance.uniform(0.05, 0.6))  # the moment is the point
            with trio.fail_after(PATIENCE):
                await chance.choice(writers).answered.wait()
            server.kill()
            await trio.to_thread.run_sync(server.restart)
        over.set()
    server.kill()
    await trio.to_thread.run_sync(server.restart)
    said = await writers[0].person.said()
    _all_there(said, writers)


def _all_there(said: list[Message], writers: list[Writer]) -> None:
    ids = [one.id for one in said]
    assert ids == sorted(set(ids))
    by_text = {one.text: one.id for one in said if one.author.kind == "human"}
    assert len(by_text) == sum(one.author.kind == "human" for one in said), "said twice"
    for one in writers:
        # Each waits for its answer before it goes on: 1, 2, 3 ..., in this order, once each.
        assert [text for text, _ in one.acknowledged] == [
            f"{one.name} {n}" for n in range(1, one.number + 1)
        ]
        assert [by_text[text] for text, _ in one.acknowledged] == [id for _, id in one.acknowledged]
        assert (found := [id for _, id in one.acknowledged]) == sorted(found)
    assert sum(one.number for one in writers) == len(by_text)
    replies = [one for one in said if one.author.kind == "character"]
    assert {one.status for one in replies} <= {"done", "interrupted"}
    assert any(one.status == "interrupted" for one in replies), "none was under way"
    assert all(one.html for one in replies if one.text)
    assert sum(one.sent_again for one in writers) > 0, "nothing was lost on the way"


FAST = {"HUBBUB_DEMO_RATE": "300", "HUBBUB_GRACE": "60"}


async def test_killed_with_sqlite(tmp_path: Path) -> None:
    with running_server(env=FAST, data=tmp_path) as server:
        await survive(server)
    assert check(tmp_path / "hubbub.db") == []


@pytest.mark.postgresql
async def test_killed_with_postgresql(postgres: PostgreSQL) -> None:  # noqa: F811
    where = postgres.new_database()
    with running_server(env={**FAST, "HUBBUB_DATABASE": where}) as server:
        await survive(server)
    assert check(where) == []


# ── the database server is killed ────────────────────────────────────────────────────────


def _kill(server: PostgreSQL) -> None:
    """End the server and all its processes as a power failure would."""
    process = server._process
    assert process is not None
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    )
    for pid in [process.pid, *map(int, found.stdout.split())]:
        os.kill(pid, signal.SIGKILL)
    process.wait(30)
    server._process = None


@pytest.mark.postgresql
async def test_the_database_server_is_killed_under_a_hub() -> None:
    binaries = pg.find()
    if binaries is None:
        pytest.skip("no PostgreSQL is installed")
    database = PostgreSQL(binaries)
    try:
        await trio.to_thread.run_sync(database.start)
        env = {"HUBBUB_DATABASE": database.new_database(), "HUBBUB_DEMO_RATE": "25"}
        with running_server(env=env) as server:
            await outlast(server, database)
    finally:
        database.remove()


async def outlast(server: Server, database: PostgreSQL) -> None:
    ada = await newcomer(server)
    async with ada.connect() as client:
        first = await client.prompt(LOBBY, "before")
        seen = await client.until("token")
        await trio.to_thread.run_sync(_kill, database)
        for n in range(3):
            with pytest.raises(Refusal) as refused:
                await client.prompt(LOBBY, f"lost {n}")
            assert refused.value.code == "store_down"
            assert "Try again soon" in refused.value.message
        later = await client.until("message_end")  # the reply goes on, in memory
        assert later[-1][1]["status"] == "done"
        assert sum(name == "token" for name, _ in later) > 3
        seen += later
        assert "lost" not in str([payload for name, payload in seen if name == "message"])
        await trio.to_thread.run_sync(database.start)
        after = await _accepted(client, "after")
        await client.event("message_end", status="done")
    await trio.sleep(2.5)  # two of the hub's beats, in which it saves what it could not
    server.kill()  # what is on disk now is all that there is
    await trio.to_thread.run_sync(server.restart)
    said = await ada.said()
    assert [one.id for one in said if one.author.kind == "human"] == [first["id"], after["id"]]
    replies = [one for one in said if one.author.kind == "character"]
    assert [one.status for one in replies] == ["done", "done"]
    assert replies[0].text == "".join(its["text"] for name, its in seen if name == "token")


async def _accepted(client: Native, text: str) -> dict[str, Any]:
    """Say something as soon as it is taken."""
    with trio.fail_after(BACK_SECONDS):
        while True:
            try:
                return await client.prompt(LOBBY, text)
            except Refusal:
                await trio.sleep(0.2)
    raise AssertionError


# ── a reply that ends while nothing can be stored ────────────────────────────────────────


@pytest.mark.parametrize("begins", ["before", "in it"])
async def test_a_reply_that_ended_in_an_outage_is_stored_after_it(
    begins: str, autojump_clock: object
) -> None:
    store, gate = MemoryStore(), Gate()
    async with running_hub(Scripted(gate), store=store) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        await ada.prompt(LOBBY, "Hello")
        broken = StoreError("The disk is full.")
        await ada.event("token" if begins == "before" else "message")
        store.fail = broken
        gate.open()
        ended = await ada.event("message_end", status="done")
        await trio.sleep(3)
        assert (kept := await store.message(LOBBY, ended["id"])) is None or (
            kept[0].status == "running"
        )
        store.fail = None
        await trio.sleep(3)
        kept = await store.message(LOBBY, ended["id"])
        assert kept is not None
        assert (kept[0].status, kept[0].html) == ("done", ended["html"])
        assert running.hub.live[0].unsaved == {}


async def test_one_that_was_removed_meanwhile_stays_away(autojump_clock: object) -> None:
    store, gate = MemoryStore(), Gate()
    async with running_hub(Scripted(gate), store=store) as running, running.connect() as ada:
        await ada.call("join_room", room=LOBBY)
        await ada.prompt(LOBBY, "Hello")
        await ada.event("token")
        store.fail = StoreError("The disk is full.")
        gate.open()
        ended = await ada.event("message_end", status="done")
        store.fail = None
        await ada.call("regenerate", room=LOBBY, message=ended["id"])
        await ada.event("message_end", status="done")
        await trio.sleep(3)
        assert await store.message(LOBBY, ended["id"]) is None
