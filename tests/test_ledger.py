"""What was spent and what is known survive a restart, and a store that is down for a while."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from hub import ledger as ledger_module
from hub.answers import StoredAnswers, open_answers
from hub.ledger import AGAIN, StoreLedger, open_ledger
from hub.records import Tally
from hub.store.contract import Change, SaveAnswer, StoreError, Then
from hub.store.memory import MemoryStore
from hub.store.opening import open_store
from llm.budget import Amount, Budget, Budgets, Spending, Took
from llm.cache import CacheSettings, Known
from llm.call import Price
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.provider import Answering, Usage
from tests.llm.scripted import DONE, FOREVER, Scripted, ask, hear, model

TODAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def spending(user: str = "ann", *, tokens: int = 10, model: str = "m") -> Spending:
    return Spending(TODAY, user, "inn", model, Took(tokens, 5, 0.25))


class Shaky(MemoryStore):
    """A store whose disk is full while `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.tried = 0

    def submit(self, *changes: Change, then: Then | None = None) -> None:
        self.tried += len(changes)
        if self.down and then is not None:
            trio.lowlevel.spawn_system_task(self._fail, then)
        elif not self.down:
            super().submit(*changes, then=then)

    async def _fail(self, then: Then) -> None:
        then(StoreError("The disk is full."))

    async def answer(self, key: str) -> tuple[str, float] | None:
        if self.down:
            raise StoreError("The disk is full.")
        return await super().answer(key)


@asynccontextmanager
async def gateway_over(path: Path, provider: Scripted) -> AsyncIterator[Gateway]:
    """One run of a hub whose users may spend 20 tokens a day."""
    settings = GatewaySettings(budgets=Budgets(user=Budget(tokens=20)))
    models = [model(provider, price=Price(1_000_000, 2_000_000))]
    async with (
        open_store(path) as store,
        open_ledger(store) as ledger,
        open_gateway(models, settings, ledger=ledger) as gateway,
    ):
        yield gateway


async def test_a_budget_holds_over_a_restart(tmp_path: Path) -> None:
    for run in range(3):
        async with gateway_over(tmp_path / "hubbub.db", Scripted()) as gateway:
            heard = await hear(gateway, ask(str(run), asker="ann", place="inn"))
            assert (heard.fault == "busy") == (run == 2), heard
            assert (await hear(gateway, ask(str(run), asker=f"other {run}"))).error is None


async def test_a_reply_cut_off_by_the_end_of_the_hub_is_charged(tmp_path: Path) -> None:
    path = tmp_path / "hubbub.db"
    provider = Scripted(("x" * 40, FOREVER))
    async with trio.open_nursery() as nursery:
        async with gateway_over(path, provider) as gateway:
            nursery.start_soon(hear, gateway, ask(asker="ann"))
            while not gateway.calls or not provider.open:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
    async with open_store(path) as store:
        [tally] = await store.usage("")
    assert (tally.user, tally.calls, tally.output_tokens) == ("ann", 1, 10)


async def test_replies_are_summed_by_day_user_room_and_model() -> None:
    store = MemoryStore()
    async with open_ledger(store) as ledger:
        for user in ("ann", "ann", "bob"):
            ledger.add(spending(user))
        await store.commit()
    assert list(await store.usage("2026-03-01")) == [
        Tally("2026-03-01", "ann", "inn", "m", 2, 20, 10, 0.5),
        Tally("2026-03-01", "bob", "inn", "m", 1, 10, 5, 0.25),
    ]


async def test_a_store_that_was_down_gets_it_later(autojump_clock: object) -> None:
    store = Shaky()
    async with open_ledger(store) as ledger:
        store.down = True
        for _ in range(3):
            ledger.add(spending())
            await wait_all_tasks_blocked()
        assert store.tried == 1  # it is left alone for a while
        assert ledger.spent(TODAY, ("user", "ann")) == Amount(45, 0.75)  # budgets hold meanwhile
        await trio.sleep(AGAIN)
        store.down = False
        ledger.add(spending())
        await wait_all_tasks_blocked()
        assert [one.calls for one in await store.usage("")] == [4]


async def test_what_still_waits_at_the_end_is_handed_over(autojump_clock: object) -> None:
    store = Shaky()
    async with open_ledger(store) as ledger:
        store.down = True
        ledger.add(spending())
        await wait_all_tasks_blocked()
        store.down = False
    await store.commit()  # what was handed over before is stored by then
    assert [one.calls for one in await store.usage("")] == [1]


async def test_a_long_outage_takes_no_more_memory(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(ledger_module, "MOST_WAITING", 3)
    store = Shaky()
    ledger = StoreLedger(store)
    store.down = True
    for number in range(100):
        ledger.add(spending(f"user {number}"))
        await wait_all_tasks_blocked()
    store.down = False
    ledger.save()
    await wait_all_tasks_blocked()
    kept = await store.usage("")
    assert len(kept) == 4
    assert sum(one.calls for one in kept) == 100
    assert sum(one.cost for one in kept) == 25


async def test_a_sum_that_is_refused_holds_back_no_other(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hubbub.db") as store, open_ledger(store) as ledger:
        ledger.add(spending("x" * 300))  # no key is so long
        ledger.add(spending("ann"))
        await store.commit()
        assert [one.user for one in await store.usage("")] == ["ann"]


# ── replies that are known ───────────────────────────────────────────────────────────────


KNOWN = Known("Hello.", Answering("m", "p", demo=False), Usage("m", 10, 5))
ALWAYS = CacheSettings("always", most_bytes=10_000, most_age=100)


async def test_a_known_reply_is_known_after_a_restart(tmp_path: Path) -> None:
    provider = Scripted(("Hello.", DONE))
    for run in range(2):
        async with open_store(tmp_path / "hubbub.db") as store:
            cache = open_answers(store, ALWAYS)
            settings = GatewaySettings(cache=ALWAYS)
            async with open_gateway([model(provider)], settings, cache=cache) as gateway:
                heard = await hear(gateway, ask(asker=f"user {run}"))
        assert heard.text == "Hello."
        assert heard.usage is not None
        assert heard.usage.cached == (run == 1)
    assert len(provider.asked) == 1


async def test_whispers_and_other_models_do_not_find_it(tmp_path: Path) -> None:
    async with open_store(tmp_path / "hubbub.db") as store:
        cache = open_answers(store, ALWAYS)
        settings = GatewaySettings(cache=ALWAYS)
        one, other = Scripted(), Scripted(name="newer")
        async with open_gateway([model(one)], settings, cache=cache) as gateway:
            await hear(gateway, ask())
            await hear(gateway, ask(private=True))
        # The owner has put another model behind the name.
        async with open_gateway([model(other, name="m")], settings, cache=cache) as gateway:
            await hear(gateway, ask())
    assert (len(one.asked), len(other.asked)) == (2, 1)


def cache_at(store: MemoryStore, now: list[float], **more: Any) -> StoredAnswers:
    return StoredAnswers(store, CacheSettings("always", **more), clock=lambda: now[0])


async def test_known_replies_have_an_age() -> None:
    now = [1000.0]
    cache = cache_at(MemoryStore(), now, most_age=100)
    await cache.put(b"a", KNOWN)
    await wait_all_tasks_blocked()
    now[0] = 1099.0
    assert await cache.get(b"a") == KNOWN
    now[0] = 1100.0
    assert await cache.get(b"a") is None
    assert await cache.get(b"b") is None


async def test_known_replies_are_bounded_in_bytes() -> None:
    now = [1000.0]
    store = MemoryStore()
    cache = cache_at(store, now, most_bytes=5000)
    keys = [number.to_bytes(2, "big") for number in range(200)]
    for key in keys:
        now[0] += 1
        await cache.put(key, KNOWN)
    await store.commit()
    found = [await store.answer(key.hex()) for key in keys]
    held = [one for one in found if one is not None]
    assert 2000 < sum(len(data) for data, _ in held) <= 5000 * 17 / 16 + 500
    assert held == found[-len(held) :]  # the oldest went
    await cache.put(b"big", Known("x" * 5000, KNOWN.answering, KNOWN.usage))
    await store.commit()
    assert await cache.get(b"big") is None


async def test_an_owner_who_turns_it_off_has_all_of_it_forgotten() -> None:
    store = MemoryStore()
    await open_answers(store, ALWAYS).put(b"a", KNOWN)
    await store.commit()
    assert await store.answer(b"a".hex())
    open_answers(store, CacheSettings("off"))
    await store.commit()
    assert await store.answer(b"a".hex()) is None


async def test_a_store_that_is_down_knows_nothing() -> None:
    store = Shaky()
    cache = open_answers(store, ALWAYS)
    await cache.put(b"a", KNOWN)
    await store.commit()
    store.down = True
    assert await cache.get(b"a") is None
    await cache.put(b"b", KNOWN)
    store.down = False
    assert await cache.get(b"a") == KNOWN


async def test_an_older_form_is_not_known() -> None:
    store = MemoryStore()
    cache = open_answers(store, ALWAYS)
    now = datetime.now(UTC).timestamp()
    await store.commit(SaveAnswer(b"a".hex(), '{"answer": "Hello."}', now))
    assert await cache.get(b"a") is None
