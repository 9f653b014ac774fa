"""A provider in memory that does as it is told; its time is trio's, so tests can make it fly."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import trio
from attrs import evolve, frozen

from llm.call import Model
from llm.gateway import Gateway
from llm.provider import (
    Answering,
    ChatMessage,
    Fault,
    Item,
    ModelError,
    Queued,
    Request,
    Usage,
)

Step: TypeAlias = str | float | ModelError | Usage
Script: TypeAlias = tuple[Step, ...]

DONE = Usage("m", input_tokens=10, output_tokens=5)
ANSWER: Script = ("Hel", "lo.", DONE)
FOREVER = float("inf")


def error(fault: Fault, retry_after: float | None = None) -> ModelError:
    return ModelError(fault, f"It is {fault}.", retry_after=retry_after)


class Scripted:
    """Plays its scripts, one a call, and the last one again and again; numbers are pauses."""

    def __init__(self, *scripts: Script, name: str = "m", demo: bool = False) -> None:
        self.name = f"maker of {name}"
        self.model = name
        self.demo = demo
        self.scripts = list(scripts or (ANSWER,))
        self.asked: list[Request] = []
        self.at: list[float] = []
        self.open = 0
        self.most_open = 0
        self.closed = False
        self.choose: Callable[[Request], Script] | None = None

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        self.asked.append(request)
        self.at.append(trio.current_time())
        if self.choose is not None:
            script = self.choose(request)
        else:
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            async with aclosing(self._play(script)) as items:
                yield items
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        self.closed = True

    async def _play(self, script: Script) -> AsyncGenerator[Item, None]:
        await trio.lowlevel.checkpoint()
        for step in script:
            match step:
                case ModelError():
                    raise step
                case int() | float():
                    await trio.sleep(step)
                case _:
                    yield step


def model(provider: Scripted, **more: Any) -> Model:
    return evolve(Model(provider.model, provider), **more)


@frozen
class Heard:
    """What a listener got, and after how many seconds it ended."""

    text: str
    items: tuple[Item, ...]
    error: ModelError | None
    at: float

    @property
    def usage(self) -> Usage | None:
        return next((item for item in self.items if isinstance(item, Usage)), None)

    @property
    def answering(self) -> Answering | None:
        return next((item for item in self.items if isinstance(item, Answering)), None)

    @property
    def answered_by(self) -> str | None:
        return None if self.answering is None else self.answering.model

    @property
    def positions(self) -> list[int]:
        return [item.position for item in self.items if isinstance(item, Queued)]

    @property
    def fault(self) -> Fault | None:
        return None if self.error is None else self.error.fault


async def hear(gateway: Gateway, request: Request) -> Heard:
    """Listen to the end, whatever it is; the reply must be as the contract has it."""
    start = trio.current_time()
    items: list[Item] = []
    failed: ModelError | None = None
    try:
        async with gateway.stream(request) as stream:
            async for item in stream:
                items.append(item)  # noqa: PERF401  so that an error leaves them
    except ModelError as caught:
        failed = caught
    kinds = [type(item) for item in items if not isinstance(item, Queued)]
    if failed is None:
        assert kinds[0] is Answering
        assert kinds[-1] is Usage
        kinds.pop()
    assert kinds[1:] == [str] * len(kinds[1:])
    assert "" not in items
    text = "".join(item for item in items if isinstance(item, str))
    return Heard(text, tuple(items), failed, round(trio.current_time() - start, 6))


def ask(text: str = "Hi", asker: str = "", **more: Any) -> Request:
    return evolve(Request((ChatMessage("user", text),), asker=asker), **more)
