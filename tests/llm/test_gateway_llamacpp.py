"""A real llama.cpp with one slot, and four who ask."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from llm.catalogue import Builder, build, parse
from llm.gateway import Gateway, open_gateway
from llm.local import LocalModel
from llm.provider import Queued, Request, Usage
from tests.llm.scripted import ask
from tests.models import write_model

pytestmark = pytest.mark.llamacpp

PATIENCE = 20.0  # s of real time, on a machine that has much else to do
LONG = 3900  # tokens: seconds of this model's work


@asynccontextmanager
async def one_slot(path: Path) -> AsyncIterator[tuple[Gateway, LocalModel]]:
    text = f'[[model]]\nname = "tiny"\nprovider = "local"\nfile = "{path.name}"\n'
    [entry] = parse(text + "limits = { calls = 1 }").entries
    tiny = build(entry, Builder({}, path.parent))
    assert isinstance(tiny.provider, LocalModel)
    async with tiny.provider.running(), open_gateway([tiny]) as gateway:
        yield gateway, tiny.provider


async def busy(local: LocalModel) -> int:
    """How many of its slots are at work."""
    headers = {"authorization": f"Bearer {local.key}"}
    async with httpx.AsyncClient(
        base_url=local.address, trust_env=False, headers=headers
    ) as client:
        slots = (await client.get("/slots")).json()
    assert len(slots) == 1
    return sum(slot["is_processing"] for slot in slots)


async def until(check: Callable[[], object]) -> None:
    """Wait for it; the caller has a deadline."""
    while not check():  # noqa: ASYNC110 - nothing tells of it, and other tasks never rest
        await trio.sleep(0.001)


class Asker:
    """Listens until told to stop, and keeps what it is told."""

    def __init__(self, number: int) -> None:
        self.positions: list[int] = []
        self.begun = trio.Event()
        self.usage: Usage | None = None
        self.scope = trio.CancelScope()
        self._request = ask(f"Tell story {number}.", asker=f"a{number}", max_tokens=LONG)

    def is_in(self) -> bool:
        return bool(self.positions) or self.begun.is_set()

    async def listen(self, gateway: Gateway) -> None:
        with self.scope:
            async with gateway.stream(self._request) as items:
                async for item in items:
                    match item:
                        case Queued(position):
                            self.positions.append(position)
                        case str():
                            self.begun.set()
                        case Usage():
                            self.usage = item


async def test_four_askers_of_one_slot(llamacpp: None, tmp_path: Path) -> None:
    # Slow enough that no reply fills its slot's context, and so ends, before the test is over.
    slow = write_model(tmp_path / "slow.gguf", layers=6, width=256)
    askers = [Asker(number) for number in range(4)]
    async with one_slot(slow) as (gateway, local):
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for asker in askers:
                    nursery.start_soon(asker.listen, gateway)
                    await until(asker.is_in)
                assert [asker.positions for asker in askers] == [[], [1], [2], [3]]
                assert await busy(local) == 1
                askers[2].scope.cancel()  # leaves the queue
                await until(lambda: askers[3].positions == [3, 2])
                assert [asker.positions for asker in askers[:3]] == [[], [1], [2]]
                askers[0].scope.cancel()  # stops the model, and makes room for the next
                await askers[1].begun.wait()
                assert await busy(local) == 1
                askers[1].scope.cancel()
                await askers[3].begun.wait()
                assert askers[3].positions == [3, 2, 1]
                askers[3].scope.cancel()
            await wait_all_tasks_blocked()
            assert (gateway.calls, gateway.status()[0].calls) == (0, 0)
            while await busy(local):  # noqa: ASYNC110 - another process tells us nothing
                await trio.sleep(0.01)


async def test_real_replies_come_one_after_the_other(brief_model: Path) -> None:
    async with one_slot(brief_model) as (gateway, _):
        ends: list[Usage] = []

        async def listen(number: int) -> None:
            request = Request.of(f"Tell story {number}.", asker=f"a{number}")
            async with gateway.stream(request) as items:
                ends.extend([item async for item in items if isinstance(item, Usage)])

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(listen, number)
    assert [usage.finish for usage in ends] == ["stop"] * 4
