"""Who is next: a fair queue by deficit round robin, and a sliding window. Pure.

M. Shreedhar, G. Varghese: Efficient Fair Queuing using Deficit Round Robin, SIGCOMM 1995.
Each asker has a line of its own. Each round gives every line the same credit; a line's
first one goes when its credit covers the cost. Who asks once waits for about one call of
each other asker, however many those have waiting.
"""

import math
from collections import deque
from typing import Generic, TypeVar

from attrs import define

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items in lines; each has a cost. `quantum` is the credit of a round."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._lines: dict[str, deque[tuple[int, T]]] = {}
        self._credit: dict[str, int] = {}
        self._ring: deque[str] = deque()
        self._credited = False  # the first of the ring has its credit of this round

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def of(self, asker: str) -> int:
        """How many an asker has waiting."""
        return len(self._lines.get(asker, ()))

    def add(self, asker: str, cost: int, item: T) -> None:
        """Append to the asker's line."""
        if asker not in self._lines:
            self._lines[asker] = deque()
            self._credit[asker] = 0
            self._ring.append(asker)
        self._lines[asker].append((cost, item))

    def head(self) -> T:
        """Return the one that is next. There must be one; asking twice changes nothing."""
        while True:
            asker = self._ring[0]
            if not self._credited:
                self._credit[asker] += self._quantum
                self._credited = True
            cost, item = self._lines[asker][0]
            if cost <= self._credit[asker]:
                return item
            self._ring.rotate(-1)
            self._credited = False

    def pop(self) -> T:
        """Take out the one that is next."""
        item = self.head()
        asker = self._ring[0]
        cost, _ = self._lines[asker].popleft()
        self._credit[asker] -= cost
        self._drop_if_empty(asker)
        return item

    def remove(self, asker: str, item: T) -> None:
        """Take out one that does not want to wait any more; it must be there."""
        line = self._lines[asker]
        line.remove(next(pair for pair in line if pair[1] is item))
        self._drop_if_empty(asker)

    def order(self) -> list[T]:
        """All of them as they would go if nobody else came."""
        copy = FairQueue[T](self._quantum)
        copy._lines = {asker: line.copy() for asker, line in self._lines.items()}
        copy._credit = self._credit.copy()
        copy._ring = self._ring.copy()
        copy._credited = self._credited
        return [copy.pop() for _ in range(len(self))]

    def _drop_if_empty(self, asker: str) -> None:
        # Credit is not kept: who was away cannot save up and push in front of the others.
        if not self._lines[asker]:
            self._credited = self._credited and self._ring[0] != asker
            self._ring.remove(asker)
            del self._lines[asker], self._credit[asker]


@define(eq=False)
class Spent:
    """What was taken out of a window at a time."""

    at: float
    amount: int
    counted: bool = False


class Window:
    """So much within any `span` seconds, and no more; None for no bound.

    It is exact, where a token bucket lets through twice as much in its first minute.
    """

    def __init__(self, most: int | None, span: float = 60.0) -> None:
        self._most = math.inf if most is None else most
        self._bounded = most is not None
        self._span = span
        self._entries: deque[Spent] = deque()
        self._used = 0

    def free_at(self, amount: int, now: float) -> float:
        """When so much may be taken; `now` if it may be at once.

        More than the whole bound counts as the whole bound: it would never fit.
        """
        self._forget(now)
        missing = self._used + min(amount, self._most) - self._most
        for entry in self._entries:
            if missing <= 0:
                break
            missing -= entry.amount
            now = entry.at + self._span
        return now

    def take(self, amount: int, now: float) -> Spent:
        """Take it."""
        entry = Spent(now, amount)
        if self._bounded:
            entry.counted = True
            self._entries.append(entry)
            self._used += amount
        return entry

    def correct(self, entry: Spent, amount: int) -> None:
        """It was so much in truth."""
        if entry.counted:
            self._used += amount - entry.amount
        entry.amount = amount

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0].at + self._span <= now:
            entry = self._entries.popleft()
            entry.counted = False
            self._used -= entry.amount
