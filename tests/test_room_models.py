"""Which model answers in a room, and who may pick it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from hub.records import Room
from hub.store.contract import SaveRoom
from hub.store.memory import MemoryStore
from llm.cache import CacheSettings
from llm.call import Model
from llm.gateway import GatewaySettings, open_gateway
from llm.provider import names_of
from tests.hubs import Native, Refusal, Running, running_hub
from tests.scripted import Scripted


@asynccontextmanager
async def two_models(**more: Any) -> AsyncIterator[tuple[Running, Scripted, Scripted]]:
    """A hub whose owner lists `quick` and `wise`."""
    quick, wise = Scripted(model="q-1"), Scripted(model="w-1")
    models = [Model("quick", quick), Model("wise", wise)]
    async with open_gateway(models) as gateway, running_hub(gateway, **more) as running:
        yield running, quick, wise


async def answered_by(client: Native, room: str, text: str) -> str:
    """Which model answers a prompt."""
    await client.prompt(room, text)
    ended = await client.event("message_end")
    assert ended["status"] == "done", ended
    return str(ended["usage"]["model"])


async def test_the_welcome_lists_the_models(autojump_clock: object) -> None:
    async with two_models() as (running, _, _), running.connect() as ann:
        assert ann.welcome["llm"]["models"] == ["quick", "wise"]
        assert ann.welcome["llm"]["model"] == "quick"


async def test_a_room_has_the_model_that_was_picked(autojump_clock: object) -> None:
    async with two_models() as (running, quick, wise), running.connect() as ann:
        made = await ann.call("create_room", model="wise")
        room = made["room"]["id"]
        assert made["room"]["model"] == "wise"
        assert await answered_by(ann, room, "Hi") == "wise"
        await ann.call("update_room", room=room, model=None)
        assert (await ann.event("room_updated"))["settings"] == {"model": None}
        assert await answered_by(ann, room, "Hi again") == "quick"
        assert await ann.call("update_room", room=room, title="Named")
        assert await ann.event("room_updated", settings={"title": "Named"})
        assert (len(quick.requests), len(wise.requests)) == (1, 1)


async def test_a_character_may_have_another(autojump_clock: object) -> None:
    async with two_models() as (running, _, _), running.connect() as ann:
        cast = [{"name": "Owl", "model": "wise"}]
        room = (await ann.call("create_room", model="quick", characters=cast))["room"]["id"]
        assert await answered_by(ann, room, "Hi") == "wise"


async def test_a_model_that_nobody_lists_is_refused(autojump_clock: object) -> None:
    async with two_models() as (running, quick, _), running.connect() as ann:
        room = (await ann.call("create_room"))["room"]["id"]
        for method, payload in (
            ("create_room", {"model": "gone"}),
            ("update_room", {"room": room, "model": "gone"}),
            ("llm_chat_prompt", {"prompt": "Hi", "model": "gone"}),
        ):
            with pytest.raises(Refusal) as refusal:
                await ann.call(method, **payload)
            assert refusal.value.code == "no_model"
            assert "You can pick from: quick, wise." in refusal.value.message
        assert not quick.requests


async def test_a_prompt_without_a_room_may_name_one(autojump_clock: object) -> None:
    async with two_models() as (running, quick, wise), running.connect() as ann:
        await ann.call("llm_chat_prompt", prompt="Hi", model="wise")
        await ann.call("llm_chat_prompt", prompt="Hi")
        assert (len(quick.requests), len(wise.requests)) == (1, 1)


async def test_a_model_taken_off_the_list_is_not_missed(autojump_clock: object) -> None:
    store = MemoryStore()
    room = Room(id="old", title="Old", visibility="public", model="gone")
    async with two_models(store=store) as (running, _, _), running.connect() as ann:
        cast = running.hub.presets.characters.values()
        record = msgspec.structs.replace(room, cast=list(cast)[:1])
        await store.commit(SaveRoom(record))
        await ann.call("join_room", room="old")
        assert await answered_by(ann, "old", "Hi") == "quick"


async def test_only_replies_of_a_demo_are_marked(autojump_clock: object) -> None:
    made_up, real = Scripted(demo=True, model="d"), Scripted(model="r")
    models = [Model("pretend", made_up), Model("real", real)]
    async with open_gateway(models) as gateway, running_hub(gateway) as running:
        async with running.connect() as ann:
            room = (await ann.call("create_room", model="real"))["room"]["id"]
            await ann.prompt(room, "Hi")
            assert not (await ann.event("message_start"))["message"]["demo"]
            await ann.event("message_end")
            await ann.call("update_room", room=room, model=None)
            await ann.prompt(room, "Hi")
            assert (await ann.event("message_start"))["message"]["demo"]
            end = await ann.call("llm_chat_prompt", prompt="Hi", model="real")
            assert "demo" not in end


async def test_what_only_stands_in_is_not_offered() -> None:
    models = [Model("real", Scripted()), Model("demo", Scripted(demo=True), offered=False)]
    async with open_gateway(models) as gateway:
        assert names_of(gateway) == ("real",)
    assert names_of(Scripted(model="alone")) == ("alone",)


async def test_another_reply_is_not_the_one_that_is_known(autojump_clock: object) -> None:
    quick = Scripted(model="q-1")
    settings = GatewaySettings(cache=CacheSettings("always"))
    async with open_gateway([Model("quick", quick)], settings) as gateway:
        async with running_hub(gateway) as running, running.connect() as ann:
            cached = []
            for _ in range(2):
                room = (await ann.call("create_room"))["room"]["id"]
                await ann.prompt(room, "Hi")
                ended = await ann.event("message_end")
                cached.append(ended["usage"].get("cached", False))
            await ann.call("regenerate", room=room, message=ended["id"])
            ended = await ann.event("message_end")
            cached.append(ended["usage"].get("cached", False))
        assert cached == [False, True, False]
        assert len(quick.requests) == 2
