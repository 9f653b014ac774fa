"""Chaos by seed: each call ends in exactly one way, nothing leaks, no attempt too many.

10,000 calls go to a server on real sockets, and some thousands to providers in memory,
which do all that the contract allows, at places of which sockets know nothing.
"""

import gc
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import get_args

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from llm.breaker import BreakerSettings
from llm.call import Model
from llm.gate import Limits, QueueSettings
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.openai import OpenAI
from llm.provider import Fault, Finish, ModelError, Request, Timeouts, Usage
from llm.retry import Patience
from tests.llm.scripted import FOREVER, Scripted, Step, ask, hear
from tests.llm.servers import LAST_CHUNK, Do, Script, chunk, head, refused, serving, streamed
from tests.llm.test_openai import ChatDialect

SEED = int(os.environ.get("CHAOS_SEED", "20"))
CALLS = 2_500
SOCKET_CALLS = 10_000
AT_ONCE = 150
FAULTS: tuple[Fault, ...] = get_args(Fault)
FINISHES: tuple[Finish, ...] = get_args(Finish)
# All models of the storm fail often: were rests not waited for, most calls would meet one.
PATIENCE = Patience(attempts=5, attempts_each=3, longest_wait=40.0)
SETTINGS = GatewaySettings(
    patience=PATIENCE,
    whole=300.0,
    reply_chars=5000,
    breaker=BreakerSettings(failures=20, share=0.8, rest=5.0),
    queue=QueueSettings(most=200, each=100),
)


@define
class Tally:
    """How calls ended. A call is known by its prompt, which no other has."""

    ends: Counter[str] = field(factory=Counter)
    calls: int = 0

    async def call(self, gateway: Gateway, request: Request, stays: float) -> None:
        """Ask, and stop after so many seconds; count the one end that this has."""
        before = self.ends.total()
        with trio.move_on_after(stays) as scope:
            heard = await hear(gateway, request)
            self.ends["failed" if heard.error else "done"] += 1
            assert heard.error is None or str(heard.error).endswith(".")
        if scope.cancelled_caught:
            self.ends["stopped"] += 1
        self.calls += 1
        assert self.ends.total() > before


def sentence(fault: Fault, chance: random.Random) -> ModelError:
    retry_after = chance.choice([None, None, 0.5, 3.0])
    if chance.random() < 0.005:  # more would keep all models resting all the time
        retry_after = 30.0
    return ModelError(fault, f"It is {fault}.", retry_after=retry_after)


def steps(chance: random.Random) -> tuple[Step, ...]:
    """A reply as it may go: delays, stalls, errors at any place, too much, no end."""
    texts: list[Step] = []
    for _ in range(chance.randint(0, 6)):
        texts += [chance.choice([0.0, 0.01, 1.0, 20.0]), "word " * chance.randint(1, 9)]
    match chance.randrange(10):
        case 0 | 1 | 2:
            return (sentence(chance.choice(FAULTS), chance),)
        case 3:
            return (*texts, sentence(chance.choice(FAULTS), chance))
        case 4:
            return (*texts, FOREVER)
        case 5:
            return (*texts, "x" * 6000)
        case 6:
            return tuple(texts)
        case _:
            return (*texts, Usage("m", 5, 5, chance.choice(FINISHES)))


async def storm(gateway: Gateway, calls: int, chance: random.Random) -> Tally:
    """So many calls, at most `AT_ONCE` at the same time, each by one of twenty askers."""
    tally = Tally()
    room = trio.Semaphore(AT_ONCE)

    async def one(request: Request, stays: float) -> None:
        await tally.call(gateway, request, stays)
        room.release()

    async with trio.open_nursery() as nursery:
        for number in range(calls):
            await room.acquire()
            stays = chance.choice([FOREVER, FOREVER, FOREVER, 0.0, 0.5, 30.0])
            request = ask(
                str(number),
                asker=f"a{chance.randrange(20)}",
                model=chance.choice([None, "b"]),
                private=chance.random() < 0.1,
            )
            nursery.start_soon(one, request, stays)
    return tally


def check(gateway: Gateway, tally: Tally, calls: int) -> None:
    assert (tally.calls, tally.ends.total()) == (calls, calls)
    assert min(tally.ends[end] for end in ("done", "stopped", "failed")) > calls // 50, tally.ends
    assert gateway.calls == 0
    assert not gateway._flights
    assert not gateway._purse._aside
    assert [(status.calls, status.waiting) for status in gateway.status()] == [(0, 0)] * len(
        gateway.models
    )


@pytest.mark.parametrize("shared_gate", [True, False])
async def test_calls_in_memory(shared_gate: bool, autojump_clock: object) -> None:
    chance = random.Random(SEED + shared_gate)
    providers = [Scripted(name=name) for name in "abc"]
    for provider in providers:
        provider.choose = lambda _: steps(chance)
    limits = Limits(calls=40) if shared_gate else Limits()
    models = [Model(p.model, p, limits) for p in providers]
    async with open_gateway(models, SETTINGS, chance=chance) as gateway:
        tally = await storm(gateway, CALLS, chance)
        await wait_all_tasks_blocked()
        check(gateway, tally, CALLS)
    asked = Counter(request.prompt for provider in providers for request in provider.asked)
    assert max(asked.values()) == PATIENCE.attempts
    for provider in providers:
        here = Counter(request.prompt for request in provider.asked)
        assert max(here.values()) <= PATIENCE.attempts_each
        assert provider.open == 0


STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 529)
DIALECT = ChatDialect()


def script(chance: random.Random) -> Script:
    """What a server may do, for good or ill."""
    texts = [DIALECT.text("word " * chance.randint(1, 5)) for _ in range(chance.randint(0, 4))]
    whole = b"".join(DIALECT.reply())
    cut = chance.randrange(len(whole))
    after = chance.choice(["0", "2", "never"] if chance.random() < 0.95 else ["30"])
    faults: list[Callable[[], Script]] = [
        lambda: refused(chance.choice(STATUSES), DIALECT.error("no")),
        lambda: refused(429, DIALECT.error("no"), retry_after=after),
        lambda: (Do.RESET,),
        lambda: (Do.STALL,),
        lambda: (head(), *map(chunk, texts), Do.RESET),
        lambda: (head(), *map(chunk, texts), Do.STALL),
        lambda: (head(), *map(chunk, texts)),
        lambda: streamed(*texts),
        lambda: streamed(*texts, chance.randbytes(200)),
        lambda: streamed(whole[:cut]),
        lambda: (chance.randbytes(100), Do.RESET),
        lambda: (head(), chunk(whole[:cut]), b"zz\r\n", Do.STALL),
        lambda: (head(), *[chunk(DIALECT.text("x" * 2000))] * 5, Do.STALL),
        lambda: (head(), chunk(b"data: " + b"[" * 300_000), LAST_CHUNK),
        lambda: streamed(*texts, DIALECT.error_event()),
        lambda: streamed(DIALECT.silent(), *DIALECT.reply()),
    ]
    return chance.choice(faults)() if chance.random() < 0.6 else streamed(*DIALECT.reply())


@asynccontextmanager
async def no_warnings(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    with caplog.at_level(logging.WARNING):
        yield
    gc.collect()  # what was left open warns now, and warnings are errors
    assert [r.getMessage() for r in caplog.records] == []


@pytest.mark.timeout(300)  # it takes some 40 s of work, on a machine that has nothing else to do
async def test_ten_thousand_calls_over_real_sockets(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    chance = random.Random(SEED)
    async with no_warnings(caplog), serving() as server:
        server.choose = lambda _: script(chance)
        timeouts = Timeouts(connect=5, first=20, between=10)
        models = [
            Model(
                name, OpenAI(base_url=server.url, model=name, timeouts=timeouts), Limits(calls=50)
            )
            for name in "ab"
        ]
        async with open_gateway(models, SETTINGS, chance=chance) as gateway:
            tally = await storm(gateway, SOCKET_CALLS, chance)
            await server.all_closed()
            check(gateway, tally, SOCKET_CALLS)
        asked = Counter(str(asked.json["messages"]) for asked in server.asked)
        assert max(asked.values()) == PATIENCE.attempts
