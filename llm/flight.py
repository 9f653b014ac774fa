"""One call of a model and all who listen to it.

One task owns the call and puts what comes into a `Flight`; each listener reads from there
at its own pace, from the first text on, however late it came. A listener that goes detaches
itself; when the last one goes, the call is stopped at once.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import trio
from attrs import define, evolve
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from llm.provider import Answering, Item, ModelError, Queued, Request, Usage


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
            async with aclosing(_Listener(self, trio.current_time()).items()) as items:
                yield items
        finally:
            self._listeners -= 1
            # After the end the owner only gives its connection back, which it may do in peace.
            if self._listeners == 0 and self.usage is None:
                self._close()
                self.scope.cancel()


@define
class _Listener:
    """One who listens, since `start`.

    No deadline here: the owner's bounds the flight, and whatever ends the owner ends it.
    """

    flight: Flight
    start: float

    async def items(self) -> AsyncGenerator[Item, None]:
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
        # A thousand may run this for each token: hence the plain loop and its local names, and
        # the wait is written out rather than called.
        parts, at = flight._parts, 0
        while at < len(parts) or not flight._ended:
            if at == len(parts):
                task = current_task()
                waiting[task] = None
                await wait_task_rescheduled(abort)
                continue
            text = parts[at] if at + 1 == len(parts) else "".join(parts[at:])
            at = len(parts)
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
