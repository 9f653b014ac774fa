"""Bodies over HTTP: left unread, too big, too slow, broken, and asked for with 100-continue."""

import pytest
import trio
import trio.testing

from hub.web.asgi import Message, Receive, Send
from hub.web.http import serve_connection
from hub.web.messages import KIB, MIB, HttpLimits, Peer
from hub.web.transport import PeerGone, Transport
from tests.web.raw import CHUNKED, Client, hello, measure, post, serving, site, talking

# The unread rest of a body


async def test_unread_body_is_drained_before_the_next_request() -> None:
    async with serving(site()) as connect:
        client = await connect()
        await client.send(post(100_000, "/1") + b"x" * 60_000)
        first = await client.response()  # answered while the body is still on its way
        await client.send(b"x" * 40_000)
        assert (first.body, (await client.get("/2")).body) == (b"POST /1", b"GET /2")


async def test_too_much_unread_body_closes_and_the_answer_survives() -> None:
    async with serving(site(max_body=lambda _: 100 * MIB)) as connect:
        client = await connect()
        await client.send(post(8 * MIB))
        for _ in range(128):  # a reset in here would fail a write, or lose the answer
            await client.send(bytes(64 * KIB))
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_undeclared_unread_body_is_drained_to_a_limit() -> None:
    async with serving(site()) as connect:
        client = await connect()
        await client.send(CHUNKED)
        assert (await client.response()).status == 200
        piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
        for _ in range(64):
            await client.send(piece)
        await client.send(b"0\r\n\r\nGET /never HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.rest() == b""


async def test_draining_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(site()) as client:
        await client.send(post(10) + b"12345")
        assert (await client.response()).status == 200
        assert await client.rest() == b""
        assert trio.current_time() == HttpLimits().drain_seconds


async def test_lingering_has_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(site()) as client:
        await client.send(b"?\r\n\r\n")
        assert (await client.response()).status == 400
        seconds = int(HttpLimits().linger_seconds)
        for _ in range(seconds):
            await client.send(b"more")
            await trio.sleep(1)
        await trio.sleep(0.5)
        with pytest.raises(trio.BrokenResourceError):
            await client.send(b"more")


async def test_lingering_ends_when_the_peer_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, site(), Peer())
        client = Client(ours)
        await client.send(b"?\r\n\r\n")
        assert (await client.response()).status == 400
        await ours.send_eof()
    assert trio.current_time() == 0


@pytest.mark.parametrize("cut", ["deadline", "cancelled"])
async def test_a_write_that_is_cut_short_destroys_the_stream(
    cut: str, autojump_clock: trio.testing.MockClock
) -> None:
    _ours, theirs = trio.testing.lockstep_stream_pair()
    transport = Transport(theirs, HttpLimits())
    if cut == "deadline":
        with pytest.raises(PeerGone):
            await transport.write(b"never read")
    else:
        with trio.move_on_after(1):
            await transport.write(b"never read")
    with pytest.raises(trio.ClosedResourceError):
        await theirs.send_all(b"more")


# Bodies that are too big, too slow, or broken


async def test_declared_body_over_the_limit_is_413_at_once() -> None:
    async with serving(site(measure, max_body=lambda _: 10)) as connect:
        client = await connect()
        await client.send(post(11))
        response = await client.response()
        assert (response.status, response.code) == (413, "too_large")
        await (client := await connect()).send(post(10) + b"0123456789")
        assert (await client.response()).body == b"10"


async def test_undeclared_body_over_the_limit_is_413_while_it_is_read() -> None:
    seen = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal seen
        try:
            while True:
                seen += len((await receive())["body"])
        except Exception:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise

    async with serving(site(app, max_body=lambda _: MIB)) as connect:
        client = await connect()
        await client.send(CHUNKED)
        piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
        for _ in range(400):
            await client.send(piece)
        assert (await client.response()).status == 413
    assert seen <= MIB


async def test_limit_may_depend_on_the_request() -> None:
    limit = {"/import": 100}
    one = site(measure, max_body=lambda request: limit.get(request.path, 5))
    async with serving(one) as connect:
        await (client := await connect()).send(post(6, "/import") + b"123456")
        assert (await client.response()).body == b"6"
        await client.send(post(6, "/other") + b"123456")
        assert (await client.response()).status == 413


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"1" * 30 + b"\r\n"])
async def test_malformed_chunks_are_400(chunk: bytes) -> None:
    async with serving(site(measure)) as connect:
        client = await connect()
        await client.send(CHUNKED + chunk)
        response = await client.response()
        assert (response.status, response.code) == (400, "bad_request")
        assert await client.rest() == b""


async def test_silence_in_a_body_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(site(measure)) as client:
        await client.send(post(100))
        for _ in range(5):
            await trio.sleep(20)
            await client.send(b"x")  # slow, but alive
        response = await client.response()
        assert (response.status, response.code) == (408, "too_slow")
        assert trio.current_time() == 100 + HttpLimits().body_seconds


async def test_a_body_of_tiny_chunks_lets_others_run() -> None:
    turns, during = 0, 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal during
        before = turns
        while (await receive())["more_body"]:
            pass
        during = turns - before
        await hello(scope, receive, send)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, serving(site(app)) as connect:
        nursery.start_soon(others)
        client = await connect()
        await client.send(CHUNKED + b"1\r\nx\r\n" * 2_000 + b"0\r\n\r\n")
        assert (await client.response()).status == 200
        assert during > 1_000
        nursery.cancel_scope.cancel()


# 100-continue


EXPECTING = post(5, headers="Expect: 100-continue\r\n")


async def test_continue_is_said_when_the_app_reads() -> None:
    reads = trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await reads.wait()
        await measure(scope, receive, send)

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(EXPECTING)
        with trio.move_on_after(0.05) as early:
            await client.head()
        assert early.cancelled_caught
        reads.set()
        assert (await client.response()).status == 100
        await client.send(b"hello")
        assert (await client.response()).body == b"5"
        assert (await client.get()).status == 200


async def test_continue_is_not_said_when_the_app_does_not_read() -> None:
    async with serving(site()) as connect:
        client = await connect()
        await client.send(EXPECTING)
        response = await client.response()
        # The body may come or not, so nothing after it can be understood.
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert await client.rest() == b""
