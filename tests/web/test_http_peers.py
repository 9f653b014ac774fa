"""Peers that go, in the middle of this or that, and what they must not cost."""

import logging
import tracemalloc

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from hub.web.asgi import Message, Receive, Send
from hub.web.http import serve_connection
from hub.web.messages import MIB, HttpLimits, Peer
from tests.web.raw import hello, measure, post, serving, site

# Peers that go


@pytest.mark.parametrize("how", ["ends", "resets"])
@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_a_peer_that_goes_ends_the_app(
    how: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    runs, ended = trio.Event(), trio.Event()
    heard: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        runs.set()

        async def listen() -> None:
            heard.append((await receive())["type"])

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await trio.sleep_forever()
        finally:
            ended.set()

    async with serving(site(app, limits=HttpLimits(half_closed_seconds=0.01))) as connect:
        client = await connect()
        await client.send(post(len(body)) + body)
        await runs.wait()
        if how == "resets":
            client.reset()
        else:
            await client.stream.aclose()
        await ended.wait()
        assert heard == ["http.disconnect"]
    assert caplog.records == []


async def test_a_peer_that_goes_in_the_middle_of_its_body() -> None:
    heard: list[str] = []
    reads, ended = trio.Event(), trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            heard.append((await receive())["type"])
            reads.set()
            heard.append((await receive())["type"])
        finally:
            ended.set()

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(post(10) + b"12345")
        await reads.wait()
        client.reset()
        await ended.wait()
    assert heard == ["http.request"]  # cancelled in the second


async def test_what_is_sent_to_a_peer_that_went_is_an_oserror() -> None:
    ended = trio.Event()
    errors: list[OSError] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                body = {"type": "http.response.body", "body": bytes(MIB), "more_body": True}
                await send(body)
        except OSError as error:
            errors.append(error)
        finally:
            ended.set()

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        await client.head()
        client.reset()
        await ended.wait()
    assert len(errors) == 1


async def test_a_peer_that_only_ended_its_side_gets_its_answer() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await trio.sleep(0.05)
        await hello(scope, receive, send)

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
        assert (await client.response()).body == b"GET /1"
        assert (await client.response()).body == b"GET /2"
        assert await client.rest() == b""


async def test_work_after_the_response_is_not_for_the_peer() -> None:
    done, gone = trio.Event(), trio.Event()

    async def later() -> None:
        await gone.wait()
        await trio.sleep(0.05)
        done.set()

    async def view(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(later))

    app = Starlette(routes=[Route("/", view)])
    async with serving(site(app, limits=HttpLimits(half_closed_seconds=0.01))) as connect:
        client = await connect()
        assert (await client.get()).body == b"ok"
        client.reset()
        gone.set()
        await done.wait()


@pytest.mark.parametrize("reads", [0, 10])
async def test_a_stream_that_nobody_reads_is_ended_by_its_deadline(
    reads: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[float] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                body = {"type": "http.response.body", "body": bytes(1_000), "more_body": True}
                await send(body)
        finally:
            ended.append(trio.current_time())

    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, site(app), Peer())
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(reads):
            await trio.sleep(20)  # slowly, but it reads
            await ours.receive_some(100_000)
    assert trio.current_time() == reads * 20 + HttpLimits().write_seconds
    assert len(ended) == 1
    assert caplog.records == []


async def test_a_reset_before_the_first_word_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with serving(site()) as connect:
        for said in (b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", post(10)):
            client = await connect()
            await client.send(said)
            client.reset()
        assert (await (await connect()).get()).status == 200
    assert caplog.records == []


async def test_memory_stays_flat_under_a_huge_body() -> None:
    async with serving(site(measure, max_body=lambda _: 200 * MIB)) as connect:
        client = await connect()
        piece = bytes(MIB)
        tracemalloc.start()
        try:
            await client.send(post(200 * MIB))
            for _ in range(200):
                await client.send(piece)
            assert (await client.response()).body == str(200 * MIB).encode()
            assert tracemalloc.get_traced_memory()[1] < 2 * MIB
        finally:
            tracemalloc.stop()
