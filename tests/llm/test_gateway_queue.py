"""The gate of a model: limits, fair shares, positions, leaving the queue."""

import random
from collections import Counter

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from llm.fair import FairQueue, Window
from llm.gate import Gate, Limits, QueueSettings
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.provider import ModelError, Usage
from llm.retry import Unavailable
from tests.llm.scripted import DONE, FOREVER, Heard, Scripted, ask, error, hear, model

SLOW = ("x", 10.0, DONE)


def gate(limits: Limits, queue: QueueSettings | None = None) -> Gate:
    return Gate(limits, queue or QueueSettings(), longest_wait=20)


async def test_no_more_than_so_many_at_once(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    one = model(provider, limits=Limits(calls=3))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(hear, gateway, ask(str(number)))
    assert (provider.most_open, len(provider.asked)) == (3, 10)


async def test_positions_are_told_whenever_they_change(autojump_clock: object) -> None:
    one = model(Scripted(SLOW), limits=Limits(calls=1))
    heards: list[Heard] = []
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:

        async def listen(number: int) -> None:
            heards.append(await hear(gateway, ask(str(number), asker=str(number))))

        for number in range(4):
            nursery.start_soon(listen, number)
            await wait_all_tasks_blocked()
    assert [heard.positions for heard in heards] == [[], [1], [2, 1], [3, 2, 1]]
    assert [heard.at for heard in heards] == pytest.approx([10, 20, 30, 40])


async def test_who_asks_once_does_not_wait_behind_who_asked_twenty_times(
    autojump_clock: object,
) -> None:
    provider = Scripted(SLOW)
    settings = GatewaySettings(queue=QueueSettings(each=20))
    one = model(provider, limits=Limits(calls=1))
    async with open_gateway([one], settings) as gateway, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(hear, gateway, ask(str(number), asker="eager"))
        await wait_all_tasks_blocked()
        heard = await hear(gateway, ask("once", asker="modest"))
        # One reply was under way, and one of the other's may go first in this round.
        assert heard.at <= 30
        assert sum(request.asker == "eager" for request in provider.asked[:3]) == 2


async def test_who_leaves_the_queue_makes_room(autojump_clock: object) -> None:
    provider = Scripted(SLOW)
    one = model(provider, limits=Limits(calls=1))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(hear, gateway, ask("1", asker="a"))
        await wait_all_tasks_blocked()
        scope = trio.CancelScope()
        nursery.start_soon(cancelled, scope, gateway)
        await wait_all_tasks_blocked()
        heards: list[Heard] = []

        async def listen() -> None:
            heards.append(await hear(gateway, ask("3", asker="c")))

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        assert gateway.status()[0].waiting == 2
        scope.cancel()
        await wait_all_tasks_blocked()
        assert gateway.status()[0].waiting == 1
    assert heards[0].positions == [2, 1]
    assert [request.prompt for request in provider.asked] == ["1", "3"]


async def cancelled(scope: trio.CancelScope, gateway: Gateway) -> None:
    with scope:
        await hear(gateway, ask("2", asker="b"))


async def test_the_queue_is_bounded(autojump_clock: object) -> None:
    settings = GatewaySettings(queue=QueueSettings(most=3, each=2))
    one = model(Scripted(SLOW), limits=Limits(calls=1))
    async with open_gateway([one], settings) as gateway, trio.open_nursery() as nursery:
        for number, asker in enumerate("xaab"):
            nursery.start_soon(hear, gateway, ask(str(number), asker=asker))
            await wait_all_tasks_blocked()
        heard = await hear(gateway, ask("more", asker="c"))
        assert (heard.fault, heard.at) == ("overloaded", 0)
        assert str(heard.error).startswith("Too many questions are waiting")
        nursery.cancel_scope.cancel()


async def test_nobody_fills_the_queue_alone(autojump_clock: object) -> None:
    settings = GatewaySettings(queue=QueueSettings(each=2))
    one = model(Scripted(SLOW), limits=Limits(calls=1))
    async with open_gateway([one], settings) as gateway, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(hear, gateway, ask(str(number), asker="a"))
            await wait_all_tasks_blocked()
        heard = await hear(gateway, ask("more", asker="a"))
        assert str(heard.error).startswith("So many of your questions are waiting")
        nursery.start_soon(hear, gateway, ask("more", asker="b"))
        await wait_all_tasks_blocked()
        assert gateway.status()[0].waiting == 3
        nursery.cancel_scope.cancel()


async def test_where_the_queue_is_full_the_next_model_answers(autojump_clock: object) -> None:
    busy, other = Scripted((FOREVER,), name="a"), Scripted(name="b")
    settings = GatewaySettings(queue=QueueSettings(most=0))
    models = [model(busy, limits=Limits(calls=1)), model(other)]
    async with open_gateway(models, settings) as gateway, trio.open_nursery() as nursery:
        nursery.start_soon(hear, gateway, ask("1"))
        await wait_all_tasks_blocked()
        assert (await hear(gateway, ask("2"))).answered_by == "b"
        nursery.cancel_scope.cancel()


async def test_calls_a_minute(autojump_clock: object) -> None:
    provider = Scripted()
    one = model(provider, limits=Limits(calls_per_minute=5))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(hear, gateway, ask(str(number)))
    first = provider.at[0]
    assert [round(at - first) for at in provider.at] == [0] * 5 + [60] * 5 + [120] * 2


async def test_tokens_a_minute_are_corrected_when_they_are_known(autojump_clock: object) -> None:
    provider = Scripted(("x", Usage("m", input_tokens=50, output_tokens=50)))
    one = model(provider, limits=Limits(tokens_per_minute=1300))
    async with open_gateway([one]) as gateway:
        for number in range(3):  # 1,024 and a bit as estimated, 100 in truth
            assert (await hear(gateway, ask(str(number)))).at == 0
        assert (await hear(gateway, ask("long", max_tokens=1180))).at == pytest.approx(60)


async def test_a_failed_call_gives_its_place_back(autojump_clock: object) -> None:
    provider = Scripted((error("refused"),))
    one = model(provider, limits=Limits(calls=1))
    async with open_gateway([one]) as gateway:
        for number in range(3):
            assert (await hear(gateway, ask(str(number)))).fault == "refused"


async def test_who_is_let_through_and_cancelled_at_once_gives_its_place_back(
    autojump_clock: object,
) -> None:
    door = gate(Limits(calls=1))
    held = trio.Event()

    async def hold() -> None:
        async with door.place("a", 1, lambda _: None):
            await held.wait()

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            async with door.place("b", 1, lambda _: None):
                raise AssertionError("it was cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        scope = trio.CancelScope()
        nursery.start_soon(wait, scope)
        await wait_all_tasks_blocked()
        scope.cancel()
        held.set()
    assert (door.in_use, door.waiting) == (0, 0)


async def test_shares_are_fair_by_simulation(autojump_clock: object) -> None:
    """Askers of all tempers get the same, in tokens, as long as they have something waiting."""
    chance = random.Random(5)
    door = gate(Limits(calls=2), QueueSettings(most=10_000, each=10_000))
    served: Counter[str] = Counter()
    sizes = {"small": 300, "middle": 1500, "large": 9000, "mixed": 0}

    async def one(asker: str, tokens: int) -> None:
        async with door.place(asker, tokens, lambda _: None):
            await trio.sleep(tokens / 1000)
            served[asker] += tokens

    async with trio.open_nursery() as nursery:
        for asker, size in sizes.items():
            for _ in range(180_000 // (size or 2000)):
                nursery.start_soon(one, asker, size or chance.randint(100, 4000))
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    shares = [served[asker] / sum(served.values()) for asker in sizes]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)


async def test_an_enormous_prompt_waits_for_some_rounds_only(autojump_clock: object) -> None:
    queue = FairQueue[str](100)
    for number in range(50):
        queue.add("a", 100, f"a{number}")
    queue.add("b", 1000, "huge")
    assert 9 <= queue.order().index("huge") <= 10


Askers = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 500)), max_size=30)


@given(Askers, st.randoms(use_true_random=False))
def test_the_queue_gives_all_in_the_order_that_it_told(
    items: list[tuple[str, int]], chance: random.Random
) -> None:
    queue = FairQueue[int](100)
    for number, (asker, cost) in enumerate(items):
        queue.add(asker, cost, number)
    gone = chance.sample(range(len(items)), len(items) // 3)
    for number in gone:
        if len(queue):
            queue.head()
        queue.remove(items[number][0], number)
    told = queue.order()
    assert [queue.pop() for _ in range(len(queue))] == told
    assert sorted([*told, *gone]) == list(range(len(items)))
    for asker in "abcd":  # an asker's own questions keep their order
        mine = [number for number in told if items[number][0] == asker]
        assert mine == sorted(mine)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 120)), max_size=40))
def test_a_window_never_holds_more_than_it_may(asked: list[tuple[float, int]]) -> None:
    window, now = Window(100), 0.0
    taken: list[tuple[float, int]] = []
    for pause, amount in asked:
        now = window.free_at(amount, now + pause)
        window.take(min(amount, 100), now)
        taken.append((now, min(amount, 100)))
        assert sum(size for at, size in taken if at + 60 > now) <= 100


async def test_a_rest_is_refused_or_waited_for(autojump_clock: object) -> None:
    door = gate(Limits())
    door.rest(5)
    start = trio.current_time()
    async with door.place("a", 1, lambda _: None):
        assert trio.current_time() == start + 5
    door.rest(21)
    with pytest.raises(Unavailable, match="Try again in 21 s"):
        async with door.place("a", 1, lambda _: None):
            pass
    assert issubclass(Unavailable, ModelError)


async def test_retries_wait_in_the_queue_like_others(autojump_clock: object) -> None:
    provider = Scripted((error("broken"),), SLOW)
    one = evolve(model(provider), limits=Limits(calls=1))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(hear, gateway, ask(str(number), asker=str(number)))
    assert (provider.most_open, len(provider.asked)) == (1, 4)


async def test_who_moves_up_does_the_waiting_for_time(autojump_clock: object) -> None:
    one = model(Scripted(), limits=Limits(calls_per_minute=1))
    async with open_gateway([one]) as gateway, trio.open_nursery() as nursery:
        await hear(gateway, ask("1", asker="a"))
        scope = trio.CancelScope()
        nursery.start_soon(cancelled, scope, gateway)
        await wait_all_tasks_blocked()
        scope.deadline = trio.current_time() + 10
        heard = await hear(gateway, ask("3", asker="c"))
    assert heard.positions == [2, 1]
    assert heard.at == pytest.approx(60, abs=0.1)
