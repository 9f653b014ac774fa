"""Character cards over HTTP: looked into, put into a room, taken out again."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hub.cards import import_card
from hub.casting import CARDS_BYTES
from hub.png import plain_picture, text_chunk, write_chunks
from tests.hubs import Native, Running, running_hub

CARD: dict[str, Any] = {
    "spec": "chara_card_v3",
    "spec_version": "3.0",
    "data": {
        "name": "Mira",
        "description": "{{char}} keeps a lighthouse.",
        "personality": "Dry.",
        "scenario": "A storm.",
        "first_mes": "Come in, {{user}}.",
        "alternate_greetings": ["Who is there?"],
        "creator_notes": "Best at night.",
        "system_prompt": "Be brief. {{original}}",
        "extensions": {"talkativeness": "0.8", "other/tool": {"deep": [1, None, "é"]}},
        "character_book": {"entries": [{"keys": ["lamp"], "content": "The lamp is cracked."}]},
    },
}


def as_json(**changed: Any) -> bytes:
    return json.dumps({**CARD, "data": {**CARD["data"], **changed}}).encode()


def as_png(card: bytes) -> bytes:
    *head, end = plain_picture((1, 2, 3))
    return write_chunks([*head, text_chunk("ccv3", base64.b64encode(card)), end])


@asynccontextmanager
async def owner(**settings: Any) -> AsyncIterator[tuple[Running, httpx.AsyncClient, Native]]:
    """Somebody with a session, over HTTP and connected."""
    async with running_hub(**settings) as running:
        me = (await running.http.get("/api/session")).json()
        running.http.headers["x-csrf-token"] = me["csrf"]
        cookie = "; ".join(f"{name}={value}" for name, value in running.http.cookies.items())
        async with running.connect(
            path=f"/ws?csrf={me['csrf']}", headers=[(b"cookie", cookie.encode())]
        ) as client:
            yield running, running.http, client


async def new_room(client: Native, *characters: object) -> str:
    made = await client.call("create_room", visibility="public", characters=list(characters))
    return str(made["room"]["id"])


@pytest.mark.parametrize("kind", ["json", "png"])
async def test_a_card_is_looked_into(kind: str) -> None:
    card = as_json() if kind == "json" else as_png(as_json())
    async with owner() as (_, http, client):
        response = await http.post("/api/cards", content=card)
        assert response.status_code == 200
        found = response.json()
        assert found["character"]["name"] == "Mira"
        assert found["character"]["backstory"] == "{{char}} keeps a lighthouse."
        assert found["character"]["talkativeness"] == 0.8
        told = {key: found[key] for key in ("scenario", "notes", "warnings", "greetings")}
        assert told == {
            "scenario": "A storm.",
            "notes": "Best at night.",
            "warnings": [],
            "greetings": 2,
        }
        # It is what `create_room` takes.
        made = await client.call("create_room", characters=[found["character"]])
        assert [one["name"] for one in made["room"]["cast"]] == ["Mira"]


@pytest.mark.parametrize("kind", ["json", "png"])
async def test_a_card_joins_a_cast_speaks_by_it_and_leaves_whole(kind: str) -> None:
    card = as_json() if kind == "json" else as_png(as_json())
    async with owner() as (running, http, client):
        room = await new_room(client, "assistant")
        response = await http.post(f"/api/rooms/{room}/cards", content=card)
        assert response.status_code == 201
        found = response.json()
        assert "other/tool" not in response.text
        assert [one["name"] for one in found["room"]["cast"]] == ["Assistant", "Mira"]
        told = await client.event("room_updated")
        assert told["settings"]["cast"] == found["room"]["cast"]
        greeting = (await client.event("message"))["message"]
        assert greeting["text"] == f"Come in, {client.user['name']}."
        assert greeting["swipes"] == ["Who is there?"]
        # What only the card knows is used.
        await client.prompt(room, "What of the lamp?", to=["Mira"])
        await client.event("turn", state="done")
        system = running.hub.provider.requests[-1].messages[0].content  # type: ignore[attr-defined]
        assert "The lamp is cracked." in system
        assert "Be brief." in system
        # It is there after changes of the room, and on export.
        id = found["character"]
        character = {**found["room"]["cast"][1], "personality": "Wet."}
        await client.call("update_room", room=room, characters=["assistant", character])
        for spec in ("v2", "v3"):
            for format in ("json", "png"):
                query = {"format": format, "spec": spec}
                exported = await http.get(f"/api/rooms/{room}/characters/{id}/card", params=query)
                assert exported.status_code == 200
                assert f"hubbub-Mira.{format}" in exported.headers["content-disposition"]
                again = import_card(exported.content).character
                assert again.personality == "Wet."
                card_again: Any = again.card
                assert card_again["spec"] == f"chara_card_{spec}"
                extensions = card_again["data"]["extensions"]
                assert extensions["other/tool"] == {"deep": [1, None, "é"]}


async def test_a_card_gets_an_id_of_its_own_and_a_name_that_fits() -> None:
    async with owner() as (_, http, client):
        room = await new_room(client, "lyra")
        for name in ("lyra!", "Mira Of The Very Long And Winding Northern Coast Road"):
            response = await http.post(f"/api/rooms/{room}/cards", content=as_json(name=name))
            assert response.status_code == 201, response.text
        cast = response.json()["room"]["cast"]
        assert len({one["id"] for one in cast}) == 3
        assert all(len(one["name"]) <= 40 for one in cast)
        again = await http.post(f"/api/rooms/{room}/cards", content=as_json(name="Lyra"))
        assert (again.status_code, again.json()["code"]) == (400, "same_name")


async def test_a_card_that_lies_is_huge_or_is_none_gets_a_clear_error() -> None:
    png = as_png(as_json())
    bad = {
        b"": "This file is empty.",
        b"hello": "This is no character card: a card is a PNG picture or a JSON file.",
        b"{}": "This is JSON, but no character card.",
        b'{"data": {"name": ""}}': "The card has no name in it.",
        b'{"data": {"name": "\\ud800x"}}': "The card is not valid JSON.",
        b"[" * 100_000: "This is no character card: a card is a PNG picture or a JSON file.",
        png[:-40]: "This PNG picture is cut short, or a length in it isn't true.",
        write_chunks(plain_picture((1, 2, 3))): "There is no character card in this picture.",
        as_json(first_mes=7): "The card's “first_mes” should be text, not a number.",
        as_json(description="x" * 9000): "A character's text has at most 8,000 characters.",
        as_json(mes_example="x" * 60_000): (
            "The card's “mes_example” is longer than 50000 characters."
        ),
    }
    async with owner() as (_, http, client):
        room = await new_room(client)
        for path in ("/api/cards", f"/api/rooms/{room}/cards"):
            for data, sentence in bad.items():
                response = await http.post(path, content=data)
                assert (response.status_code, response.json()["error"]) == (400, sentence)
        page = await client.call("join_room", room=room)
        assert page["room"]["cast"] == []


async def test_the_size_of_cards_is_limited_while_they_are_read() -> None:
    async with owner(card_bytes=100_000, body_bytes=2000) as (_, http, client):
        room = await new_room(client)
        notes = "n" * 40_000
        for path in ("/api/cards", f"/api/rooms/{room}/cards"):
            assert (await http.post(path, content=as_json(tags=[notes]))).is_success
            response = await http.post(path, content=b"{" + b" " * 100_000)
            assert (response.status_code, response.json()["code"]) == (413, "too_large")
        # Other bodies have their own limit.
        response = await http.post("/api/rooms", json={"scenario": notes})
        assert response.status_code == 413


async def test_the_cards_of_a_room_are_limited_together() -> None:
    async with owner() as (_, http, client):
        room = await new_room(client)
        large = {"tags": ["t" * (CARDS_BYTES * 2 // 5)]}
        for name in ("One", "Two"):
            response = await http.post(
                f"/api/rooms/{room}/cards", content=as_json(name=name, **large)
            )
            assert response.status_code == 201, response.text
        response = await http.post(
            f"/api/rooms/{room}/cards", content=as_json(name="Three", **large)
        )
        assert (response.status_code, response.json()["code"]) == (400, "too_long")
        assert "2 MiB together" in response.json()["error"]


async def test_only_who_may_change_a_room_brings_characters_in() -> None:
    async with owner() as (_, http, client):
        room = await new_room(client, "lyra")
        async with httpx.AsyncClient(base_url=http.base_url) as other:
            response = await other.post("/api/cards", content=as_json())
            assert response.status_code == 401
            me = (await other.get("/api/session")).json()
            other.headers["x-csrf-token"] = me["csrf"]
            response = await other.post(f"/api/rooms/{room}/cards", content=as_json())
            assert (response.status_code, response.json()["code"]) == (403, "forbidden")
            # Whoever may take the room along may take its characters.
            card = await other.get(f"/api/rooms/{room}/characters/lyra/card")
            assert import_card(card.content).character.name == "Lyra"
        http.headers.pop("x-csrf-token")
        response = await http.post("/api/cards", content=as_json())
        assert (response.status_code, response.json()["code"]) == (403, "csrf")


async def test_what_can_not_be_exported() -> None:
    async with owner() as (_, http, client):
        room = await new_room(client, "lyra")
        address = f"/api/rooms/{room}/characters"
        for path, status in (
            (f"{address}/nobody/card", 404),
            (f"{address}/lyra/card?format=gif", 400),
            (f"{address}/lyra/card?spec=v1", 400),
            ("/api/rooms/nowhere/characters/lyra/card", 404),
        ):
            assert (await http.get(path)).status_code == status, path
