"""One reply of a model over HTTP, from the bytes of its body to its texts, counts and end."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from math import inf

import httpx
import msgspec
import trio
from attrs import define, field

from llm.faults import ReportedError, fault_of
from llm.provider import (
    Fault,
    Finish,
    Item,
    ModelError,
    Resting,
    Sink,
    Timeouts,
    Usage,
)
from llm.sse import Events, EventTooLargeError
from llm.stops import Stops
from llm.transport import Body

AFTERMATH = 5.0  # s for counts and the closing event, once the model said why it ended
SLACK = 0.5  # s by which a silence may last longer, for the sake of what a token costs

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@define
class Reading:
    """One reply as it is read; each protocol has its own `feed`.

    Attributes:
        model: what answers, as asked for and then as it names itself.
        input_tokens, output_tokens: as far as the model has told.
        finish: why the reply ended, once the model has said so.
        ended: nothing more will come.

    """

    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish | None = None
    ended: bool = False

    def feed(self, event: bytes) -> str | None:
        """Take in an event; return its text, empty where the model only thinks, else None.

        Raises:
            ReportedError: the event is an error.
            One of `DECODE_ERRORS`: it is not of this protocol.

        """
        raise NotImplementedError

    @property
    def complete(self) -> bool:
        """The reply is whole, whatever happens to the connection from now on."""
        return self.ended or self.finish is not None


@define
class Reply:
    """Iterated over, the items of one reply. Times are of trio's clock.

    `patience` is around all that happens while the reply comes, its reader's own work too,
    and its deadline is moved on: a scope for each wait costs as much as all else that we do
    for a token. So a reader that takes nothing for as long as a model may be silent is cut
    off like one.

    Args:
        reading: reads the events.
        stops: texts that end it.
        chunks: the body of the response.
        timeouts: how long to wait.
        fault: makes the error for what is wrong, with a detail for the log.
        start: when the model was asked.
        rest: seconds in which the model wants no more calls, if it said so.

    """

    reading: Reading
    stops: Stops
    chunks: AsyncIterator[bytes]
    timeouts: Timeouts
    fault: Callable[[Fault, str], ModelError]
    start: float
    rest: float | None = None
    whole: bool = field(default=False, init=False)
    patience: trio.CancelScope = field(factory=trio.CancelScope)
    _now: Callable[[], float] = field(factory=lambda: trio.lowlevel.current_clock().current_time)
    _fresh_until: float = -inf
    _alive: bool = False
    _until: float = inf
    _first: float | None = None
    _items: AsyncGenerator[Item, None] = field(init=False)
    _events: Events = field(factory=Events)
    _error: ModelError | None = None

    def __attrs_post_init__(self) -> None:
        self.patience.deadline = self.start + self.timeouts.first
        self._items = self._all()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    def __anext__(self) -> Awaitable[Item]:
        return anext(self._items)

    async def aclose(self) -> None:
        """End it; the response is whoever's who opened it."""
        await self._items.aclose()

    async def pour(self, sink: Sink) -> None:
        """See `llm.provider.pour`; short where the connection has such a way."""

        def take(chunk: bytes) -> bool:
            text = self.stops.feed(self._text(chunk))
            if self._alive:
                self._alive = False
                self._extend()
            if text:
                self._mark_first()
            goes_on = not text or sink(text)
            return goes_on and not (self.stops.hit or self.reading.complete or self._error)

        if isinstance(self.chunks, Body) and not self.reading.complete:
            try:
                await self.chunks.pour(take)
            except httpx.HTTPError as error:
                if not self.reading.complete:
                    raise self._broken(error) from error

    async def _all(self) -> AsyncGenerator[Item, None]:
        """Give the reply; the texts of all events that one read brought are one item."""
        if self.rest:
            yield Resting(self.rest)
        more = True
        while more and not self.stops.hit and not self.reading.ended:
            chunk = await self._chunk()
            more = chunk != b""
            if text := self.stops.feed(self._text(chunk)):
                self._mark_first()
                self._extend()  # for the reader's work; in `_chunk` again, for the model's
                yield text
            if self._error is not None and not self.reading.complete:
                raise self._error
            more = more and self._error is None
        if not (self.reading.complete or self.stops.hit):
            raise self._cut_short()
        self.patience.deadline = inf
        if rest := self.stops.end():
            self._mark_first()
            yield rest
        self.whole = self.reading.ended
        yield self._usage()

    def _mark_first(self) -> None:
        if self._first is None:
            self._first = trio.current_time()

    async def _chunk(self) -> bytes:
        """Wait for bytes; none mean the stream's end, or that no more is needed."""
        try:
            if self.reading.complete:
                return await self._last_chunk()
            if self._alive:
                self._alive = False
                self._extend()
            return await anext(self.chunks)
        except StopAsyncIteration:
            return b""
        except httpx.HTTPError as error:
            if self.reading.complete:
                return b""
            raise self._broken(error) from error

    def _extend(self) -> None:
        """Move the deadline on, not for each token but once in `SLACK`."""
        now = self._now()
        if now > self._fresh_until:
            self._fresh_until = now + SLACK
            self.patience.deadline = self._fresh_until + self.timeouts.between

    async def _last_chunk(self) -> bytes:
        """Wait for counts and the closing event, but not for long: the text is all there."""
        self.patience.deadline = inf
        if self._alive or self._until == inf:
            self._alive = False
            self._until = trio.current_time() + AFTERMATH
        with trio.move_on_at(self._until):
            return await anext(self.chunks)
        return b""

    def _text(self, chunk: bytes) -> str:
        """Read the events that `chunk` ends. An error waits until the text before it is out."""
        texts = ""
        reading = self.reading
        try:
            for event in self._events.feed(chunk) if chunk else self._events.end():
                text = reading.feed(event)
                if text is not None:
                    self._alive = True
                    texts += text
                if reading.ended:
                    break
        except ReportedError as error:
            self._error = self.fault(fault_of(error.report), error.report.words)
        except (EventTooLargeError, *DECODE_ERRORS) as error:
            if chunk:  # at the end of the stream it is half an event: the stream was cut
                self._error = self.fault("garbled", repr(error))
        return texts

    def _broken(self, error: httpx.HTTPError) -> ModelError:
        if is_garbage(error):
            return self.fault("garbled", repr(error))
        fault: Fault = "unreachable" if self._first is None else "cut"
        return self.fault(fault, repr(error))

    def _cut_short(self) -> ModelError:
        """Say what it means that the stream ended before the reply did."""
        if self._first is not None:
            return self.fault("cut", "the stream ended")
        if self._events.count:
            return self.fault("unreachable", "the stream ended before any text")
        return self.fault("garbled", "no events came")

    def _usage(self) -> Usage:
        reading = self.reading
        finish: Finish = "stop" if self.stops.hit else reading.finish or "unknown"
        return Usage(
            model=reading.model,
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            finish=finish,
            seconds_to_first=None if self._first is None else self._first - self.start,
            seconds=trio.current_time() - self.start,
        )


def is_garbage(error: httpx.HTTPError) -> bool:
    """Whether bytes came that are not HTTP; a connection that was closed is no such thing."""
    text = str(error)
    closed = "disconnected" in text or "closed connection" in text
    return isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError) and not closed
