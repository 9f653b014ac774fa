"""What replies took, kept for good: budgets hold over a restart, and the owner sees the sums.

The sums of today are in memory, where budgets look. Each spending goes to the store as well,
and nobody waits for that. What the store would not take is kept and handed over again.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial

import msgspec
import trio

from hub.records import Tally
from hub.store.contract import KEY_LENGTH, AddTally, Outcome, Store, StoreError
from llm.budget import Account, Amount, MemoryLedger, Spending, Took

logger = logging.getLogger(__name__)

AGAIN = 5.0  # s; a store that is down is asked no more often than that

# Sums that wait for the store to come back. Beyond that, whose they were is forgotten, but
# not how much.
MOST_WAITING = 1000


class StoreLedger:
    """A `llm.budget.Ledger` over the store; `open_ledger` makes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._today = MemoryLedger()
        self._waiting: dict[tuple[str, str, str, str], Tally] = {}
        self._not_before = 0.0

    async def load(self, today: date) -> None:
        """Learn what was spent today before we began.

        Raises:
            StoreError: that can't be read.

        """
        for tally in await self._store.usage(today.isoformat()):
            self._today.add(_spending(tally))

    def add(self, spending: Spending) -> None:
        """See `Ledger`."""
        self._today.add(spending)
        self._keep(_tally(spending))
        if trio.current_time() >= self._not_before:
            self.save()

    def spent(self, day: date, account: Account) -> Amount:
        """See `Ledger`."""
        return self._today.spent(day, account)

    def save(self) -> None:
        """Hand over what waits; each by itself, since one that is refused must not hold others."""
        waiting, self._waiting = self._waiting, {}
        for tally in waiting.values():
            self._store.submit(AddTally(tally), then=partial(self._settle, tally))

    def _settle(self, tally: Tally, outcome: Outcome) -> None:
        # Also where it is unknown whether it was stored: a budget should rather end early.
        if isinstance(outcome, StoreError):
            if not self._waiting:
                logger.warning("what replies took is not stored just now: %s", outcome)
            self._keep(tally)
            self._not_before = trio.current_time() + AGAIN

    def _keep(self, tally: Tally) -> None:
        key = (tally.day, tally.user, tally.room, tally.model)
        if key not in self._waiting and len(self._waiting) >= MOST_WAITING:
            tally = msgspec.structs.replace(tally, user="", room="")
            key = (tally.day, "", "", tally.model)
        before = self._waiting.get(key)
        self._waiting[key] = tally if before is None else _sum(before, tally)


@asynccontextmanager
async def open_ledger(store: Store) -> AsyncIterator[StoreLedger]:
    """Have the ledger. On leaving, what waits is handed to the store, which is to end later.

    Raises:
        StoreError: what was spent today can't be read.

    """
    ledger = StoreLedger(store)
    await ledger.load(datetime.now(UTC).date())
    try:
        yield ledger
    finally:
        ledger.save()


def _tally(spending: Spending) -> Tally:
    took = spending.took
    return Tally(
        day=spending.day.isoformat(),
        user=spending.asker,
        room=spending.place,
        model=spending.model[:KEY_LENGTH],
        calls=1,
        input_tokens=took.input_tokens,
        output_tokens=took.output_tokens,
        cost=took.money,
    )


def _spending(tally: Tally) -> Spending:
    took = Took(tally.input_tokens, tally.output_tokens, tally.cost)
    return Spending(date.fromisoformat(tally.day), tally.user, tally.room, tally.model, took)


def _sum(one: Tally, other: Tally) -> Tally:
    return msgspec.structs.replace(
        one,
        calls=one.calls + other.calls,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=one.cost + other.cost,
    )
