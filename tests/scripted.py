"""A model that says what a test wrote for it: only a cloud's answers can't be had for real."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import trio
from attrs import define, field

from llm.provider import Item, ModelError, Request, Usage

Play = Callable[[Request], AsyncGenerator[Item, None]]


def speaker(request: Request) -> str:
    """Who is to speak: the prompt's first words are "You are NAME" and a comma."""
    found = re.match(r"You are ([^,]+),", request.messages[0].content)
    return found[1] if found else "nobody"


async def obedient(request: Request) -> AsyncGenerator[Item, None]:
    """Say one's name and the last line of the prompt, in three tokens."""
    last = request.messages[-1].content.rpartition("\n")[2]
    for text in (speaker(request), " heard: ", last):
        yield text
    yield Usage(model="script")


@define
class Scripted:
    """A provider; `play` is an async generator function that makes each reply.

    Attributes:
        requests: all that it was asked, oldest first.
        closed: who was speaking in each response that has been closed, whether at its end or
            earlier.

    """

    play: Play = obedient
    demo: bool = False
    name: str = "scripted"
    model: str = "script"
    requests: list[Request] = field(factory=list)
    closed: list[str] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    @property
    def open(self) -> int:
        """Responses that are not closed yet."""
        return len(self.requests) - len(self.closed)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        self.requests.append(request)
        self._notify()
        try:
            async with aclosing(self.play(request)) as items:
                yield items
        finally:
            self.closed.append(speaker(request))
            self._notify()

    async def aclose(self) -> None:
        pass

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        """Wait until something holds of what was asked and closed."""
        with trio.fail_after(seconds):
            while not condition():
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@define
class Gate:
    """Plays like `obedient`, but stops after "NAME heard: " until it is opened.

    `failing`: names of those who fail there instead of going on.
    """

    failing: set[str] = field(factory=set)
    _open: trio.Event = field(factory=trio.Event)

    async def __call__(self, request: Request) -> AsyncGenerator[Item, None]:
        async with aclosing(obedient(request)) as items:
            yield await anext(items)  # the name by itself is withheld: it may be a label
            yield await anext(items)
            await self._open.wait()  # a test opens it, or closes the response
            if speaker(request) in self.failing:
                raise ModelError("cut", "The model broke off.")
            async for item in items:
                yield item

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._open = trio.Event()
