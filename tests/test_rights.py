"""Every cell of the table of rights, as the docs print it, over real sockets."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from hub import rights
from hub.records import Role, Room, User
from hub.room import now
from hub.store.contract import AddMember, SaveRoom
from tests.hubs import Native, Refusal, Running, running_hub
from tests.server import ROOT

REFUSED = {"forbidden", "no_room", "not_joined"}
NAMES = "|".join(rights.ROLES)


def printed() -> dict[tuple[str, str | None], Role | None]:
    """What docs/rights.md says."""
    text = (ROOT / "docs/rights.md").read_text()
    cells: dict[tuple[str, str | None], Role | None] = {}
    for line in re.findall(r"^\| `\w+` \|.*$", text, re.MULTILINE):
        action, *columns = (cell.strip() for cell in line.strip("|").split("|"))
        if len(columns) == len(rights.STANDINGS) + 1:
            for stands, cell in zip(rights.STANDINGS, columns, strict=False):
                cells[action.strip("`"), stands] = cell or None
        else:
            cells[action.strip("`"), None] = columns[0]
    return cells


def test_the_docs_print_the_table() -> None:
    assert printed() == {(action, stands): least for action, stands, least in rights.table()}


def allowed(least: Role | None, role: Role) -> bool:
    return least is not None and rights.ROLES.index(role) >= rights.ROLES.index(least)


@asynccontextmanager
async def somebody(running: Running, role: Role) -> AsyncIterator[tuple[Native, httpx.AsyncClient]]:
    """A person with a session, in a role; connected."""
    async with httpx.AsyncClient(base_url=running.http.base_url, timeout=10) as http:
        me = (await http.get("/api/session")).json()
        user = User(me["user"]["id"], me["user"]["name"], role == "guest", role)
        await running.hub.change_user(user)
        http.headers["x-csrf-token"] = me["csrf"]
        cookie = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
        async with running.connect(
            path=f"/ws?csrf={me['csrf']}", headers=[(b"cookie", cookie.encode())]
        ) as client:
            yield client, http


async def room_for(running: Running, actor: str, other: str, stands: rights.Standing) -> str:
    """A room to which `actor` stands so, with `other` in it."""
    id = f"{stands}-{now()}-{len(running.hub.presets.characters)}"
    public = stands == "visitor"
    room = Room(
        id=id.replace(":", ""),
        title="Room",
        owner=actor if stands == "owner" else "somebody-else",
        visibility="public" if public else "private",
        banned=[actor] if stands == "banned" else [],
        at=now(),
    )
    members = [AddMember(room.id, other)]
    if stands in {"member", "banned"}:
        members.append(AddMember(room.id, actor))
    await running.hub.store.commit(SaveRoom(room), *members)
    return room.id


METHODS: dict[str, tuple[str, dict[str, object]]] = {
    "see": ("read_messages", {}),
    "join": ("join_room", {}),
    "speak": ("send_prompt", {"text": "Hello.", "txn": "1"}),
    "stop": ("stop", {}),
    "edit": ("update_room", {"title": "Other"}),
    "kick": ("kick", {"user": "<other>"}),
    "ban": ("ban", {"user": "<other>"}),
}


async def tried(
    client: Native, http: httpx.AsyncClient, action: str, room: str, other: str
) -> str | None:
    """Do it, as a user's program would; return the code with which it was refused, if it was."""
    if action in {"delete", "export"}:
        answer = (
            await http.delete(f"/api/rooms/{room}")
            if action == "delete"
            else await http.get(f"/api/rooms/{room}/export")
        )
        return None if answer.is_success else str(answer.json()["code"])
    method, payload = METHODS[action]
    try:
        if action in {"speak", "stop"}:
            await client.call("join_room", room=room)
        payload = payload | ({"user": other} if "user" in payload else {})
        await client.call(method, room=room, **payload)
    except Refusal as refusal:
        return refusal.code
    return None


@pytest.mark.parametrize("stands", rights.STANDINGS)
@pytest.mark.parametrize("role", rights.ROLES)
async def test_each_cell_about_rooms(role: Role, stands: rights.Standing) -> None:
    async with (
        running_hub() as running,
        somebody(running, role) as (client, http),
        running.connect() as other,
    ):
        for (action, column), least in printed().items():
            if column != stands:
                continue
            room = await room_for(running, client.user["id"], other.user["id"], stands)
            refused = await tried(client, http, action, room, other.user["id"])
            assert refused is None or refused in REFUSED
            assert (refused is None) == allowed(least, role), (action, stands, role)


async def test_a_new_role_counts_from_the_next_message_on() -> None:
    async with running_hub() as running, somebody(running, "moderator") as (client, _):
        await client.call("join_room", room="lobby")
        await client.call("update_room", room="lobby", title="Hall")
        me = User(client.user["id"], client.user["name"], False, "user")
        await running.hub.change_user(me)
        with pytest.raises(Refusal, match="forbidden"):
            await client.call("update_room", room="lobby", title="Mine")


async def test_who_is_kicked_comes_back_by_invite_and_who_is_banned_does_not() -> None:
    async with running_hub() as running, running.connect() as ada, running.connect() as bob:
        made = (await ada.call("create_room", visibility="link"))["room"]
        room, invite, who = made["id"], made["invite"], bob.user["id"]
        for method in ("kick", "ban"):
            await bob.call("join_room", room=room, invite=invite)
            await ada.call(method, room=room, user=who)
            assert (await bob.event("room_removed"))["room"] == room
            with pytest.raises(Refusal, match="not_joined"):
                await bob.prompt(room, "Still here?")
            await ada.event(
                "member_left", member={"id": who, "name": bob.user["name"], "kind": "human"}
            )
        for invitation in (None, invite):
            with pytest.raises(Refusal, match="no_room"):
                await bob.call("join_room", room=room, invite=invitation)
        assert "banned" not in (await ada.call("update_room", room=room, title="Ours"))["room"]
        await ada.call("ban", room=room, user=who, banned=False)
        await bob.call("join_room", room=room, invite=invite)


async def test_a_ban_survives_a_restart_and_a_public_room_has_one_too() -> None:
    async with running_hub() as running, running.connect() as ada, running.connect() as bob:
        room = (await ada.call("create_room", visibility="public"))["room"]["id"]
        await ada.call("ban", room=room, user=bob.user["id"])
        stored = await running.hub.store.room(room)
        assert stored is not None
        assert stored.banned == [bob.user["id"]]
        with pytest.raises(Refusal, match="no_room"):
            await bob.call("join_room", room=room)
        with pytest.raises(Refusal, match="forbidden"):
            await ada.call("ban", room=room, user=ada.user["id"])


async def test_the_list_of_banned_people_has_an_end() -> None:
    async with running_hub(banned_per_room=2) as running, running.connect() as ada:
        room = (await ada.call("create_room"))["room"]["id"]
        for who in ("one", "two", "two"):
            await ada.call("ban", room=room, user=who)
        with pytest.raises(Refusal, match="full"):
            await ada.call("ban", room=room, user="three")


async def test_nobody_removes_the_lobby() -> None:
    async with running_hub() as running, somebody(running, "admin") as (_, http):
        answer = await http.delete("/api/rooms/lobby")
        assert (answer.status_code, answer.json()["error"]) == (403, "The lobby stays.")
