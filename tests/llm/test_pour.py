"""The shorter way of a token (`llm.provider.pour`): ends, errors, stops, and who else is there."""

from collections.abc import Callable

import httpx
import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from llm.call import Model
from llm.gateway import Gateway, GatewaySettings, open_gateway
from llm.openai import OpenAI
from llm.provider import ModelError, Usage, pour
from llm.transport import body_of
from llm.transport_wire import MAX_READ
from tests.contracts.providers import ASK, all_of
from tests.llm.peers import Peer, Play, Stream, answering, client, peer, until_closed
from tests.llm.poured import Poured
from tests.llm.scripted import FOREVER, Scripted, ask, error, hear, model
from tests.llm.servers import serving
from tests.llm.test_openai import ChatDialect
from tests.llm.test_transport_patience import BETWEEN, every

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LENGTHY = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


# ── from the connection ──────────────────────────────────────────────────────────────────


@define
class Parts:
    """What was poured, and what came by iteration, of one response."""

    poured: list[bytes] = field(factory=list)
    iterated: list[bytes] = field(factory=list)
    enough: int = 1_000_000
    error: httpx.HTTPError | None = None

    def take(self, part: bytes) -> bool:
        self.poured.append(part)
        return len(self.poured) < self.enough

    async def read(self, play: Play, kind: str = "rounds") -> None:
        async with peer(play) as server, client(kind) as asker:
            async with asker.stream("GET", server.url) as response:
                body = body_of(response)
                assert body is not None
                try:
                    await body.pour(self.take)
                    async for part in body:
                        self.iterated.append(part)
                except httpx.HTTPError as error:
                    self.error = error


async def test_parts_are_poured_to_the_end() -> None:
    parts = Parts()
    await parts.read(answering(CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n"))
    assert (parts.poured, parts.iterated) == ([b"a", b"b", b"c"], [])


async def test_who_has_enough_gets_the_rest_by_iteration() -> None:
    parts = Parts(enough=1)
    await parts.read(answering(CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n"))
    assert (parts.poured, parts.iterated) == ([b"a"], [b"b"])


async def test_waits_that_are_trios_have_no_shorter_way() -> None:
    parts = Parts()
    await parts.read(answering(CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n"), kind="fast")
    assert (parts.poured, parts.iterated) == ([], [b"a"])


async def test_the_end_of_a_connection_is_the_end() -> None:
    parts = Parts()
    await parts.read(answering(b"HTTP/1.0 200 OK\r\n\r\n", b"a", b"b", end=True))
    assert b"".join(parts.poured + parts.iterated) == b"ab"
    assert b"a" in parts.poured


@pytest.mark.parametrize("size", [MAX_READ, 3 * MAX_READ + 1, 100 * MAX_READ + 1])
async def test_much_at_once_comes_whole(size: int) -> None:
    parts = Parts()
    await parts.read(answering(LENGTHY % size, b"x" * size))
    assert sum(map(len, parts.poured + parts.iterated)) == size


@pytest.mark.parametrize("then", [b"no chunk", None])
async def test_what_is_wrong_is_raised_once_the_parts_before_it_are_out(
    then: bytes | None,
) -> None:
    parts = Parts()
    pieces = [CHUNKED, b"1\r\na\r\n", *([then] if then else [])]
    await parts.read(answering(*pieces, end=True))
    assert parts.poured == [b"a"]
    assert isinstance(parts.error, httpx.RemoteProtocolError)


async def test_what_the_taker_raises_is_its_own_and_nobody_elses() -> None:
    class Mine(Exception):
        pass

    def fail(part: bytes) -> bool:
        raise Mine

    async def read(take: Callable[[bytes], bool]) -> None:
        async with asker.stream("GET", server.url) as response:
            body = body_of(response)
            assert body is not None
            await body.pour(take)

    async def failing() -> None:
        with pytest.raises(Mine):
            await read(fail)

    other = Parts()
    pieces = (CHUNKED, b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n")
    async with peer(answering(*pieces)) as server, client("rounds") as asker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            nursery.start_soon(read, other.take)
    assert other.poured == [b"a", b"b"]


async def test_leaving_while_it_is_poured_closes_the_connection() -> None:
    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        await stream.send_all(CHUNKED + b"1\r\na\r\n")
        await until_closed(stream)

    parts = Parts()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.read, play)
            while not (parts.poured or parts.iterated):
                await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


# ── from a model ─────────────────────────────────────────────────────────────────────────


async def test_a_slow_model_is_waited_for(autojump_clock: object) -> None:
    async with serving(), peer(every(BETWEEN - 1, texts=20)) as server:
        provider = Poured(OpenAI(base_url=server.url))
        texts, usage = await all_of(provider)
        assert (len(texts), provider.poured, usage.finish) == (20, 19, "stop")
        await provider.aclose()


async def test_all_of_a_reply_may_be_poured(autojump_clock: object) -> None:
    texts: list[str] = []

    def sink(text: str) -> bool:
        texts.append(text)
        return True

    async with serving(), peer(every(1, texts=3)) as server:
        provider = OpenAI(base_url=server.url)
        async with provider.stream(ASK) as items:
            await pour(items, sink)
            rest = [item async for item in items]
        await provider.aclose()
    assert texts == ["0 ", "1 ", "2 "]
    [usage] = rest
    assert isinstance(usage, Usage)
    assert usage.seconds_to_first == pytest.approx(1, abs=0.1)
    assert usage.output_tokens == 5


async def test_a_model_that_falls_silent_is_given_up(autojump_clock: object) -> None:
    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        text = ChatDialect().text
        for piece in (CHUNKED, *(b"%x\r\n%s\r\n" % (len(t), t) for t in map(text, "abc"))):
            await stream.send_all(piece)
            await wait_all_tasks_blocked()
        await until_closed(stream)

    async with serving(), peer(play) as server:
        provider = Poured(OpenAI(base_url=server.url))
        start = trio.current_time()
        with pytest.raises(ModelError) as caught:
            await all_of(provider)
        assert caught.value.fault == "stalled"
        assert trio.current_time() - start == pytest.approx(BETWEEN, abs=1)
        await provider.aclose()


async def test_a_reply_without_end_is_ended() -> None:
    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        await stream.send_all(CHUNKED)
        text = ChatDialect().text("word " * 10)
        while True:
            await stream.send_all(b"%x\r\n%s\r\n" % (len(text), text))

    settings = GatewaySettings(reply_chars=1000)
    async with peer(play) as server:
        one = Model("m", OpenAI(base_url=server.url))
        async with open_gateway([one], settings) as gateway:
            heard = await hear(gateway, ask())
    assert heard.error is not None
    assert (heard.error.fault, len(heard.text) <= 1000) == ("garbled", True)


# ── from a flight ────────────────────────────────────────────────────────────────────────

WORDS = ("a", 1.0, "b", 1.0, "c", 1.0, "d", Usage("m"))


@define
class Listener:
    """Somebody who has texts poured, `enough` of them at most at a time."""

    enough: int = 1_000_000
    fail_at: str = ""
    pause: float = 0
    texts: list[tuple[float, str]] = field(factory=list)
    iterated: list[str] = field(factory=list)
    end: object = None

    def sink(self, text: str) -> bool:
        if text == self.fail_at:
            raise ValueError(text)
        self.texts.append((trio.current_time(), text))
        return len(self.texts) % self.enough != 0

    async def listen(self, gateway: Gateway) -> None:
        try:
            async with gateway.stream(ask()) as items:
                async for item in items:
                    if isinstance(item, str):
                        self.iterated.append(item)
                        await trio.sleep(self.pause)
                        await pour(items, self.sink)
                    self.end = item
        except (ModelError, ValueError) as failure:
            self.end = failure

    @property
    def words(self) -> str:
        return "".join(text for _, text in self.texts)


async def test_each_listener_has_its_own_way(autojump_clock: object) -> None:
    poured, sated, broken = Listener(), Listener(enough=1), Listener(fail_at="c")
    async with open_gateway([model(Scripted(WORDS))]) as gateway:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one in (poured, sated, broken):
                nursery.start_soon(one.listen, gateway)
            await trio.sleep(1.5)
            late = Listener()
            nursery.start_soon(late.listen, gateway)
    assert poured.iterated == ["a"]
    assert poured.texts == [(start + 1, "b"), (start + 2, "c"), (start + 3, "d")]
    assert isinstance(poured.end, Usage)
    assert (sated.iterated, sated.words) == (["a", "c"], "bd")
    assert isinstance(sated.end, Usage)
    assert (broken.words, type(broken.end)) == ("b", ValueError)
    assert (late.iterated, late.words) == (["ab"], "cd")
    assert isinstance(late.end, Usage)


async def test_what_came_in_the_meantime_is_not_passed_over(autojump_clock: object) -> None:
    busy, late = Listener(pause=1.6), Listener(pause=9)
    async with open_gateway([model(Scripted(WORDS))]) as gateway:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy.listen, gateway)
            nursery.start_soon(late.listen, gateway)
    assert (busy.iterated, busy.words) == (["a", "b", "cd"], "")
    assert (late.iterated, late.words) == (["a", "bcd"], "")
    assert isinstance(busy.end, Usage)
    assert isinstance(late.end, Usage)


async def test_an_error_ends_the_pouring(autojump_clock: object) -> None:
    one = Listener()
    async with open_gateway([model(Scripted(("a", 1.0, "b", 1.0, error("cut"))))]) as gateway:
        await one.listen(gateway)
    assert one.words == "b"
    assert isinstance(one.end, ModelError)
    assert one.end.fault == "cut"


async def test_who_leaves_while_it_is_poured_stops_the_call(autojump_clock: object) -> None:
    provider = Scripted(("a", 1.0, "b", FOREVER))
    one, other = Listener(), Listener()
    async with open_gateway([model(provider)]) as gateway, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def listen(who: Listener, scope: trio.CancelScope) -> None:
            with scope:
                await who.listen(gateway)

        nursery.start_soon(listen, one, scopes[0])
        nursery.start_soon(listen, other, scopes[1])
        await trio.sleep(2)
        scopes[0].cancel()
        await wait_all_tasks_blocked()
        assert provider.open == 1
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert provider.open == 0
    assert one.words == other.words == "b"


async def test_one_who_makes_another_go_while_it_is_given_a_text(autojump_clock: object) -> None:
    one, other = Listener(), Listener()
    async with open_gateway([model(Scripted(WORDS))]) as gateway, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        class Rude(Listener):
            def sink(self, text: str) -> bool:
                if text == "c":
                    scope.cancel()
                return super().sink(text)

        async def listen() -> None:
            with scope:
                await other.listen(gateway)

        rude = Rude()
        nursery.start_soon(rude.listen, gateway)
        await wait_all_tasks_blocked()
        nursery.start_soon(listen)
        nursery.start_soon(one.listen, gateway)
    assert (rude.words, one.words, other.words) == ("bcd", "bcd", "b")
