"""The gate of a model: how many calls at once, how many and how large in a minute; who is next."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from attrs import define, field, frozen

from llm.fair import FairQueue, Spent, Window
from llm.retry import Unavailable

MOST_ROUNDS = 16  # an enormous prompt waits for so many rounds of the others, and no more


@frozen
class Limits:
    """What a model can take; None is no bound.

    Attributes:
        calls: at once. For a model on one's own machine this is the number of its slots; a
            cloud says 429 when it has enough, and is obeyed, so this only bounds sockets.
        calls_per_minute, tokens_per_minute: within any 60 s, as clouds count. The tokens of
            a call are estimated, and corrected once they are known.

    """

    calls: int = 512
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None


@frozen
class QueueSettings:
    """The queue before each model.

    Attributes:
        most: who wait in all. At ten seconds a reply the last one waits for half an hour
            with one slot; a clear no is better than that.
        each: who wait of one asker, so that nobody fills the queue alone.
        quantum: tokens of credit in a round; an ordinary call (a page of prompt, a reply of
            1,024 tokens) fits in one.

    """

    most: int = 200
    each: int = 16
    quantum: int = 2048


@define(eq=False)
class _Waiter:
    asker: str
    tokens: int
    told: Callable[[int], None]
    position: int = 0
    admitted: bool = False
    refused: bool = False
    changed: trio.Event = field(factory=trio.Event)
    spent: Spent | None = None


class Place:
    """A call that was let through."""

    def __init__(self, gate: "Gate", spent: Spent) -> None:
        self._gate = gate
        self._spent = spent

    def took(self, tokens: int) -> None:
        """Correct the estimate."""
        self._gate.correct(self._spent, tokens)


class Gate:
    """See the module's own text. Whoever is next does the waiting for time: there is no timer."""

    def __init__(self, limits: Limits, settings: QueueSettings, longest_wait: float) -> None:
        """Build it.

        Args:
            limits: of the model.
            settings: of the queue.
            longest_wait: seconds; nobody queues for a model that rests for longer.

        """
        self.in_use = 0
        self._limits = limits
        self._settings = settings
        self._longest_wait = longest_wait
        self._queue = FairQueue[_Waiter](settings.quantum)
        self._calls = Window(limits.calls_per_minute)
        self._tokens = Window(limits.tokens_per_minute)
        self._rests_until = -math.inf
        self._opens_at = math.inf

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    @asynccontextmanager
    async def place(
        self, asker: str, tokens: int, told: Callable[[int], None]
    ) -> AsyncIterator[Place]:
        """Wait for a place and hold it. The caller's deadline bounds the wait.

        Args:
            asker: whose line to wait in.
            tokens: an estimate.
            told: called with the position, 1 is next, whenever it changes.

        Raises:
            Unavailable: too many wait already, or the model rests for too long.

        """
        waiter = _Waiter(asker, tokens, told)
        await self._enter(waiter)
        assert waiter.spent is not None
        try:
            yield Place(self, waiter.spent)
        finally:
            self.in_use -= 1
            self._dispatch()

    def rest(self, seconds: float) -> None:
        """Let nobody through for a while: the model asked for it."""
        self._rests_until = max(self._rests_until, trio.current_time() + seconds)
        if seconds > self._longest_wait:
            for waiter in self._queue.order():
                waiter.refused = True
                waiter.changed.set()

    def correct(self, spent: Spent, tokens: int) -> None:
        """See `Place.took`."""
        self._tokens.correct(spent, tokens)
        self._dispatch()

    async def _enter(self, waiter: _Waiter) -> None:
        self._check_rest()
        cost = min(waiter.tokens, MOST_ROUNDS * self._settings.quantum)
        self._queue.add(waiter.asker, cost, waiter)
        self._let_through()
        if not waiter.admitted:
            self._check_room(waiter)
        self._tell_positions()
        if not waiter.admitted:
            await self._wait(waiter)

    def _check_rest(self) -> None:
        rest = self._rests_until - trio.current_time()
        if rest > self._longest_wait:
            raise Unavailable(
                "busy",
                f"The model takes no more questions just now. Try again in {math.ceil(rest)} s.",
                retry_after=rest,
            )

    def _check_room(self, waiter: _Waiter) -> None:
        mine = self._queue.of(waiter.asker) > self._settings.each
        if len(self._queue) <= self._settings.most and not mine:
            return
        self._queue.remove(waiter.asker, waiter)
        raise Unavailable(
            "overloaded",
            "So many of your questions are waiting already; please wait for their answers."
            if mine
            else "Too many questions are waiting for the model. Please try again in a minute.",
        )

    async def _wait(self, waiter: _Waiter) -> None:
        try:
            while not waiter.admitted:
                at = self._opens_at if waiter.position == 1 else math.inf
                with trio.move_on_at(at):
                    await waiter.changed.wait()
                if waiter.refused and not waiter.admitted:
                    self._check_rest()
                waiter.changed = trio.Event()
                self._dispatch()
        except (trio.Cancelled, Unavailable):
            if waiter.admitted:
                self.in_use -= 1
            else:
                self._queue.remove(waiter.asker, waiter)
            self._dispatch()
            raise

    def _dispatch(self) -> None:
        if self._queue:
            self._let_through()
            self._tell_positions()

    def _let_through(self) -> None:
        """Let through all who may go now."""
        now = trio.current_time()
        while self._queue:
            waiter = self._queue.head()
            opens_at = self._when(waiter.tokens, now)
            if opens_at > now:
                self._open_at(opens_at, waiter)
                break
            self._queue.pop()
            self._admit(waiter, now)

    def _when(self, tokens: int, now: float) -> float:
        # The first one waits for all of it: those behind must not slip past a large call.
        if self.in_use >= self._limits.calls:
            return math.inf
        calls = self._calls.free_at(1, now)
        return max(calls, self._tokens.free_at(tokens, now), self._rests_until)

    def _admit(self, waiter: _Waiter, now: float) -> None:
        self.in_use += 1
        self._calls.take(1, now)
        waiter.spent = self._tokens.take(waiter.tokens, now)
        waiter.admitted = True
        waiter.changed.set()

    def _open_at(self, at: float, first: _Waiter) -> None:
        if at != self._opens_at:
            self._opens_at = at
            first.changed.set()

    def _tell_positions(self) -> None:
        for position, waiter in enumerate(self._queue.order(), 1):
            if waiter.position != position:
                waiter.position = position
                waiter.told(position)
                if position == 1:
                    waiter.changed.set()
