"""The gateway: several models, unreliable, slow, limited and costly, look like one that behaves.

    async with open_gateway([Model("fast", provider)]) as gateway:
        async with gateway.stream(request) as items:
            ...

It is a `Provider` itself, so those who ask know it by one method. Its nursery owns one task
for each call under way (`Call`); who asks listens to that call (`Flight`). What is decided
where: retry.py what follows from an error, breaker.py who is left alone, gate.py and fair.py
who is next, budget.py who has had enough, cache.py what is known already.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

import trio
from attrs import evolve, field, frozen

from llm.breaker import BreakerSettings, State
from llm.budget import Budgets, Ledger, MemoryLedger, Purse, Took
from llm.cache import Cache, CacheSettings, Known, MemoryCache, is_cacheable
from llm.call import Backend, Call, Model, Rules
from llm.flight import Flight, key_of
from llm.gate import QueueSettings
from llm.provider import Item, ModelError, Request, SetupError
from llm.retry import Patience
from llm.rounds import reading_in_rounds

CLOSE_WAIT = 5.0  # s for providers to close their connections, also where we are cancelled


@frozen
class GatewaySettings:
    """All that can be set; the parts say why each is what it is.

    Attributes:
        patience: attempts and pauses of a call.
        whole: seconds from asking to the end of a reply, queue and all attempts included.
            1,024 tokens at two a second, as a large model does on a laptop, take nine
            minutes.
        reply_chars: the longest reply; no model writes so much by itself.
        breaker, queue, cache, budgets: of these parts.
        share: the same question asked by several at once is one call.

    """

    patience: Patience = field(factory=Patience)
    whole: float = 900.0
    reply_chars: int = 1_000_000
    breaker: BreakerSettings = field(factory=BreakerSettings)
    queue: QueueSettings = field(factory=QueueSettings)
    cache: CacheSettings = field(factory=CacheSettings)
    budgets: Budgets = field(factory=Budgets)
    share: bool = True


@frozen
class Status:
    """How a model does, for who looks after the hub."""

    name: str
    breaker: State
    calls: int
    waiting: int


class Gateway:
    """See the module's own text; `open_gateway` makes it."""

    def __init__(
        self,
        models: Sequence[Model],
        settings: GatewaySettings,
        nursery: trio.Nursery,
        purse: Purse,
        cache: Cache,
        chance: random.Random,
    ) -> None:
        rules = Rules(settings.patience, settings.whole, settings.reply_chars)
        longest_wait = settings.patience.longest_wait
        self._backends = {
            model.name: Backend.of(model, settings.breaker, settings.queue, longest_wait)
            for model in models
        }
        self._first = models[0]
        self._settings = settings
        self._nursery = nursery
        self._purse = purse
        self._cache = cache
        self._call = partial(Call, rules=rules, purse=purse, chance=chance)
        self._flights: dict[bytes, Flight] = {}
        self._running: set[Flight] = set()
        self._closed = False

    @property
    def name(self) -> str:
        """The provider of the first model, which answers when a request names none."""
        return self._first.provider.name

    @property
    def model(self) -> str:
        """The first model, as its owner calls it."""
        return self._first.name

    @property
    def demo(self) -> bool:
        """Whether the first model is the demo. Each reply tells for itself (`Answering`)."""
        return self._first.provider.demo

    @property
    def models(self) -> tuple[Model, ...]:
        """All of them, in their owner's order."""
        return tuple(backend.model for backend in self._backends.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Those that people may pick from; what only stands in is not among them."""
        return tuple(model.name for model in self.models if model.offered)

    @property
    def demos(self) -> frozenset[str]:
        """See `llm.provider.Several`."""
        return frozenset(model.name for model in self.models if model.provider.demo)

    @property
    def calls(self) -> int:
        """How many calls are under way, those that wait included."""
        return len(self._running)

    def status(self) -> list[Status]:
        """How the models do."""
        now = trio.current_time()
        return [
            Status(name, b.breaker.state(now), b.gate.in_use, b.gate.waiting)
            for name, b in self._backends.items()
        ]

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        """Ask; see `llm.provider`. Texts and usage are preceded by one `Answering`.

        Raises:
            ModelError: no model answers, or none may: for a name that is unknown, a budget
                that is used up, a queue that is full.

        """
        backends = self._in_order(request.model)
        key = _key(request, backends[0].model)
        flight = await self._known(key, request)
        if flight is None:
            if not backends[0].model.provider.demo:
                self._purse.check(request)
            flight = self._flight(key, request, backends)
        async with flight.listen() as items:
            yield items

    async def aclose(self) -> None:
        """Stop all calls and close all providers; idempotent."""
        self._closed = True
        for flight in list(self._running):
            flight.scope.cancel()
        for backend in self._backends.values():
            await backend.model.provider.aclose()

    def _in_order(self, name: str | None) -> list[Backend]:
        """Who is asked: the one that is named, then those that may stand in for it."""
        names = list(self._backends)
        backend = self._backends.get(name or self._first.name)
        if backend is None:
            if not self._first.by_name:
                known = ", ".join(names)
                raise ModelError("not_found", f"There is no model {name} here. There are: {known}.")
            backend = self._backends[self._first.name]
        at = names.index(backend.model.name)
        others = [self._backends[other] for other in names[at + 1 :] + names[:at]]
        return [backend, *(other for other in others if other.model.stands_in)]

    async def _known(self, key: bytes, request: Request) -> Flight | None:
        """Return a flight that has ended before it began: the reply is in the cache."""
        if request.fresh or not is_cacheable(request, self._settings.cache.use):
            return None
        known = await self._cache.get(key)
        if known is None:
            return None
        self._purse.charge(request, known.answering.model, Took())
        flight = Flight(lambda _: None)
        flight.begin(known.answering)
        if known.text:
            flight.add(known.text)
        flight.end(evolve(known.usage, cached=True, cost=None))
        return flight

    def _flight(self, key: bytes, request: Request, backends: Sequence[Backend]) -> Flight:
        """Return the flight to listen to: one that is under way, or a new one."""
        if self._closed:  # perhaps since the cache was asked
            raise ModelError("unreachable", "The hub is closing.")
        shared = self._settings.share and not request.private
        if shared and key in self._flights:
            return self._flights[key]
        flight = Flight(partial(self._over, key))
        if shared:
            self._flights[key] = flight
        self._running.add(flight)
        self._nursery.start_soon(self._run, key, request, backends, flight)
        return flight

    async def _run(
        self, key: bytes, request: Request, backends: Sequence[Backend], flight: Flight
    ) -> None:
        call = self._call(request, backends, flight)
        try:
            await call.run()
        finally:
            self._running.discard(flight)
        known = _worth_keeping(call)
        if known is not None and is_cacheable(request, self._settings.cache.use):
            await self._cache.put(key, known)

    def _over(self, key: bytes, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _key(request: Request, model: Model) -> bytes:
    """Return what requests for the same reply have in common.

    The provider counts as well: an owner may put another model behind the same name, and
    replies may be known for longer than the hub runs.
    """
    named = request.model if model.by_name and request.model else model.name
    provider = model.provider
    return key_of(evolve(request, model=None), f"{named}|{provider.name}|{provider.model}")


def _worth_keeping(call: Call) -> Known | None:
    """Only a whole reply, of the model that was asked, to the question as it was asked."""
    flight = call.flight
    if flight.usage is None or flight.answering is None or flight.usage.finish != "stop":
        return None
    stand_in = call.answered is not call.backends[0]
    if stand_in or call.shortened or flight.answering.demo:
        return None
    return Known(flight.text, flight.answering, flight.usage)


@asynccontextmanager
async def open_gateway(
    models: Sequence[Model],
    settings: GatewaySettings | None = None,
    *,
    ledger: Ledger | None = None,
    cache: Cache | None = None,
    chance: random.Random | None = None,
    clock: Callable[[], datetime] | None = None,
) -> AsyncIterator[Gateway]:
    """Have a gateway over these models. On leaving, all calls are stopped and providers closed.

    Args:
        models: at least one, in the order in which they stand in for each other.
        settings: the defaults if left out.
        ledger: where spendings are kept; in memory if left out.
        cache: where replies are kept, if they are; in memory if left out.
        chance: for the pauses between attempts; a seeded one makes them the same again.
        clock: the time of day with its zone, for budgets; the system's if left out.

    Raises:
        SetupError: no models, or two of the same name.

    """
    settings = settings or GatewaySettings()
    names = [model.name for model in models]
    if not names or len(set(names)) < len(names):
        raise SetupError("A hub needs at least one model, and each needs a name of its own.")
    gateway: Gateway | None = None
    try:
        async with reading_in_rounds(), trio.open_nursery() as nursery:
            purse = Purse(settings.budgets, MemoryLedger() if ledger is None else ledger, clock)
            kept = MemoryCache(settings.cache) if cache is None else cache
            luck = chance or random.Random()  # noqa: S311 - pauses, no secrets
            gateway = Gateway(models, settings, nursery, purse, kept, luck)
            yield gateway
            nursery.cancel_scope.cancel()
    finally:
        if gateway is not None:
            with trio.move_on_after(CLOSE_WAIT, shield=True):
                await gateway.aclose()
