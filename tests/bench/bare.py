"""The reference of streams.py: httpx on trio that reads streams and does nothing with them.

`python -m tests.bench.bare SOURCE_PORT STREAMS RATE TOKENS [fast]` reads that many streams at
once; with `fast`, over our own transport.
"""

import sys
from functools import partial

import httpx
import trio

from llm.transport import Transport


async def read(client: httpx.AsyncClient, prompt: str) -> None:
    """Read one reply to its end."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_raw():
            pass


async def main(port: int, streams: int, rate: int, tokens: int, *, fast: bool) -> None:
    """Read all, each in its own task."""
    limits = httpx.Limits(max_connections=streams)
    base = f"http://127.0.0.1:{port}"
    transport = Transport(limits=limits) if fast else None
    async with (
        httpx.AsyncClient(base_url=base, limits=limits, timeout=60, transport=transport) as client,
        trio.open_nursery() as nursery,
    ):
        for _ in range(streams):
            nursery.start_soon(read, client, f"rate={rate} tokens={tokens}")


if __name__ == "__main__":
    source_port, streams, rate, tokens = map(int, sys.argv[1:5])
    trio.run(partial(main, source_port, streams, rate, tokens, fast="fast" in sys.argv))
    print("done", flush=True)
