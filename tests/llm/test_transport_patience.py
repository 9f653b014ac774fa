"""How long a reply is waited for: one deadline for all of it, which signs of life move on."""

from itertools import count

import pytest
import trio

from llm.openai import OpenAI
from llm.provider import Item, ModelError, Timeouts, Usage
from tests.contracts.providers import ASK, all_of
from tests.llm.peers import Peer, Play, Stream, peer, until_closed
from tests.llm.servers import LAST_CHUNK, chunk, head
from tests.llm.test_openai import ChatDialect

pytestmark = pytest.mark.parametrize("kind", ["fast", "stock"])

DIALECT = ChatDialect()
BETWEEN = Timeouts().between


def every(seconds: float, *, texts: int | None) -> Play:
    """Send a text every so often, then the end; without end if `texts` is None."""

    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        await stream.send_all(head())
        for number in count():
            if number == texts:
                break
            await trio.sleep(seconds)
            await stream.send_all(chunk(DIALECT.text(f"{number} ")))
        await stream.send_all(chunk(DIALECT.end()) + LAST_CHUNK)
        await until_closed(stream)

    return play


async def test_a_slow_model_is_waited_for(autojump_clock: object, kind: str) -> None:
    async with peer(every(BETWEEN - 1, texts=20)) as server:
        provider = OpenAI(base_url=server.url, transport=kind)  # type: ignore[arg-type]
        texts, usage = await all_of(provider)
        assert (len(texts), usage.finish) == (20, "stop")
        assert usage.seconds == pytest.approx(20 * (BETWEEN - 1), abs=1)
        await provider.aclose()


async def test_a_reader_may_take_its_time(autojump_clock: object, kind: str) -> None:
    async with peer(every(0.1, texts=20)) as server:
        provider = OpenAI(base_url=server.url, transport=kind)  # type: ignore[arg-type]
        items: list[Item] = []
        async with provider.stream(ASK) as stream:
            async for item in stream:
                items.append(item)
                # After the end there is nothing that a reader could be late for.
                await trio.sleep(1000 if isinstance(item, Usage) else BETWEEN - 1)
        assert isinstance(items[-1], Usage)
        await provider.aclose()


async def test_a_late_first_text_leaves_no_less_time(autojump_clock: object, kind: str) -> None:
    async with peer(every(Timeouts().first - 1, texts=1)) as server:
        provider = OpenAI(base_url=server.url, transport=kind)  # type: ignore[arg-type]
        async with provider.stream(ASK) as stream:
            items: list[Item] = []
            async for item in stream:
                items.append(item)
                await trio.sleep(BETWEEN - 1)
        assert len(items) == 2
        await provider.aclose()


async def test_a_reader_that_takes_nothing_is_cut_off(autojump_clock: object, kind: str) -> None:
    """As long as a model may be silent, and hardly longer: it holds a call of the model."""
    async with peer(every(0.1, texts=None)) as server:
        provider = OpenAI(base_url=server.url, transport=kind)  # type: ignore[arg-type]
        start = trio.current_time()
        with pytest.raises(ModelError) as caught:
            async with provider.stream(ASK) as stream:
                async for _ in stream:
                    await trio.sleep_forever()
        assert caught.value.fault == "stalled"
        assert trio.current_time() - start == pytest.approx(BETWEEN, abs=1)
        await trio.sleep(1)  # the peer looks at its connection when it writes
        await server.all_closed()
        await provider.aclose()
