"""What the owner and everybody sees of what replies took."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from hub.records import Tally, User
from hub.store.contract import AddMember, AddTally, SaveRoom, SaveUser
from hub.store.memory import MemoryStore
from hub.store.opening import open_store
from hub.usage import first_day, summed
from tests.browsers import Browser, browser
from tests.command import HUBBUB, START_SECONDS, surroundings
from tests.hubs import running_hub
from tests.store.making import room
from tests.test_owner import hubbub

TODAY = datetime.now(UTC).date()
DAY, YESTERDAY, LONG_AGO = ((TODAY - timedelta(n)).isoformat() for n in (0, 1, 90))

BOB = User("bob", "Bob")
DEN = room(title="The den", visibility="private", owner="bob")


def tally(user: str = "bob", room: str = "den", **more: Any) -> Tally:
    given: dict[str, Any] = {"day": DAY, "model": "quick", "calls": 1}
    return Tally(**{**given, "user": user, "room": room, **more})


TALLIES = (
    tally(input_tokens=1000, output_tokens=200, cost=0.5),
    tally(day=YESTERDAY, input_tokens=10),
    tally(room="", model="wise", output_tokens=7, cost=2.0),
    tally("ann", "gone", calls=3),
    tally("ann", day=LONG_AGO, calls=50),
)


@asynccontextmanager
async def somebody(role: str = "guest") -> AsyncIterator[tuple[Browser, User]]:
    """A browser in a hub where Bob has had his den and his replies."""
    store = MemoryStore()
    await store.commit(SaveUser(BOB), SaveRoom(DEN), *map(AddTally, TALLIES))
    async with running_hub(store=store) as running, browser(running) as one:
        found = msgspec.convert((await one.look())["user"], User)
        user = await running.hub.change_user(msgspec.structs.replace(found, role=role))
        yield one, user


async def got(one: Browser, path: str) -> dict[str, Any]:
    answer = await one.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"].endswith(".")


async def test_an_admin_sees_the_days() -> None:
    async with somebody("admin") as (admin, _):
        seen = await got(admin, "/api/usage")
    assert seen["by"] == "day"
    assert [(one["key"], one["calls"], one["cost"]) for one in seen["usage"]] == [
        (YESTERDAY, 1, 0.0),
        (DAY, 5, 2.5),
    ]
    assert (seen["total"]["calls"], seen["total"]["input_tokens"], seen["more"]) == (6, 1010, False)


async def test_an_admin_sees_users_by_name_and_how_far_back() -> None:
    async with somebody("admin") as (admin, _):
        seen = await got(admin, f"/api/usage?by=user&since={LONG_AGO}")
    assert [(one["key"], one["name"], one["calls"]) for one in seen["usage"]] == [
        ("bob", "Bob", 3),
        ("ann", "somebody (ann)", 53),
    ]


async def test_rooms_that_an_admin_may_not_see_are_not_named() -> None:
    # The id of a room can be what lets one in.
    async with somebody("admin") as (admin, user):
        seen = (await got(admin, "/api/usage?by=room"))["usage"]
        assert [one["name"] for one in seen] == [
            "no room",
            "a room of others",
            "a room that is gone",
        ]
        assert not {"den", "gone"} & {one["key"] for one in seen}
        await admin.running.hub.store.commit(AddMember("den", user.id))
        seen = (await got(admin, "/api/usage?by=room"))["usage"]
        assert [(one["key"], one["name"]) for one in seen][1] == ("den", "The den")


@pytest.mark.parametrize("role", ["guest", "user", "moderator"])
async def test_others_see_only_their_own(role: str) -> None:
    async with somebody(role) as (one, user):
        refused(await one.get("/api/usage"), 403, "forbidden")
        store = one.running.hub.store
        await store.commit(AddTally(tally(user.id, "den", cost=0.25, calls=2)))
        mine = await got(one, "/api/usage/me?by=model")
        assert [(line["key"], line["calls"]) for line in mine["usage"]] == [("quick", 2)]
        assert mine["total"]["cost"] == 0.25


async def test_what_is_asked_wrongly() -> None:
    async with somebody("admin") as (admin, _):
        for query in ("since=yesterday", "by=mood", "since=2026-13-01"):
            refused(await admin.get(f"/api/usage?{query}"), 400, "bad_request")


async def test_strangers_see_nothing() -> None:
    async with running_hub() as running:
        for path in ("/api/usage", "/api/usage/me"):
            refused(await running.http.get(path), 401, "no_session")


def test_sums() -> None:
    lines = summed(TALLIES, "model")
    assert [(one.key, one.calls, one.cost) for one in lines] == [
        ("wise", 1, 2.0),
        ("quick", 55, 0.5),
    ]
    assert first_day(1, TODAY) == DAY
    assert first_day(2, TODAY) == YESTERDAY


# ── the command ──────────────────────────────────────────────────────────────────────────


def filled(folder: Path) -> None:
    async def fill() -> None:
        async with open_store(folder / "data" / "hubbub.db") as store:
            await store.commit(SaveUser(BOB), SaveRoom(DEN), *map(AddTally, TALLIES))

    trio.run(fill)


def test_the_owner_sees_it_all(tmp_path: Path) -> None:
    filled(tmp_path)
    table = hubbub("usage", "--by", "room", folder=tmp_path).stdout.splitlines()
    assert [line.split() for line in table] == [
        ["room", "replies", "tokens", "in", "tokens", "out", "cost"],
        ["no", "room", "1", "0", "7", "2.0000"],
        ["The", "den", "2", "1,010", "200", "0.5000"],
        ["a", "room", "that", "is", "gone", "(gone)", "3", "0", "0", "0.0000"],
        ["total", "6", "1,010", "207", "2.5000"],
    ]
    assert len({len(line) for line in table}) == 1
    days = hubbub("usage", "--days", "1", folder=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in days] == ["day", DAY, "total"]
    users = hubbub("usage", "--by", "user", folder=tmp_path).stdout
    assert "Bob" in users


def test_no_database_is_made_to_look_into(tmp_path: Path) -> None:
    told = hubbub("usage", folder=tmp_path, status=2)
    assert "There is no database at" in told.stderr
    assert not (tmp_path / "data").exists()


def test_days_that_are_none(tmp_path: Path) -> None:
    for days in ("0", "x", "99999999999"):
        done = subprocess.run(
            [HUBBUB, "usage", "--days", days],
            cwd=tmp_path,
            env=surroundings(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 2
        assert "a whole number from 1 to" in done.stderr
