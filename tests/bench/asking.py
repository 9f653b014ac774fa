"""The programs that gateway.py measures: they ask a source and do nothing with the tokens.

`python -m tests.bench.asking HOW SOURCE_PORT ASKERS RATE TOKENS`, where HOW is

- `provider`: each asker has a stream of its own, through our provider alone;
- `gateway`: the same through the gateway;
- `shared`: all askers ask the gateway the same, which is one call;
- `fanout`: one asks the gateway, and for each text wakes the others, who wait for it in the
  least async iterator that there can be.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from llm.call import Model
from llm.gateway import open_gateway
from llm.openai import OpenAI
from llm.provider import ChatMessage, Provider, Request


async def listen(provider: Provider, prompt: str) -> None:
    """Read one reply to its end."""
    async with provider.stream(Request((ChatMessage("user", prompt),))) as items:
        async for _ in items:
            pass


async def separate(provider: Provider, askers: int, what: str) -> None:
    """Each asks something else."""
    async with trio.open_nursery() as nursery:
        for number in range(askers):
            nursery.start_soon(listen, provider, f"{number} {what}")


async def shared(provider: Provider, askers: int, what: str) -> None:
    """All ask the same."""
    async with trio.open_nursery() as nursery:
        for _ in range(askers):
            nursery.start_soon(listen, provider, what)


async def fanout(provider: Provider, askers: int, what: str) -> None:
    """One asks, and wakes the others for each text."""
    lot = trio.lowlevel.ParkingLot()

    async def texts() -> AsyncGenerator[str, None]:
        while True:
            await lot.park()
            yield ""

    async def see() -> None:
        async with aclosing(texts()) as items:
            async for _ in items:
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(askers):
            nursery.start_soon(see)
        async with provider.stream(Request((ChatMessage("user", what),))) as items:
            async for _ in items:
                lot.unpark_all()
        nursery.cancel_scope.cancel()


async def main(how: str, port: int, askers: int, rate: int, tokens: int) -> None:
    """Do it."""
    provider = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", model="m")
    what = f"rate={rate} tokens={tokens}"
    if how == "provider":
        await separate(provider, askers, what)
        await provider.aclose()
        return
    ways = {"gateway": separate, "shared": shared, "fanout": fanout}
    async with open_gateway([Model("m", provider)]) as gateway:
        await ways[how](gateway, askers, what)


if __name__ == "__main__":
    source_port, count, tokens_a_second, length = map(int, sys.argv[2:])
    trio.run(main, sys.argv[1], source_port, count, tokens_a_second, length)
    print("done", flush=True)
