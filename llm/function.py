"""The user's own function as a model: `--llm module:function`.

    # mymodel.py
    from llm.provider import Request

    async def answer(request: Request):
        async for text in my_model(request.prompt):
            yield text

The function takes one `Request` and is an async generator of `str`. A plain generator
(`def` with `yield`) does as well, for a local model that is called and blocks: it runs in a
thread. Both are closed when the reply is stopped, so that a `finally` or `with` in them
runs; the plain one once it has come to its next `yield`.
"""

import importlib
import inspect
import logging
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from llm.faults import model_error
from llm.provider import Item, ModelError, Request, SetupError, Timeouts, Usage
from llm.stops import Stops

log = logging.getLogger(__name__)

WHO = "the model's function"
MAX_THREADS = 4  # plain generators at work at once; such models rarely do even two things at once
CLOSE_WAIT = 2.0  # s that a function may take to clean up when its reply is stopped

Text = AsyncGenerator[object, None]


class FunctionModel:
    """Answers by a function of the user's own; see the module's own text."""

    name = "function"
    demo = False

    def __init__(
        self,
        function: Callable[[Request], object],
        *,
        model: str = "",
        timeouts: Timeouts | None = None,
    ) -> None:
        """Build it.

        Args:
            function: an async generator function, or a plain one.
            model: what to call it; the function's name if left out.
            timeouts: how long to wait; `connect` is of no use here.

        Raises:
            SetupError: it is neither.

        """
        self.model = model or getattr(function, "__name__", "function")
        self._opened = _opener(function, self.model)
        self._timeouts = timeouts or Timeouts()

    @classmethod
    def load(cls, name: str, *, timeouts: Timeouts | None = None) -> "FunctionModel":
        """Build it from `module:function`; the module may lie in the working directory.

        Raises:
            SetupError: there is no such function, or it is no generator function.

        """
        return cls(_imported(name), model=name, timeouts=timeouts)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        """Ask; see `llm.provider`."""
        try:
            opened = self._opened(request)
        except Exception as error:
            raise _failed(error) from error
        async with opened as texts, aclosing(self._items(texts, request)) as items:
            yield items

    async def aclose(self) -> None:
        """Do nothing: a function keeps nothing of ours."""

    async def _items(self, texts: Text, request: Request) -> AsyncGenerator[Item, None]:
        start = trio.current_time()
        first: float | None = None
        stops = Stops(request.stop)
        deadline = start + self._timeouts.first
        while not stops.hit and (text := await _next(texts, deadline)) is not None:
            if shown := stops.feed(text):
                first = trio.current_time() if first is None else first
                yield shown
            deadline = trio.current_time() + self._timeouts.between
        if rest := stops.end():
            yield rest
        yield Usage(
            model=self.model,
            seconds_to_first=None if first is None else first - start,
            seconds=trio.current_time() - start,
        )


async def _next(texts: Text, deadline: float) -> str | None:
    """Return the next text, or None at the end."""
    try:
        with trio.fail_at(deadline) as scope:
            text = await anext(texts, None)
    except Exception as error:
        if scope.cancelled_caught:
            raise model_error(WHO, "stalled") from None
        raise _failed(error) from error
    if text is not None and not isinstance(text, str):
        kind = type(text).__name__
        raise ModelError("garbled", f"The model's function must yield text (str), not {kind}.")
    return text


def _failed(error: Exception) -> ModelError:
    return model_error(WHO, "broken", detail=repr(error))


def _imported(name: str) -> Callable[[Request], object]:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SetupError(f"The module {module_name!r} of --llm {name} fails: {reason}.") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise SetupError(f"The module {module_name!r} has no function {function_name!r}.")
    return function  # type: ignore[no-any-return]  # what it gives is checked by the opener


Opener = Callable[[Request], AbstractAsyncContextManager[Text]]


def _opener(function: Callable[[Request], object], name: str) -> Opener:
    """How to run the function, and to close it, whatever becomes of the reply."""
    if inspect.isasyncgenfunction(function):
        return lambda request: _bounded_close(function(request))
    if inspect.isgeneratorfunction(function):
        limiter = trio.CapacityLimiter(MAX_THREADS)
        return lambda request: _in_thread(function(request), limiter)
    raise SetupError(f"{name} must be a generator function: `async def` (or `def`) with `yield`.")


@asynccontextmanager
async def _bounded_close(texts: Text) -> AsyncIterator[Text]:
    try:
        yield texts
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT):
            try:
                await texts.aclose()
            except Exception:
                log.warning("The model's function failed while it was closed.", exc_info=True)


@asynccontextmanager
async def _in_thread(
    generator: Generator[object, None, None], limiter: trio.CapacityLimiter
) -> AsyncIterator[Text]:
    steps = _Steps(generator)
    texts = _texts(steps, limiter)
    try:
        async with aclosing(texts):
            yield texts
    finally:
        if steps.leave():
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_WAIT):
                await trio.to_thread.run_sync(steps.close, abandon_on_cancel=True)


async def _texts(steps: "_Steps", limiter: trio.CapacityLimiter) -> Text:
    """Make a step in a thread at a time. A stop does not wait for the step under way."""
    while True:
        text = await trio.to_thread.run_sync(steps.step, limiter=limiter, abandon_on_cancel=True)
        if text is _END:
            return
        yield text


_END: Final = object()


@define
class _Steps:
    """A plain generator, run by one thread at a time and closed by whichever is the last.

    Once `leave` was called, it is closed: by the thread that is inside it when that comes
    out, or by the caller of `leave`, who is told if there is none.
    """

    _generator: Generator[object, None, None]
    _mutex: threading.Lock = field(factory=threading.Lock)
    _busy: bool = False
    _left: bool = False

    def step(self) -> object:
        """Run to the next `yield`; return what it gave, or `_END`."""
        with self._mutex:
            if self._left:
                return _END
            self._busy = True
        try:
            return next(self._generator, _END)
        finally:
            if self._come_out():
                self.close()

    def _come_out(self) -> bool:
        with self._mutex:
            self._busy = False
            return self._left

    def leave(self) -> bool:
        """Want no more; return whether it has to be closed now. Never waits."""
        with self._mutex:
            self._left = True
            return not self._busy

    def close(self) -> None:
        """Let it clean up; what goes wrong then is for the log only."""
        try:
            self._generator.close()
        except Exception:
            log.warning("The model's function failed while it was closed.", exc_info=True)
