"""A provider for tests whose texts take the shorter way, `llm.provider.pour`."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from attrs import define

from llm.provider import Item, ModelError, Provider, Request, pour


@define
class Poured:
    """Is as its provider is, whose texts are poured, at most `most` at a time."""

    provider: Provider
    most: int = 1_000_000
    poured: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        async with (
            self.provider.stream(request) as items,
            aclosing(self._all(items)) as poured,
        ):
            yield poured

    async def _all(self, items: AsyncIterator[Item]) -> AsyncGenerator[Item, None]:
        async for item in items:
            yield item
            if isinstance(item, str):
                texts: list[str] = []
                failure = await self._pour(items, texts)
                self.poured += len(texts)
                for text in texts:
                    yield text
                if failure is not None:
                    raise failure

    async def _pour(self, items: AsyncIterator[Item], texts: list[str]) -> ModelError | None:
        def sink(text: str) -> bool:
            texts.append(text)
            return len(texts) < self.most

        try:
            await pour(items, sink)
        except ModelError as error:
            return error
        return None
