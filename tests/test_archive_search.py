"""Rooms that are put away and fetched back; words looked for in all rooms."""

from typing import Any

import msgspec
import pytest

from hub.records import LOBBY, Message
from hub.store.contract import AddMember, AddMessage, SaveRoom
from tests.hubs import Native, Refusal, running_hub
from tests.scripted import Scripted
from tests.store.making import message, room
from tests.test_api import guest, signed_in


async def titles(client: Native, **how: Any) -> list[str]:
    return [one["title"] for one in (await client.call("list_rooms", **how))["rooms"]]


# ── archive ──────────────────────────────────────────────────────────────────────────────


async def test_an_archived_room_leaves_the_list_and_comes_back(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect() as ada:
        made = (await ada.call("create_room", title="Old plans"))["room"]["id"]
        changed = await ada.call("update_room", room=made, archived=True)
        assert changed["room"]["archived"] is True
        assert (await ada.event("room_updated"))["settings"] == {"archived": True}
        assert await titles(ada) == ["Lobby"]
        assert await titles(ada, archived=True) == ["Old plans"]
        assert (await ada.prompt(made, "still here"))["text"] == "still here"
        await ada.call("update_room", room=made, archived=False)
        assert await titles(ada) == ["Lobby", "Old plans"]
        assert await titles(ada, archived=True) == []


async def test_the_lobby_cannot_be_archived_nor_can_others_rooms(autojump_clock: object) -> None:
    async with running_hub() as running, running.connect() as ada, running.connect() as ben:
        made = (await ada.call("create_room", visibility="public"))["room"]["id"]
        for id, code in ((LOBBY, "forbidden"), (made, "forbidden")):
            with pytest.raises(Refusal) as refused:
                await ben.call("update_room", room=id, archived=True)
            assert refused.value.code == code


async def test_archiving_over_http(autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        made = (await client.post("/api/rooms", json={"title": "Attic"})).json()["room"]["id"]
        answer = await client.patch(f"/api/rooms/{made}", json={"archived": True})
        assert answer.json()["room"]["archived"] is True
        listed = (await client.get("/api/rooms")).json()["rooms"]
        assert [one["id"] for one in listed] == [LOBBY]
        archived = (await client.get("/api/rooms?archived=true")).json()["rooms"]
        assert [one["id"] for one in archived] == [made]
        assert (await client.get("/api/rooms?archived=maybe")).status_code == 400


async def test_a_deleted_room_is_gone_from_everywhere(autojump_clock: object) -> None:
    async with running_hub() as running, signed_in(running) as (client, _me, ada):
        made = (await ada.call("create_room", title="Attic"))["room"]["id"]
        said = await ada.prompt(made, "marmalade")
        await ada.event("message_end")
        assert (await client.delete(f"/api/rooms/{made}")).status_code == 204
        await ada.event("room_removed", room=made)
        assert await titles(ada) == ["Lobby"]
        assert await titles(ada, archived=True) == []
        assert (await ada.call("search_messages", query="marmalade"))["messages"] == []
        assert await running.hub.store.message(made, said["id"]) is None
        assert await running.hub.store.transcript(made, viewer=None) == []


# ── search over all rooms ────────────────────────────────────────────────────────────────


async def test_words_are_found_in_all_rooms_that_one_may_see(autojump_clock: object) -> None:
    async with running_hub(Scripted()) as running, running.connect() as ada:
        store = running.hub.store
        await store.commit(
            SaveRoom(room("mine", title="Mine")),
            AddMember("mine", ada.user["id"]),
            SaveRoom(room("closed")),
            SaveRoom(room("square", title="Square", visibility="public")),
            SaveRoom(room("barred", visibility="public", banned=[ada.user["id"]])),
            AddMessage(message("red marmalade", room="mine")),
            AddMessage(message("secret marmalade", room="closed")),
            AddMessage(message("green marmalade", room="square")),
            AddMessage(message("barred marmalade", room="barred")),
            AddMessage(message("whispered marmalade", room="square", private=True), to="somebody"),
            AddMessage(message("my marmalade", room="square", private=True), to=ada.user["id"]),
        )
        found = await ada.call("search_messages", query="marmalade")
        texts = [one["text"] for one in found["messages"]]
        assert texts == ["red marmalade", "green marmalade", "my marmalade"]
        assert found["rooms"] == {"mine": "Mine", "square": "Square"}
        assert found["more"] is False
        assert "barred" not in [one["id"] for one in (await ada.call("list_rooms"))["rooms"]]
        last = await ada.call("search_messages", query="marmalade", limit=1)
        assert [one["text"] for one in last["messages"]] == ["my marmalade"]
        assert last["more"] is True
        before = await ada.call(
            "search_messages", query="marmalade", before=last["messages"][0]["id"]
        )
        assert [one["text"] for one in before["messages"]] == texts[:2]


async def test_searching_over_http(autojump_clock: object) -> None:
    async with running_hub() as running, guest(running) as (client, _me):
        said = message("a *marmalade* pot", room=LOBBY, status="interrupted")
        await running.hub.store.commit(AddMessage(said))
        found = (await client.get("/api/search", params={"q": "Marmalade"})).json()
        html = "<p>a <em>marmalade</em> pot</p>\n"
        assert msgspec.convert(found["messages"], list[Message]) == [
            msgspec.structs.replace(said, html=html)
        ]
        assert (await client.get("/api/search")).json()["messages"] == []
        for wrong in ({"q": "x" * 501}, {"q": "x", "limit": "0"}, {"q": "x", "limit": "-1"}):
            assert (await client.get("/api/search", params=wrong)).status_code == 400
        assert (await running.http.get("/api/search?q=x")).status_code == 401
