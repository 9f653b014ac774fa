"""Waits for sockets in rounds: nothing that comes is forgotten, and nothing waits for long."""

import os
import socket
from collections.abc import Iterator

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from llm import rounds
from llm.rounds import Watch, reading_in_rounds, watching

PAUSE = 0.25
"""What the tests here set; by the test clock, so as long as they like."""


@pytest.fixture(autouse=True)
def pause(monkeypatch: pytest.MonkeyPatch, no_pause_between_rounds: None) -> None:
    monkeypatch.setattr(rounds, "PAUSE", PAUSE)


@define
class Pair:
    """A connection: `far` writes, `near` is what is watched."""

    far: socket.socket
    near: socket.socket
    watch: Watch | None = None
    came: list[tuple[float, bytes]] = field(factory=list)

    async def read(self, size: int = 100) -> bytes:
        """Do what a reader does: wait, read, and say so if there may be more."""
        self.watch = self.watch or watching(self.near.fileno())
        while True:
            await self.watch.readable()
            try:
                data = os.read(self.near.fileno(), size)
            except BlockingIOError:
                continue
            if len(data) == size:
                self.watch.more()
            return data

    async def read_on(self) -> None:
        while data := await self.read():
            self.came.append((trio.current_time(), data))


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [Pair(*socket.socketpair()) for _ in range(3)]
    for one in made:
        one.near.setblocking(False)
    yield made
    for one in made:
        one.far.close()
        one.near.close()


@pytest.fixture
def pair(pairs: list[Pair]) -> Pair:
    return pairs[0]


async def test_the_first_bytes_are_there_at_once_and_others_after_the_pause(
    pairs: list[Pair], autojump_clock: object
) -> None:
    start = trio.current_time()
    async with reading_in_rounds(), trio.open_nursery() as nursery:
        for one in pairs:
            nursery.start_soon(one.read_on)
        await wait_all_tasks_blocked()
        first, second, third = pairs
        first.far.send(b"a")
        await trio.sleep(0.1 * PAUSE)
        second.far.send(b"b")
        await trio.sleep(0.1 * PAUSE)
        first.far.send(b"c")
        second.far.send(b"d")
        await trio.sleep(10 * PAUSE)
        third.far.send(b"e")
        await trio.sleep(10 * PAUSE)
        nursery.cancel_scope.cancel()
    assert first.came == [(start, b"a"), (start + PAUSE, b"c")]
    assert second.came == [(start + PAUSE, b"bd")]
    [(late, data)] = third.came
    assert late - start == pytest.approx(10.2 * PAUSE)
    assert data == b"e"


async def test_bytes_that_come_while_nobody_waits_are_kept(
    pair: Pair, autojump_clock: object
) -> None:
    async with reading_in_rounds():
        pair.far.send(b"a")
        assert await pair.read() == b"a"
        pair.far.send(b"b")
        await trio.sleep(10 * PAUSE)
        assert await pair.read() == b"b"


async def test_bytes_that_a_read_leaves_are_read_by_the_next(
    pair: Pair, autojump_clock: object
) -> None:
    async with reading_in_rounds():
        pair.far.send(b"abcd")
        assert [await pair.read(2), await pair.read(2)] == [b"ab", b"cd"]
        with trio.move_on_after(10 * PAUSE) as waited:
            await pair.read(2)
        assert waited.cancelled_caught
        pair.far.send(b"e")
        assert await pair.read(2) == b"e"


async def test_an_end_that_came_with_the_last_bytes_is_seen(
    pair: Pair, autojump_clock: object
) -> None:
    async with reading_in_rounds():
        pair.watch = watching(pair.near.fileno())
        pair.far.send(b"last")
        pair.far.close()
        with trio.fail_after(10 * PAUSE):
            assert [await pair.read(), await pair.read(), await pair.read()] == [b"last", b"", b""]


async def test_who_stopped_waiting_may_wait_again(pair: Pair, autojump_clock: object) -> None:
    async with reading_in_rounds():
        for _ in range(2):
            with trio.move_on_after(PAUSE):
                await pair.read()
        pair.far.send(b"a")
        assert await pair.read() == b"a"


async def test_bytes_that_are_there_are_no_way_round_a_cancellation(
    pair: Pair, autojump_clock: object
) -> None:
    async with reading_in_rounds():
        pair.far.send(b"abcd")
        assert await pair.read(2) == b"ab"
        with trio.CancelScope() as scope:
            scope.cancel()
            await pair.read(2)
        assert scope.cancelled_caught


async def closed(pair: Pair) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await pair.read()


async def test_who_waits_is_told_that_its_socket_was_closed(
    pairs: list[Pair], autojump_clock: object
) -> None:
    async with reading_in_rounds():
        async with trio.open_nursery() as nursery:
            for one in pairs[:2]:
                nursery.start_soon(closed, one)
            await wait_all_tasks_blocked()
            for one in pairs[:2]:
                assert one.watch is not None
                one.watch.stop()
                one.watch.stop()
        # The next socket has the number of one that was watched before.
        number = pairs[0].near.fileno()
        pairs[0].near.close()
        pairs[0].near, far = socket.socketpair()
        assert pairs[0].near.fileno() == number
        pairs[0].near.setblocking(False)
        pairs[0].watch = None
        with far:
            far.send(b"new")
            assert await pairs[0].read() == b"new"
        await closed(pairs[1])


async def test_reading_may_be_left_to_who_looks(pairs: list[Pair], autojump_clock: object) -> None:
    pair, other = pairs[:2]
    found: list[tuple[float, bytes]] = []

    def read() -> bool:
        found.append((trio.current_time() - start, pair.near.recv(100)))
        return len(found) < 2

    async with reading_in_rounds(), trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(other.read_on)
        pair.watch = watching(pair.near.fileno())
        nursery.start_soon(pair.watch.pour, read)
        for data in (b"a", b"b", b"c"):
            await trio.sleep(2 * PAUSE)
            pair.far.send(data)
            other.far.send(data)
        await trio.sleep(2 * PAUSE)
        assert await pair.read() == b"c"
        nursery.cancel_scope.cancel()
    assert found == [(2 * PAUSE, b"a"), (4 * PAUSE, b"b")]
    assert b"".join(data for _, data in other.came) == b"abc"


async def test_who_left_it_to_others_is_woken_at_the_end(
    pair: Pair, autojump_clock: object
) -> None:
    async with reading_in_rounds():
        pair.watch = watching(pair.near.fileno())
        with trio.fail_after(10 * PAUSE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.watch.pour, lambda: bool(pair.near.recv(100)))
                await wait_all_tasks_blocked()
                pair.far.send(b"last")
                pair.far.close()
            assert await pair.read() == b""


async def test_who_left_it_to_others_is_told_that_it_was_closed(
    pair: Pair, autojump_clock: object
) -> None:
    async def wait(watch: Watch) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await watch.pour(lambda: True)

    async with reading_in_rounds(), trio.open_nursery() as nursery:
        watch = watching(pair.near.fileno())
        nursery.start_soon(wait, watch)
        await wait_all_tasks_blocked()
        watch.stop()


async def test_leaving_wakes_who_waits(pair: Pair, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        async with reading_in_rounds():
            nursery.start_soon(closed, pair)
            await wait_all_tasks_blocked()
    assert isinstance(watching(pair.far.fileno()), rounds._Direct)


async def test_within_each_other(pairs: list[Pair], autojump_clock: object) -> None:
    async with reading_in_rounds():
        async with reading_in_rounds():
            pairs[0].far.send(b"a")
            assert await pairs[0].read() == b"a"
        pairs[1].far.send(b"b")
        assert await pairs[1].read() == b"b"


@pytest.mark.parametrize("rounds_", [True, False])
async def test_without_epoll_the_waits_are_trios(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, rounds_: bool, autojump_clock: object
) -> None:
    if rounds_:
        monkeypatch.delattr("select.epoll")
        async with reading_in_rounds():
            pair.far.send(b"abc")
            assert [await pair.read(2), await pair.read(2)] == [b"ab", b"c"]
    else:
        pair.far.send(b"abc")
        assert [await pair.read(2), await pair.read(2)] == [b"ab", b"c"]
    assert isinstance(pair.watch, rounds._Direct)
    pair.watch.stop()
