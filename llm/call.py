"""One question to the models, from the first try to its one end."""

import logging
import random
from collections.abc import Sequence

import trio
from attrs import define, evolve, field, frozen

from llm.breaker import COUNTED, Attempt, Breaker, BreakerSettings
from llm.budget import Amount, Purse, Took
from llm.flight import Flight
from llm.gate import Gate, Limits, Place, QueueSettings
from llm.provider import Answering, ModelError, Provider, Request, Resting, Usage, pour
from llm.retry import (
    CHARS_PER_TOKEN,
    Again,
    Next,
    Patience,
    Shorter,
    Tell,
    Tries,
    Unavailable,
    decide,
    shortened,
    tokens_in,
)

logger = logging.getLogger(__name__)


@frozen
class Price:
    """What a model costs, in any one currency, for a million tokens in and out."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


@frozen
class Model:
    """A model as its owner lists it.

    Attributes:
        name: what the owner and the people in the rooms call it.
        provider: asks it.
        limits: what it can take.
        price: what it costs, if that is known.
        context: tokens of prompt and reply together, if that is known.
        stands_in: may answer for another one that is down.
        by_name: the provider holds more models than this one, and a request may name any.
        offered: people may pick it; else it only stands in for others.

    """

    name: str
    provider: Provider
    limits: Limits = field(factory=Limits)
    price: Price | None = None
    context: int | None = None
    stands_in: bool = True
    by_name: bool = False
    offered: bool = True


@frozen
class Backend:
    """A model with the state that all its calls share."""

    model: Model
    breaker: Breaker
    gate: Gate

    @classmethod
    def of(
        cls, model: Model, breaker: BreakerSettings, queue: QueueSettings, longest_wait: float
    ) -> "Backend":
        """Build it; the state is that of a model which nobody has asked yet."""
        return cls(model, Breaker(breaker), Gate(model.limits, queue, longest_wait))


@frozen
class Rules:
    """The bounds of each call.

    Attributes:
        patience: how hard it tries.
        whole: seconds from asking to the end, queue and all tries included.
        reply_chars: the longest reply.

    """

    patience: Patience
    whole: float
    reply_chars: int


@define
class Call:
    """Asks one backend after the other until one answers, and puts the reply into the flight."""

    request: Request
    backends: Sequence[Backend]
    flight: Flight
    rules: Rules
    purse: Purse
    chance: random.Random
    answered: Backend | None = None
    shortened: bool = False
    _asked: int = 0
    _here: int = 0
    _at: int = 0
    _chars: int = 0
    _trouble: ModelError | None = None

    async def run(self) -> None:
        """Make the call; the flight has an end when this returns, however it returns."""
        try:
            with self.flight.scope, self.purse.set_aside(self.request, self._most()):
                with trio.move_on_after(self.rules.whole) as whole:
                    await self._answer(whole)
                if whole.cancelled_caught:
                    self.flight.end(self._too_late())
        except ModelError as error:
            self.flight.end(error)
        except Exception:
            logger.exception("a call of %s failed", self._backend.model.name)
            self.flight.end(ModelError("broken", "Something went wrong on our side."))
        finally:
            # Reached without an end only where everybody left or the gateway closes.
            self.flight.end(ModelError("cut", "The hub is closing the connection to its models."))
            self._charge()

    def _most(self) -> Amount:
        """What the reply may cost."""
        if self._backend.model.provider.demo:
            return Amount()
        tokens = tokens_in(self.request.messages), self.request.max_tokens
        price = self._backend.model.price
        return Amount(sum(tokens), price.of(*tokens) if price else 0.0)

    @property
    def _backend(self) -> Backend:
        return self.backends[self._at]

    async def _answer(self, whole: trio.CancelScope) -> None:
        while True:
            self._here += 1
            try:
                await self._try(self._backend)
            except ModelError as error:
                await self._after(error, whole.deadline - trio.current_time())
            else:
                return

    async def _after(self, error: ModelError, left: float) -> None:
        """Get ready for the next try, or give up."""
        if not isinstance(error, Unavailable) or self._trouble is None:
            self._trouble = error
        tries = Tries(
            asked=self._asked,
            here=self._here,
            more=self._at + 1 < len(self.backends),
            begun=self._chars > 0 or self.flight.usage is not None,
            shortened=self.shortened,
        )
        step = decide(error, tries, self.rules.patience, left, self.chance)
        logger.info("%s: %s (%s), then %s", self._backend.model.name, error, error.detail, step)
        match step:
            case Again(after):
                await trio.sleep(after)
            case Next():
                self._at += 1
                self._here = 0
            case Shorter():
                self._shorten(error)
            case Tell():
                raise self._trouble

    def _shorten(self, error: ModelError) -> None:
        request = shortened(self.request, self._backend.model.context)
        if request is None:
            raise error
        self.request = request
        self.shortened = True

    async def _try(self, backend: Backend) -> None:
        request = self.request
        if not backend.model.by_name:
            request = evolve(request, model=None)
        tokens = tokens_in(request.messages) + request.max_tokens
        _check_breaker(backend)
        async with backend.gate.place(request.asker, tokens, self.flight.queued) as place:
            _check_breaker(backend)  # it may have opened while we waited
            attempt = backend.breaker.enter(trio.current_time())
            assert attempt is not None
            self._asked += 1
            try:
                await self._stream(backend, request, place, attempt)
            except ModelError as error:
                if error.fault in COUNTED:
                    attempt.failed(trio.current_time())
                if error.fault in {"busy", "overloaded"} and error.retry_after is not None:
                    backend.gate.rest(error.retry_after)
                raise
            finally:
                attempt.left()

    async def _stream(
        self, backend: Backend, request: Request, place: Place, attempt: Attempt
    ) -> None:
        self.answered = backend
        model = backend.model
        name = request.model or model.name
        answering = Answering(name, model.provider.name, model.provider.demo)
        async with backend.model.provider.stream(request) as items:
            async for item in items:
                if not self._chars and isinstance(item, (str, Usage)):
                    attempt.succeeded(trio.current_time())
                    self.flight.begin(answering)
                if isinstance(item, str) and self._add(item):
                    await pour(items, self._add)
                elif isinstance(item, Usage):
                    self._end(item, model, place)
                elif isinstance(item, Resting):
                    backend.gate.rest(item.seconds)
        if self.flight.usage is None:
            raise ModelError("cut", "The model's reply has no end.")

    def _add(self, text: str) -> bool:
        self._chars += len(text)
        if self._chars > self.rules.reply_chars:
            raise ModelError("garbled", "The model does not stop writing; its reply was ended.")
        self.flight.add(text)
        return True

    def _end(self, usage: Usage, model: Model, place: Place) -> None:
        if usage.input_tokens is not None and usage.output_tokens is not None:
            place.took(usage.input_tokens + usage.output_tokens)
            if model.price is not None:
                cost = model.price.of(usage.input_tokens, usage.output_tokens)
                usage = evolve(usage, cost=cost)
        self.flight.end(usage)

    def _too_late(self) -> ModelError:
        if self._chars:
            return ModelError("stalled", "The reply took too long and was ended.")
        return self._trouble or ModelError(
            "stalled", "The model did not come to an answer in time. Please try again later."
        )

    def _charge(self) -> None:
        """Charge what was used; a reply that was stopped has cost as well."""
        if self.answered is None or (self.flight.usage is None and not self._chars):
            return
        model = self.answered.model
        took = Took() if model.provider.demo else self._took(model)
        self.purse.charge(self.request, model.name, took)

    def _took(self, model: Model) -> Took:
        usage = self.flight.usage
        given = usage.input_tokens if usage else None
        made = usage.output_tokens if usage else None
        estimated = given is None or made is None
        given = tokens_in(self.request.messages) if given is None else given
        made = -(-self._chars // CHARS_PER_TOKEN) if made is None else made
        money = model.price.of(given, made) if model.price else 0.0
        return Took(given, made, money, estimated=estimated)


def _check_breaker(backend: Backend) -> None:
    """Refuse what the breaker would not let through.

    Raises:
        Unavailable: it is open.

    """
    rest = backend.breaker.rest(trio.current_time())
    if rest > 0:
        raise Unavailable(
            "overloaded",
            "The model has trouble just now. Please try again in a little while.",
            retry_after=rest,
        )
