import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from llm.function import MAX_THREADS, FunctionModel
from llm.provider import Provider, Request, SetupError, Timeouts
from tests.contracts.providers import ASK, TEXTS, ProviderContract, all_of, error_of

PATIENCE = 5.0  # s of real time; a thread that was told to end has ended long before


async def speak(request: Request) -> AsyncIterator[str]:
    for text in TEXTS:
        await trio.lowlevel.checkpoint()
        yield text


def speak_plainly(request: Request) -> Iterator[str]:
    yield from TEXTS


class TestAsyncFunction(ProviderContract):
    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Provider]:
        yield FunctionModel(speak)


class TestPlainFunction(ProviderContract):
    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Provider]:
        yield FunctionModel(speak_plainly)


async def test_gets_the_question() -> None:
    seen = []

    async def keep(request: Request) -> AsyncIterator[str]:
        seen.append(request)
        yield ""
        yield request.prompt

    assert (await all_of(FunctionModel(keep)))[0] == [ASK.prompt]
    assert seen == [ASK]


async def test_is_closed_when_the_reply_is_left() -> None:
    ends = []

    async def endless(request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "and "
        finally:
            await trio.lowlevel.checkpoint()  # it may wait a little, even if cancelled
            ends.append("closed")

    with trio.CancelScope() as scope:
        async with FunctionModel(endless).stream(ASK) as items:
            async for _ in items:
                scope.cancel()
                break
    assert ends == ["closed"]


async def test_one_that_does_not_want_to_close_is_not_waited_for(autojump_clock: object) -> None:
    async def clinging(request: Request) -> AsyncIterator[str]:
        try:
            yield "still "
        finally:
            await trio.sleep_forever()

    async with FunctionModel(clinging).stream(ASK) as items:
        async for _ in items:
            break


async def test_its_own_error_becomes_a_sentence() -> None:
    async def failing(request: Request) -> AsyncIterator[str]:
        yield "Half"
        raise ValueError("the password is 1234")

    text, error = await error_of(FunctionModel(failing))
    assert (text, error.fault) == ("Half", "broken")
    assert "1234" not in str(error)
    assert "1234" in error.detail


async def test_an_error_while_it_is_closed_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(request: Request) -> AsyncIterator[str]:
        try:
            yield "x"
        finally:
            raise ValueError("no")

    async with FunctionModel(failing).stream(ASK) as items:
        async for _ in items:
            break
    assert "while it was closed" in caplog.text


async def test_what_is_no_text_is_garbled() -> None:
    async def counting(request: Request) -> AsyncIterator[int]:
        yield 1

    _, error = await error_of(FunctionModel(counting))
    assert error.fault == "garbled"
    assert "not int" in str(error)


@pytest.mark.parametrize(("before", "seconds"), [(0, 5), (1, 2)])
async def test_silence_is_bounded(before: int, seconds: float, autojump_clock: object) -> None:
    async def falling_silent(request: Request) -> AsyncIterator[str]:
        for _ in range(before):
            yield "x"
        await trio.sleep_forever()

    start = trio.current_time()
    model = FunctionModel(falling_silent, timeouts=Timeouts(first=5, between=2))
    assert (await error_of(model))[1].fault == "stalled"
    assert trio.current_time() - start == pytest.approx(seconds)


async def test_leaving_does_not_wait_for_a_thread_that_is_busy() -> None:
    go_on, closed = threading.Event(), threading.Event()

    def busy(request: Request) -> Iterator[str]:
        try:
            yield "one"
            go_on.wait(PATIENCE)
            yield "two"
        finally:
            closed.set()

    model = FunctionModel(busy)
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with model.stream(ASK) as items, trio.open_nursery() as nursery:
            assert await anext(aiter(items)) == "one"
            nursery.start_soon(anext_of, items)
            await trio.testing.wait_all_tasks_blocked(0.01)
            scope.cancel()
    assert not closed.is_set()
    go_on.set()
    assert await trio.to_thread.run_sync(closed.wait, PATIENCE)


async def anext_of(items: AsyncIterator[object]) -> None:
    await anext(items)


async def test_threads_are_bounded() -> None:
    lock = threading.Lock()
    running = most = 0

    def slow(request: Request) -> Iterator[str]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        yield "x"

    model = FunctionModel(slow)
    async with trio.open_nursery() as nursery:
        for _ in range(4 * MAX_THREADS):
            nursery.start_soon(all_of, model)
    assert 1 <= most <= MAX_THREADS


def test_what_is_no_generator_is_refused() -> None:
    async def answer(request: Request) -> str:
        return "x"

    functions: list[Callable[[Request], object]] = [answer, lambda request: "x"]
    for function in functions:
        with pytest.raises(SetupError, match="must be a generator function"):
            FunctionModel(function)


MODULE = """
async def answer(request):
    yield request.prompt
    yield "!"

def number(request):
    return 7

word = "x"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_own_model.py").write_text(MODULE)
    (tmp_path / "my_broken_model.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    return tmp_path


async def test_is_found_in_the_working_directory(here: Path) -> None:
    model = FunctionModel.load("my_own_model:answer")
    texts, usage = await all_of(model)
    assert texts == [ASK.prompt, "!"]
    assert usage.model == model.model == "my_own_model:answer"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_missing_model:answer", "No module named"),
        ("my_broken_model:answer", "ZeroDivisionError"),
        ("my_own_model:missing", "no function 'missing'"),
        ("my_own_model:word", "no function 'word'"),
        ("my_own_model:number", "generator function"),
        ("my_own_model:", "no function ''"),
        (":answer", "fails"),
    ],
)
def test_what_cannot_be_loaded_is_said_clearly(here: Path, name: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        FunctionModel.load(name)


async def test_the_example_of_the_docs_works() -> None:
    docs = await trio.Path(__file__).parents[2].joinpath("docs/models.md").read_text()
    names: dict[str, Callable[[Request], object]] = {}
    exec(docs.partition("```python\n")[2].partition("```")[0], names)
    texts, _ = await all_of(FunctionModel(names["answer"]), Request.of("oh well"))
    assert "".join(texts).strip() == "You said: oh well"


async def test_nothing_is_left_to_the_garbage_collector() -> None:
    async with FunctionModel(speak).stream(ASK) as items:
        async for _ in items:
            break
    gc.collect()
