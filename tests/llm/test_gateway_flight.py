"""The same question at once is one call; a known answer is none."""

from typing import Any

import pytest
import trio
from attrs import evolve
from trio.testing import wait_all_tasks_blocked

from llm.cache import OVERHEAD, CacheSettings, CacheUse, Known, MemoryCache
from llm.flight import key_of
from llm.gate import Limits
from llm.gateway import GatewaySettings, open_gateway
from llm.provider import Answering, ChatMessage, Queued, Usage
from tests.llm.scripted import ANSWER, DONE, FOREVER, Heard, Scripted, ask, error, hear, model

SLOW = ("One ", 1.0, "two ", 1.0, "three.", DONE)


async def test_a_hundred_who_ask_the_same_are_one_call(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    heards: list[Heard] = []
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:

        async def listen(number: int) -> None:
            heards.append(await hear(gateway, ask(asker=str(number))))

        for number in range(100):
            nursery.start_soon(listen, number)
    assert len(provider.asked) == 1
    assert [heard.text for heard in heards] == ["One two three."] * 100
    assert all(len(heard.items) == 5 for heard in heards)  # they see it stream


async def test_who_comes_late_gets_what_has_come_and_then_the_stream(
    autojump_clock: object,
) -> None:
    provider = Scripted(SLOW)
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(hear, gateway, ask())
        await trio.sleep(1.5)
        heard = await hear(gateway, ask())
    assert [item for item in heard.items if isinstance(item, str)] == ["One two ", "three."]
    assert heard.usage is not None
    assert heard.usage.seconds_to_first == 0
    assert heard.usage.seconds == pytest.approx(0.5)
    assert len(provider.asked) == 1


async def test_who_leaves_detaches_and_the_last_one_stops_the_call(
    autojump_clock: object,
) -> None:
    provider = Scripted(("One ", FOREVER))
    scopes = [trio.CancelScope() for _ in range(3)]
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:

        async def listen(scope: trio.CancelScope) -> None:
            with scope:
                await hear(gateway, ask())

        for scope in scopes:
            nursery.start_soon(listen, scope)
        await wait_all_tasks_blocked()
        for scope in scopes[:2]:
            scope.cancel()
            await wait_all_tasks_blocked()
            assert provider.open == 1
        scopes[2].cancel()
        await wait_all_tasks_blocked()
        assert (provider.open, gateway.calls) == (0, 0)


async def test_who_comes_when_the_last_one_has_just_left_gets_a_new_call(
    autojump_clock: object,
) -> None:
    provider = Scripted((FOREVER,), ANSWER)
    async with open_gateway([model(provider)]) as gateway:
        async with gateway.stream(ask()):
            await wait_all_tasks_blocked()
        assert (await hear(gateway, ask())).text == "Hello."
    assert len(provider.asked) == 2


async def test_an_error_is_everybodys(autojump_clock: object) -> None:
    provider = Scripted(("One ", 1.0, error("cut")))
    errors = []
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:

        async def listen() -> None:
            heard = await hear(gateway, ask())
            assert (heard.text, heard.fault) == ("One ", "cut")
            errors.append(heard.error)

        for _ in range(5):
            nursery.start_soon(listen)
    assert len(set(map(id, errors))) == 5


async def test_positions_are_told_to_all_who_wait(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    one = model(provider, limits=Limits(calls=1))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(hear, gateway, ask("other"))
        await wait_all_tasks_blocked()
        nursery.start_soon(hear, gateway, ask("same"))
        await wait_all_tasks_blocked()
        heard = await hear(gateway, ask("same"))
        assert heard.items[0] == Queued(1)
    assert len(provider.asked) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "x"},
        {"max_tokens": 7},
        {"temperature": 0.1},
        {"stop": ("\n",)},
        {"messages": (ChatMessage("user", "Hi", name="Ann"),)},
        {"messages": (ChatMessage("assistant", "Hi"),)},
    ],
)
def test_what_differs_is_not_the_same(change: dict[str, Any]) -> None:
    assert key_of(evolve(ask(), **change), "m") != key_of(ask(), "m")


def test_who_asks_makes_no_difference() -> None:
    assert key_of(ask(asker="a", place="b", model="m"), "m") == key_of(ask(), "m")


async def test_whispers_are_shared_with_nobody(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    settings = GatewaySettings(cache=CacheSettings("always"))
    async with open_gateway([model(provider)], settings) as gateway:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hear, gateway, ask(private=True, temperature=0.0))
        await hear(gateway, ask(private=True, temperature=0.0))
        assert len(provider.asked) == 4
        await hear(gateway, ask(temperature=0.0))
        assert len(provider.asked) == 5
        await hear(gateway, ask(private=True, temperature=0.0))
        assert len(provider.asked) == 6


async def test_sharing_can_be_turned_off(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    settings = GatewaySettings(share=False)
    async with open_gateway([model(provider)], settings) as gateway, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hear, gateway, ask())
    assert len(provider.asked) == 3


@pytest.mark.parametrize(
    ("use", "temperature", "calls"),
    [("off", 0.0, 2), ("exact", 0.8, 2), ("exact", 0.0, 1), ("always", 0.8, 1)],
)
async def test_what_is_kept(
    use: CacheUse, temperature: float, calls: int, autojump_clock: object
) -> None:
    provider = Scripted()
    settings = GatewaySettings(cache=CacheSettings(use))
    async with open_gateway([model(provider)], settings) as gateway:
        first = await hear(gateway, ask(temperature=temperature))
        second = await hear(gateway, ask(temperature=temperature))
    assert len(provider.asked) == calls
    assert second.text == first.text == "Hello."
    assert second.answering == first.answering
    assert first.usage is not None
    assert second.usage is not None
    assert (first.usage.cached, second.usage.cached) == (False, calls == 1)


@pytest.mark.parametrize(
    "script",
    [
        ("Hel", error("cut")),
        ("Hel", Usage("m", finish="length")),
        ("Hel", Usage("m", finish="filter")),
    ],
)
async def test_only_whole_replies_are_kept(script: object, autojump_clock: object) -> None:
    provider = Scripted(script, ANSWER)  # type: ignore[arg-type]
    settings = GatewaySettings(cache=CacheSettings("always"))
    async with open_gateway([model(provider)], settings) as gateway:
        await hear(gateway, ask())
        assert (await hear(gateway, ask())).text == "Hello."
    assert len(provider.asked) == 2


async def test_replies_of_stand_ins_and_demos_are_not_kept(autojump_clock: object) -> None:
    settings = GatewaySettings(cache=CacheSettings("always"))
    down, other = Scripted((error("key"),), name="a"), Scripted(name="b")
    async with open_gateway([model(down), model(other)], settings) as gateway:
        for _ in range(2):
            await hear(gateway, ask())
    assert len(other.asked) == 2
    demo = Scripted(demo=True)
    async with open_gateway([model(demo)], settings) as gateway:
        for _ in range(2):
            await hear(gateway, ask())
    assert len(demo.asked) == 2


async def test_who_wants_another_reply_gets_another(autojump_clock: object) -> None:
    provider = Scripted(("one", DONE), ("two", DONE))
    settings = GatewaySettings(cache=CacheSettings("always"))
    async with open_gateway([model(provider)], settings) as gateway:
        assert (await hear(gateway, ask())).text == "one"
        assert (await hear(gateway, ask(fresh=True))).text == "two"
        assert (await hear(gateway, ask())).text == "two"  # what is known now
    assert len(provider.asked) == 2


def known(text: str) -> Known:
    return Known(text, Answering("m", "p", demo=False), DONE)


async def test_the_cache_is_bounded_in_bytes_and_age() -> None:
    now = [0.0]
    settings = CacheSettings(most_bytes=2 * (OVERHEAD + 10), most_age=100)
    cache = MemoryCache(settings, clock=lambda: now[0])
    for key in (b"a", b"b"):
        await cache.put(key, known("x" * 10))
    assert await cache.get(b"a")
    now[0] = 2
    await cache.put(b"c", known("x" * 10))
    assert not await cache.get(b"b")  # asked for longest ago
    now[0] = 99.9
    assert await cache.get(b"a")
    now[0] = 100
    assert not await cache.get(b"a")
    now[0] = 2
    await cache.put(b"c", known("é" * 5))
    assert cache.size == OVERHEAD + 10
    await cache.put(b"big", known("x" * 5000))
    assert cache.size <= 2 * (OVERHEAD + 10)
