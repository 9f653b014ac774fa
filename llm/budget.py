"""What replies cost, by account and day, and when that is enough.

An account is the hub as a whole, an asker, or a place. Days are UTC's, so that a budget
ends at the same moment for everybody, which the sentence tells.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol, TypeAlias

from attrs import frozen

from llm.provider import ModelError, Request

Scope: TypeAlias = Literal["hub", "user", "room"]
Account: TypeAlias = tuple[Scope, str]


@frozen
class Amount:
    """Tokens in and out, and money in the currency of the owner's prices."""

    tokens: int = 0
    money: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.money + other.money)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.money - other.money)


@frozen
class Took:
    """What one reply took; nothing where it was the demo's, or known already.

    Attributes:
        input_tokens, output_tokens: as the model counted them, else as estimated.
        money: in the currency of the owner's prices; 0 where they are not known.
        estimated: the tokens are.

    """

    input_tokens: int = 0
    output_tokens: int = 0
    money: float = 0.0
    estimated: bool = False

    @property
    def amount(self) -> Amount:
        """What budgets count of it."""
        return Amount(self.input_tokens + self.output_tokens, self.money)


@frozen
class Spending:
    """One reply; it is charged to each of its accounts.

    Attributes:
        day: of UTC, on which it ended.
        asker, place: as in its request; empty where they are not known.
        model: the owner's name of what answered.
        took: what it took.

    """

    day: date
    asker: str
    place: str
    model: str
    took: Took = Took()

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The hub, and the asker and the place where they are known."""
        return accounts_of(self.asker, self.place)


class Ledger(Protocol):
    """Where spendings are kept. Both calls are plain: they must not wait for a disk.

    A durable one holds the sums of today in memory, and hands each spending to the store.
    """

    def add(self, spending: Spending) -> None:
        """Keep it."""

    def spent(self, day: date, account: Account) -> Amount:
        """Return the sum of that day."""


class MemoryLedger:
    """A `Ledger` that knows only today, and forgets it when the process ends."""

    def __init__(self) -> None:
        self._day = date.min
        self._sums: dict[Account, Amount] = {}

    def add(self, spending: Spending) -> None:
        """See `Ledger`."""
        if spending.day > self._day:
            self._day = spending.day
            self._sums.clear()
        if spending.day == self._day:
            for account in spending.accounts:
                self._sums[account] = self._sums.get(account, Amount()) + spending.took.amount

    def spent(self, day: date, account: Account) -> Amount:
        """See `Ledger`."""
        return self._sums.get(account, Amount()) if day == self._day else Amount()


@frozen
class Budget:
    """The most in a day; None is no bound."""

    tokens: int | None = None
    money: float | None = None

    def reached_by(self, amount: Amount) -> bool:
        """Whether so much is all of it."""
        tokens = self.tokens is not None and amount.tokens >= self.tokens
        return tokens or (self.money is not None and amount.money >= self.money)


@frozen
class Budgets:
    """Of the hub as a whole, and of each user and each room."""

    hub: Budget = Budget()
    user: Budget = Budget()
    room: Budget = Budget()

    def of(self, scope: Scope) -> Budget:
        """Return that of an account."""
        return {"hub": self.hub, "user": self.user, "room": self.room}[scope]


SUBJECTS: dict[Scope, str] = {
    "hub": "This hub has used up what its models may cost in a day",
    "user": "You have used up what you may ask of the models in a day",
    "room": "This room has used up what it may ask of the models in a day",
}

NEARLY: dict[Scope, str] = {
    "hub": "The replies under way may use up what this hub's models may cost today; "
    "please try again when they have ended",
    "user": "The replies you are waiting for may use up what you may ask of the models today; "
    "please try again when they have ended",
    "room": "The replies under way may use up what this room may ask of the models today; "
    "please try again when they have ended",
}


def accounts_of(asker: str, place: str) -> tuple[Account, ...]:
    """Return whom a reply is charged to."""
    accounts: list[Account] = [("hub", "")]
    if asker:
        accounts.append(("user", asker))
    if place:
        accounts.append(("room", place))
    return tuple(accounts)


class Purse:
    """Checks budgets before a call and charges it after.

    What calls under way will probably take is set aside at their beginning: else a hundred
    at once would all find the same last token unspent.
    """

    def __init__(
        self, budgets: Budgets, ledger: Ledger, clock: Callable[[], datetime] | None = None
    ) -> None:
        """Build it; `clock` gives the time of day, with its zone."""
        self._budgets = budgets
        self._ledger = ledger
        self._clock = clock or _utc
        self._aside: dict[Account, Amount] = {}

    def check(self, request: Request) -> None:
        """Refuse a request of one whose budget is used up.

        Raises:
            ModelError: `busy`; the sentence and `retry_after` say when the budget ends.

        """
        now = self._clock().astimezone(UTC)
        for account in accounts_of(request.asker, request.place):
            scope, _ = account
            budget = self._budgets.of(scope)
            spent = self._ledger.spent(now.date(), account)
            if budget.reached_by(spent):
                raise _over(scope, now)
            if budget.reached_by(spent + self._aside.get(account, Amount())):
                raise ModelError("busy", f"{NEARLY[scope]}.")

    @contextmanager
    def set_aside(self, request: Request, amount: Amount) -> Iterator[None]:
        """Hold what a call will probably take, while it runs."""
        accounts = accounts_of(request.asker, request.place)
        for account in accounts:
            self._aside[account] = self._aside.get(account, Amount()) + amount
        try:
            yield
        finally:
            for account in accounts:
                left = self._aside.pop(account, Amount()) - amount
                if left.tokens > 0:
                    self._aside[account] = left

    def charge(self, request: Request, model: str, took: Took) -> None:
        """Put a reply on the ledger."""
        day = self._clock().astimezone(UTC).date()
        self._ledger.add(Spending(day, request.asker, request.place, model, took))


def _utc() -> datetime:
    return datetime.now(UTC)


def _over(scope: Scope, now: datetime) -> ModelError:
    end = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    seconds = (end - now).total_seconds()
    sentence = f"{SUBJECTS[scope]}. It goes on at {end:%Y-%m-%d %H:%M} UTC."
    return ModelError("busy", sentence, retry_after=seconds)
