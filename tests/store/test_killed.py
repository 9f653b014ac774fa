"""Killed at any moment, a hub has lost nothing that it acknowledged.

A real process each time, killed with SIGKILL. It is forked from a server that has everything
imported, so that a cycle takes well under half a second.
"""

import multiprocessing
import os
import random
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import trio
from sqlalchemy import text

from hub.records import Message
from hub.store.maintenance import check
from hub.store.opening import choose, open_store
from tests.postgres import Server, postgres  # noqa: F401 - a fixture
from tests.store import crash_child

CYCLES = 50


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.crash_child", "hub.store.postgresql"])
    return context


def killed_after(processes: ForkServerContext, where: str, cycle: int, seconds: float) -> list[str]:
    """Run the program, kill it so long after it was ready; return what it acknowledged."""
    ours, theirs = processes.Pipe(duplex=False)
    child = processes.Process(target=_child, args=(where, cycle, theirs))
    child.start()
    theirs.close()
    with os.fdopen(os.dup(ours.fileno()), "rb") as told:
        ours.close()
        first = told.readline()
        assert first == b"ready\n", "the program could not open its store"
        time.sleep(seconds)
        assert child.is_alive(), "the program ended by itself"
        child.kill()
        child.join()
        return [line.decode().strip() for line in told]


def _child(where: str, cycle: int, told: object) -> None:
    crash_child.main(where, cycle, told.fileno())  # type: ignore[attr-defined]


async def read_all(where: str) -> tuple[list[Message], list[str]]:
    """Open, as a hub that starts again; return all messages, and the order they came in."""
    messages: list[Message] = []
    async with open_store(where) as store:
        while page := await store.transcript(
            "den", viewer=None, after=messages[-1].id if messages else "", limit=5_000
        ):
            messages += page
    return messages, [one.id for one in messages]


def survive(processes: ForkServerContext, where: str) -> None:
    chance = random.Random(5)
    acknowledged: list[str] = []
    for cycle in range(CYCLES):
        told = killed_after(processes, where, cycle, chance.uniform(0.0, 0.06))
        acknowledged += told
    messages, ids = trio.run(read_all, where)
    assert len(set(ids)) == len(ids)
    assert _as_stored(where, set(acknowledged)) == acknowledged
    assert {one.status for one in messages} <= {"done", "interrupted"}
    assert any(one.status == "interrupted" for one in messages)
    assert len(acknowledged) > CYCLES
    _no_writer_has_a_gap(messages)
    assert check(where) == []


def _as_stored(where: str, wanted: set[str]) -> list[str]:
    """Read ids in the order in which they were stored."""
    database = choose(where)
    with database.reading() as connection:
        ids = connection.scalars(text("SELECT id FROM messages ORDER BY n")).all()
    database.close()
    return [id for id in ids if id in wanted]


def _no_writer_has_a_gap(messages: list[Message]) -> None:
    """Each writer waits for one message before the next: 1, 2, 3 … are there, once each."""
    numbers: dict[str, list[int]] = {}
    for one in messages:
        if not one.id.endswith("r"):
            writer, number = one.text.split()
            numbers.setdefault(writer, []).append(int(number))
    for writer, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), writer


def test_sqlite_loses_nothing(processes: ForkServerContext, tmp_path: Path) -> None:
    survive(processes, str(tmp_path / "hubbub.db"))


@pytest.mark.postgresql
def test_postgresql_loses_nothing(processes: ForkServerContext, postgres: Server) -> None:  # noqa: F811
    survive(processes, postgres.new_database())
