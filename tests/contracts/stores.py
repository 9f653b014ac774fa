"""One of each store, and what the tests of their contract say and see."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub.records import Message
from hub.store.contract import AddMessage, SaveRoom, Store
from hub.store.opening import open_store
from tests.store.making import message, room


@pytest.fixture(
    name="where",
    params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)],
)
def where_it_is(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return str(tmp_path / "hubbub.db")
    url: str = request.getfixturevalue("postgres").new_database()
    return url


@pytest.fixture(name="store")
async def open_one(where: str) -> AsyncIterator[Store]:
    async with open_store(where) as store:
        await store.commit(SaveRoom(room()))
        yield store


def texts(page: tuple[Sequence[Message], bool]) -> list[str]:
    return [one.text for one in page[0]]


async def say(store: Store, *said: str, to: str | None = None, **more: Any) -> list[Message]:
    messages = [message(text, **more) for text in said]
    await store.commit(*(AddMessage(one, to=to) for one in messages))
    return messages


async def all_of(store: Store, room: str = "den", viewer: str | None = "ann") -> list[Message]:
    found, more = await store.messages(room, viewer=viewer, limit=10_000)
    assert not more
    return list(found)
