"""What replies cost, and what happens when that is enough."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llm.budget import Account, Amount, Budget, Budgets, MemoryLedger, Spending, Took
from llm.cache import CacheSettings
from llm.call import Price
from llm.gateway import GatewaySettings, open_gateway
from llm.provider import Usage
from tests.llm.scripted import DONE, FOREVER, Scripted, ask, error, hear, model

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HUB: Account = ("hub", "")
ANN: Account = ("user", "ann")
INN: Account = ("room", "inn")


class Kept(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[Spending] = []

    def add(self, spending: Spending) -> None:
        self.all.append(spending)
        super().add(spending)


async def test_replies_are_charged_to_all_accounts(autojump_clock: object) -> None:
    ledger = Kept()
    one = model(Scripted(), price=Price(1_000_000, 2_000_000))
    async with open_gateway([one], ledger=ledger, clock=lambda: NOON) as gateway:
        heard = await hear(gateway, ask(asker="ann", place="inn"))
        await hear(gateway, ask())
    assert heard.usage is not None
    assert heard.usage.cost == 20
    [first, second] = ledger.all
    assert first == Spending(NOON.date(), "ann", "inn", "m", Took(10, 5, 20.0))
    assert first.accounts == (HUB, ANN, INN)
    assert second.accounts == (HUB,)
    assert ledger.spent(NOON.date(), HUB) == Amount(30, 40.0)
    assert ledger.spent(NOON.date(), ANN) == Amount(15, 20.0)


async def test_what_the_model_does_not_tell_is_estimated(autojump_clock: object) -> None:
    ledger = Kept()
    async with open_gateway([model(Scripted(("x" * 40, Usage("m"))))], ledger=ledger) as gateway:
        await hear(gateway, ask("y" * 40))
    [spending] = ledger.all
    assert spending.took == Took(14, 10, estimated=True)


@pytest.mark.parametrize("script", [("x" * 40, FOREVER), ("x" * 40, error("cut"))])
async def test_half_a_reply_has_cost_too(script: object, autojump_clock: object) -> None:
    ledger = Kept()
    async with open_gateway([model(Scripted(script))], ledger=ledger) as gateway:  # type: ignore[arg-type]
        with trio.move_on_after(1):
            await hear(gateway, ask())
        await wait_all_tasks_blocked()
        assert [s.took.amount.tokens for s in ledger.all] == [4 + 10]


async def test_failures_are_no_replies(autojump_clock: object) -> None:
    ledger = Kept()
    async with open_gateway([model(Scripted((error("refused"),)))], ledger=ledger) as gateway:
        await hear(gateway, ask())
    assert ledger.all == []


async def test_demos_and_known_replies_cost_nothing_but_are_counted(
    autojump_clock: object,
) -> None:
    ledger = Kept()
    models = [model(Scripted(), price=Price(1, 1)), model(Scripted(name="d", demo=True))]
    settings = GatewaySettings(cache=CacheSettings("always"))
    async with open_gateway(models, settings, ledger=ledger) as gateway:
        await hear(gateway, ask(asker="ann"))
        await hear(gateway, ask(asker="bob"))  # known
        await hear(gateway, ask(model="d"))
    assert [(one.asker, one.model) for one in ledger.all] == [
        ("ann", "m"),
        ("bob", "m"),
        ("", "d"),
    ]
    assert [one.took.amount.tokens for one in ledger.all] == [15, 0, 0]


@pytest.mark.parametrize(
    ("budgets", "says"),
    [
        (Budgets(user=Budget(tokens=15)), "You have used up"),
        (Budgets(room=Budget(money=20)), "This room has used up"),
        (Budgets(hub=Budget(tokens=1)), "This hub has used up"),
    ],
)
async def test_over_budget_is_a_sentence_with_the_time_it_ends(
    budgets: Budgets, says: str, autojump_clock: object
) -> None:
    now = [NOON.astimezone(timezone(timedelta(hours=9)))]
    one = model(Scripted(), price=Price(1_000_000, 2_000_000))
    settings = GatewaySettings(budgets=budgets)
    async with open_gateway([one], settings, clock=lambda: now[0]) as gateway:
        request = ask(asker="ann", place="inn")
        assert (await hear(gateway, request)).error is None
        heard = await hear(gateway, request)
        assert heard.fault == "busy"
        assert str(heard.error).startswith(says)
        assert str(heard.error).endswith(". It goes on at 2026-03-02 00:00 UTC.")
        assert heard.error is not None
        assert heard.error.retry_after == 12 * 3600
        now[0] += timedelta(hours=12)
        assert (await hear(gateway, request)).error is None


async def test_budgets_are_each_ones_own(autojump_clock: object) -> None:
    settings = GatewaySettings(budgets=Budgets(user=Budget(tokens=1)))
    async with open_gateway([model(Scripted())], settings) as gateway:
        for asker in "abc":
            assert (await hear(gateway, ask(asker=asker))).error is None
            assert (await hear(gateway, ask(asker=asker))).fault == "busy"


async def test_many_at_once_do_not_find_the_same_last_token(autojump_clock: object) -> None:
    provider = Scripted(("x", 5.0, DONE))
    settings = GatewaySettings(budgets=Budgets(user=Budget(tokens=1000)))
    async with open_gateway([model(provider)], settings) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, gateway, ask("0", asker="a"))
            await wait_all_tasks_blocked()
            for number in range(1, 10):
                heard = await hear(gateway, ask(str(number), asker="a"))
                assert "try again when they have ended" in str(heard.error)
        assert len(provider.asked) == 1
        assert (await hear(gateway, ask("more", asker="a"))).error is None


async def test_one_who_asks_what_another_is_asking_is_charged_nothing(
    autojump_clock: object,
) -> None:
    ledger = Kept()
    one = model(Scripted(("x", 5.0, DONE)))
    async with open_gateway([one], ledger=ledger) as gateway, trio.open_nursery() as nursery:
        for asker in "abc":
            nursery.start_soon(hear, gateway, ask(asker=asker))
    assert len(ledger.all) == 1


async def test_what_costs_nothing_is_had_over_budget_too(autojump_clock: object) -> None:
    models = [model(Scripted()), model(Scripted(("x", 5.0, DONE), name="d", demo=True))]
    settings = GatewaySettings(
        budgets=Budgets(user=Budget(tokens=15)), cache=CacheSettings("always")
    )
    async with open_gateway(models, settings) as gateway:
        async with trio.open_nursery() as nursery:
            # While a demo runs nothing is set aside for it.
            nursery.start_soon(hear, gateway, ask("made up", asker="ann", model="d"))
            await wait_all_tasks_blocked()
            assert (await hear(gateway, ask("one", asker="ann"))).error is None
        assert (await hear(gateway, ask("two", asker="ann"))).fault == "busy"
        assert (await hear(gateway, ask("one", asker="ann"))).error is None  # known
        assert (await hear(gateway, ask("two", asker="ann", model="d"))).error is None
