"""One call of a model and all who listen to it.

One task owns the call and puts what comes into a `Flight`; each listener reads from there
at its own pace, from the first text on, however late it came. A listener that goes detaches
itself; when the last one goes, the call is stopped at once.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import trio
from attrs import define, evolve, field
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from llm.provider import Answering, Item, ModelError, Queued, Request, Sink, Usage


def key_of(request: Request, model: str) -> bytes:
    """Return what two requests have in common if their replies may be the same one.

    All of the request counts but who asked, and where. `model` is what answers if the
    request names none.
    """
    what = (
        request.model or model,
        [(m.role, m.said) for m in request.messages],
        request.max_tokens,
        request.temperature,
        request.stop,
    )
    return hashlib.sha256(msgspec.msgpack.encode(what)).digest()


class Flight:
    """See the module's own text. `scope` is the owner's: its call runs in it.

    Args:
        over: called once, as soon as nobody should join any more: it has ended, whether
            well or not, or everybody has left.

    """

    def __init__(self, over: Callable[["Flight"], None]) -> None:
        self.scope = trio.CancelScope()
        self.answering: Answering | None = None
        self.usage: Usage | None = None
        self._over = over
        self._open = True
        self._position = 0
        self._parts: list[str] = []
        self._error: ModelError | None = None
        self._ended = False
        self._listeners = 0
        self._waiting: dict[Task, None] = {}
        self._pouring: dict[_Listener, Sink] = {}

    # ── the owner's side: plain calls, which never wait ──────────────────────────────

    @property
    def text(self) -> str:
        """All that has come."""
        return "".join(self._parts)

    def queued(self, position: int) -> None:
        """It waits; 1 is next."""
        self._position = position
        self._wake()

    def begin(self, answering: Answering) -> None:
        """Say who answers, before the first text."""
        self.answering = answering

    def add(self, text: str) -> None:
        """Append to the reply."""
        self._parts.append(text)
        if self._pouring:
            for listener, sink in tuple(self._pouring.items()):
                if listener in self._pouring:  # what one does with it may make another go
                    listener.take(text, sink)
        self._wake()

    def end(self, end: Usage | ModelError) -> None:
        """End the reply; the first end counts."""
        if self._ended:
            return
        self._ended = True
        if isinstance(end, Usage):
            self.usage = end
        else:
            self._error = end
        self._close()
        for listener in tuple(self._pouring):
            listener.stop()
        self._wake()

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._over(self)

    def _wake(self) -> None:
        # Leaner than a ParkingLot, at a place that is passed for each token and listener.
        if self._waiting:
            for task in self._waiting:
                reschedule(task)
            self._waiting.clear()

    # ── the listeners' side ──────────────────────────────────────────────────────────

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Item]]:
        """Have the reply as `Provider.stream` gives it; times are this listener's own."""
        self._listeners += 1
        try:
            async with aclosing(_Listener(self, trio.current_time())) as listener:
                yield listener
        finally:
            self._listeners -= 1
            # After the end the owner only gives its connection back, which it may do in peace.
            if self._listeners == 0 and self.usage is None:
                self._close()
                self.scope.cancel()


@define(eq=False)
class _Listener:
    """One who listens, since `start`, and has been given the first `at` parts.

    No deadline here: the owner's bounds the flight, and whatever ends the owner ends it.
    """

    flight: Flight
    start: float
    at: int = 0
    _items: AsyncGenerator[Item, None] = field(init=False)
    _task: Task | None = None
    _failure: BaseException | None = None

    def __attrs_post_init__(self) -> None:
        self._items = self._all()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    def __anext__(self) -> Awaitable[Item]:
        return anext(self._items)

    async def aclose(self) -> None:
        await self._items.aclose()

    async def pour(self, sink: Sink) -> None:
        """See `llm.provider.pour`: until the sink has enough, or the flight ends."""
        flight = self.flight
        if self.at < len(flight._parts) or flight._ended:
            return
        self._task = current_task()
        flight._pouring[self] = sink

        def abort(_: object) -> Abort:
            del flight._pouring[self]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def take(self, text: str, sink: Sink) -> None:
        """Give a part to the sink: what goes wrong with it is this listener's alone."""
        self.at += 1
        try:
            goes_on = sink(text)
        except BaseException as error:  # noqa: BLE001 - raised again by who listens
            self._failure = error
            goes_on = False
        if not goes_on:
            self.stop()

    def stop(self) -> None:
        """Pour no more, and wake who listens."""
        # Whoever was cancelled within its own sink is not there any more.
        if self.flight._pouring.pop(self, None) is not None and self._task is not None:
            reschedule(self._task)

    async def _all(self) -> AsyncGenerator[Item, None]:
        flight = self.flight
        waiting = flight._waiting
        task = current_task()

        def abort(_: object) -> Abort:
            del waiting[task]
            return Abort.SUCCEEDED

        position = 0
        while not flight._parts and not flight._ended:
            if position == flight._position:
                waiting[task] = None
                await wait_task_rescheduled(abort)
            else:
                position = flight._position
                yield Queued(position)
        first = trio.current_time() if flight._parts else None
        if flight.answering is not None:
            yield flight.answering
        # A thousand may run this for each token: hence the plain loop, and the wait is written
        # out rather than called.
        parts = flight._parts
        while self.at < len(parts) or not flight._ended:
            if self.at == len(parts):
                task = current_task()
                waiting[task] = None
                await wait_task_rescheduled(abort)
                continue
            text = parts[-1] if self.at + 1 == len(parts) else "".join(parts[self.at :])
            self.at = len(parts)
            yield text
        yield self._usage(first)

    def _usage(self, first: float | None) -> Usage:
        """Return the end, if it is a good one."""
        flight = self.flight
        if flight.usage is None:
            assert flight._error is not None
            raise _copy(flight._error)
        now = trio.current_time()
        to_first = None if first is None else first - self.start
        return evolve(flight.usage, seconds_to_first=to_first, seconds=now - self.start)


def _copy(error: ModelError) -> ModelError:
    """Make one for each who raises it: an exception gathers the traces of all of them."""
    return ModelError(
        error.fault,
        str(error),
        status=error.status,
        retry_after=error.retry_after,
        detail=error.detail,
    )
