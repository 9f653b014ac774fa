"""What keeping things costs: group commit, joining a long room, search in very many messages."""

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from sqlalchemy import Connection, text

from hub.records import Author, Message, Room
from hub.store.changes import apply
from hub.store.contract import AddMember, AddMessage, SaveRoom, Store
from hub.store.opening import open_store
from hub.store.rows import prepare
from hub.store.sqlite import SQLite
from tests.bench import Row

WRITERS = 100
ROOMS = 100
WORDS = 20_000
"""Different words in the searched messages; how often each occurs falls as in a language."""

QUERIES = {
    "frequent words": "w0 w1",
    "a rare word": "w19000",
    "frequent and rare": "w0 w15000",
    "a prefix": "w12",
    "nothing": "w0 xyz",
}


def run(quick: bool) -> list[Row]:
    """Measure on an SQLite file in the temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder)
        return [
            *trio.run(_writing, file / "write.db", 1.0 if quick else 4.0),
            *trio.run(_joining, file / "join.db"),
            *trio.run(_searching, file / "search.db", 100_000 if quick else 1_000_000),
        ]


def _message(number: int, room: str, said: str) -> Message:
    return Message(
        f"{number:012}", room, Author("ann", "Ann", "human"), said, f"<p>{said}</p>",
        "2026-01-01T00:00:00Z", "done", demo=False, private=False,
    )  # fmt: skip


async def _writing(file: Path, seconds: float) -> list[Row]:
    async with open_store(file) as store:
        await store.commit(SaveRoom(Room("r", "r")))
        alone = await _rate(store, 1, seconds)
        crowd = await _rate(store, WRITERS, seconds)
        lone = await _median(lambda: store.commit(*_fresh()), 200)
    bare = _one_by_one(file, 200)
    return [
        Row(
            f"store: durable prompts, {WRITERS} writers to one", crowd, alone, crowd / alone, 10.0,
            "/s", at_least=True, note="group commit to one-by-one commits",
        ),
        Row(
            "store: a lone prompt to a bare commit", lone * 1e3, bare * 1e3, lone / bare, 2.0, "ms",
            note="at most one commit's time is added",
        ),
    ]  # fmt: skip


_numbers = iter(range(1_000_000_000))


def _fresh() -> tuple[AddMessage]:
    return (AddMessage(_message(next(_numbers), "r", "What do you think about all this?")),)


async def _rate(store: Store, writers: int, seconds: float) -> float:
    count = 0

    async def write() -> None:
        nonlocal count
        while True:
            await store.commit(*_fresh())
            count += 1

    start = time.perf_counter()
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(writers):
                nursery.start_soon(write)
    return count / (time.perf_counter() - start)


def _one_by_one(file: Path, times: int) -> float:
    """Commit the same change on the same tables without a thread; return the median seconds."""
    database = SQLite(file)
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        with database.writing() as connection:
            apply(database, connection, [prepare(change) for change in _fresh()])
        taken.append(time.perf_counter() - start)
    database.close()
    return statistics.median(taken)


async def _median(do: Callable[[], Awaitable[object]], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await do()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


async def _joining(file: Path) -> list[Row]:
    async with open_store(file) as store:
        await store.commit(SaveRoom(Room("short", "short")), SaveRoom(Room("long", "long")))
        await _fill(file, 100, lambda _: "short", lambda _: "hello")
        await _fill(file, 100_000, lambda _: "long", lambda _: "hello")
        short = await _median(lambda: _join(store, "short"), 300)
        long = await _median(lambda: _join(store, "long"), 300)
    name = "store: joining a room, 100,000 messages to 100"
    return [Row(name, long * 1e3, short * 1e3, long / short, 1.5, "ms")]


async def _join(store: Store, room: str) -> None:
    assert await store.room(room)
    messages, more = await store.messages(room, viewer="ann")
    assert len(messages) == 50
    assert more


async def _searching(file: Path, messages: int) -> list[Row]:
    async with open_store(file) as store:
        rooms = [f"r{number}" for number in range(ROOMS)]
        await store.commit(*(SaveRoom(Room(room, room)) for room in rooms))
        await store.commit(*(AddMember(room, "ann") for room in rooms))
        await _fill(file, messages, lambda n: f"r{n % ROOMS}", _sentence)
        rows = []
        for what, query in QUERIES.items():
            everywhere, inside = await _searched(store, query)
            where = f"store: search {messages:,} messages, {what}"
            rows.append(Row(f"{where}, all rooms", everywhere * 1e3, goal=100.0, unit="ms"))
            rows.append(Row(f"{where}, one room", inside * 1e3, goal=100.0, unit="ms"))
    return rows


async def _searched(store: Store, query: str) -> tuple[float, float]:
    """Return median seconds over all rooms and in one."""
    everywhere = await _median(lambda: store.search("ann", query), 15)
    return everywhere, await _median(lambda: store.messages("r7", viewer="ann", query=query), 15)


def _sentence(number: int) -> str:
    """Twelve words; word k is found in about one message in k / 8, as in a language."""
    seed = number * 2_654_435_761 % 2**32
    words = []
    for _ in range(12):
        seed = (seed * 1_103_515_245 + 12_345) % 2**31
        words.append(f"w{int(WORDS ** (seed / 2**31)) - 1}")
    return " ".join(words)


async def _fill(
    file: Path, messages: int, room: Callable[[int], str], said: Callable[[int], str]
) -> None:
    """Store very many messages behind the hub's back, in big transactions."""
    await trio.to_thread.run_sync(_fill_now, file, messages, room, said)


def _fill_now(
    file: Path, messages: int, room: Callable[[int], str], said: Callable[[int], str]
) -> None:
    database = SQLite(file, "NORMAL")
    for start in range(0, messages, 20_000):
        with database.writing() as connection:
            _insert(database, connection, range(start, min(start + 20_000, messages)), room, said)
    with database.reading() as connection:
        assert connection.scalar(text("SELECT count(*) FROM messages"))
    database.close()


def _insert(
    database: SQLite,
    connection: Connection,
    numbers: range,
    room: Callable[[int], str],
    said: Callable[[int], str],
) -> None:
    changes = [AddMessage(_message(next(_numbers), room(n), said(n))) for n in numbers]
    apply(database, connection, [prepare(change) for change in changes])
