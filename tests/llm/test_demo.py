import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve

from llm.demo import OPENINGS, Demo
from llm.provider import Provider, Request, SetupError
from tests.contracts.providers import ASK, ProviderContract, all_of


class TestDemo(ProviderContract):
    demo = True

    @pytest.fixture(autouse=True)
    def time_flies(self, autojump_clock: object) -> None: ...

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Provider]:
        yield SameDemo()


class SameDemo(Demo):
    """Gives the same reply each time, as the contract's test of stops needs it."""

    def _reply(self, request: Request) -> str:
        return "One two three four five six seven."


async def reply(seed: int, request: Request = ASK) -> str:
    return "".join((await all_of(Demo(chance=random.Random(seed)), request))[0])


async def test_says_that_it_is_a_demo_first(autojump_clock: object) -> None:
    for seed in range(20):
        assert (await reply(seed)).startswith(OPENINGS)


async def test_replies_differ_and_can_be_had_again(autojump_clock: object) -> None:
    assert await reply(1) == await reply(1)
    assert len({await reply(seed) for seed in range(20)}) == 20


async def test_keeps_its_rate(autojump_clock: object) -> None:
    start = trio.current_time()
    texts, usage = await all_of(Demo(rate=10))
    assert trio.current_time() - start == pytest.approx(len(texts) / 10)
    assert usage.output_tokens == len(texts)


async def test_tokens_come_one_by_one(autojump_clock: object) -> None:
    start = trio.current_time()
    async with Demo(rate=2).stream(ASK) as items:
        times = [trio.current_time() - start async for item in items if isinstance(item, str)]
    assert times == pytest.approx([count / 2 for count in range(1, len(times) + 1)])


async def test_ends_at_the_most_tokens(autojump_clock: object) -> None:
    texts, usage = await all_of(Demo(), evolve(ASK, max_tokens=3))
    assert len(texts) == 3
    assert usage.finish == "length"


@pytest.mark.parametrize("prompt", ["", "{echo} {0} %s", "word " * 1000])
async def test_takes_any_question(prompt: str, autojump_clock: object) -> None:
    assert len(await reply(1, Request.of(prompt))) < 1000


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(SetupError, match="above 0"):
        Demo(rate=rate)
