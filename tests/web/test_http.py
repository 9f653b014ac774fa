from email.utils import parsedate_to_datetime

import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from hub.web.asgi import Message, Receive, Send
from hub.web.http import serve_connection
from hub.web.messages import KIB, MIB, HttpLimits, Peer
from tests.web.raw import CHUNKED, echo, hello, post, serving, site, talking

# What an app can do


async def test_starlette_answers_and_the_connection_lives_on() -> None:
    async def greet(request: StarletteRequest) -> JSONResponse:
        data = await request.json()
        return JSONResponse({"hello": data["name"], "q": request.query_params["q"]})

    app = Starlette(routes=[Route("/greet/{x}", greet, methods=["POST"])])
    async with serving(site(app)) as connect:
        client = await connect()
        for _ in range(3):
            await client.send(post(14, "/greet/%C3%A4?q=%26") + b'{"name":"Ada"}')
            response = await client.response()
            assert response.json == {"hello": "Ada", "q": "&"}
            assert parsedate_to_datetime(response.headers["date"])
            assert not {"server", "connection", "transfer-encoding"} & set(response.headers)


async def test_scope_is_as_asgi_wants_it() -> None:
    seen: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await hello(scope, receive, send)

    async with serving(site(app)) as connect:
        client = await connect()
        await client.get("/a%20b/%C3%BC?x=%20y", "X-Two: 1\r\nX-TWO: 2\r\n")
        assert isinstance(client.stream, trio.SocketStream)
        ours, theirs = client.stream.socket.getsockname(), client.stream.socket.getpeername()
    assert seen == [
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/a b/ü",
            "raw_path": b"/a%20b/%C3%BC",
            "query_string": b"x=%20y",
            "root_path": "",
            "headers": [(b"host", b"here"), (b"x-two", b"1"), (b"x-two", b"2")],
            "client": ours,
            "server": theirs,
            "state": {"proxy": None},
        }
    ]


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://There:80/x?y", b"There:80", "/x"),
        ("HTTP://there", b"there", "/"),
        ("http://there?y/z", b"there", "/"),
        ("/http://x", b"here", "/http://x"),
    ],
)
async def test_a_whole_url_as_target(target: str, host: bytes, path: str) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert [value for name, value in scope["headers"] if name == b"host"] == [host]
        await hello(scope, receive, send)

    async with serving(site(app)) as connect:
        assert (await (await connect()).get(target)).body == f"GET {path}".encode()


async def test_options_of_the_server_as_a_whole() -> None:
    async with serving(site()) as connect:
        assert (await (await connect()).get("*", method="OPTIONS")).body == b"OPTIONS *"


async def test_bodies_stream_both_ways() -> None:
    async with serving(site(echo)) as connect:
        client = await connect()
        await client.send(CHUNKED + b"3\r\nabc\r\n")
        assert (await client.head())[1]["transfer-encoding"] == "chunked"
        assert await client._until(b"\r\n") + await client._until(b"\r\n") == b"3abc"
        await client.send(b"2;x=y\r\nde\r\n")  # only after the answer's first piece has come
        assert await client._until(b"\r\n") + await client._until(b"\r\n") == b"2de"
        await client.send(b"0\r\nTrailer: x\r\n\r\n")
        assert await client._until(b"\r\n\r\n") == b"0"
        assert (await client.get()).status == 200


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await (hello if scope["path"] == "/known" else echo)(scope, receive, send)

    async with serving(site(app)) as connect:
        client = await connect()
        known = await client.get("/known", method="HEAD")
        assert known.headers["content-length"] == str(len("HEAD /known"))
        assert (await client.get("/unknown", method="HEAD")).status == 200
        assert (await client.get("/known")).body == b"GET /known"


async def test_no_content_has_no_body_whatever_the_app_says() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"oops"})

    async with serving(site(app)) as connect:
        client = await connect()
        assert [(await client.get()).status for _ in range(2)] == [204, 204]


async def test_site_headers_are_on_every_response_once() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fails":
            raise ValueError
        headers = [(b"X-Frame", b"mine")] if scope["path"] == "/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    headers = ((b"x-frame", b"no"), (b"x-other", b"1"))
    async with serving(site(app, headers=headers)) as connect:
        client = await connect()
        assert (await client.get("/own")).headers["x-frame"] == "mine"
        assert (await client.get("/other")).headers["x-frame"] == "no"
        assert (await client.get("/fails")).headers["x-frame"] == "no"
        await (client := await connect()).send(b"?\r\n\r\n")
        assert (await client.response()).headers["x-other"] == "1"


# What an app can do wrong


@pytest.mark.parametrize("when", ["before", "begun", "early", "half", "status", "kind"])
async def test_a_failing_app_is_500_and_logged_once(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        if when == "before":
            raise ValueError("secret")
        if when == "status":
            await send({**start, "status": 99})
        if when == "kind":
            await send({"type": "websocket.send"})
        if when in ("begun", "half"):
            await send(start)
        if when == "begun":
            raise ValueError("secret")

    async with serving(site(app)) as connect:
        client = await connect()
        response = await client.get("/x?token=hidden")
        assert (response.status, response.code) == (500, "internal")
        assert response.headers["connection"] == "close"
        assert b"secret" not in response.body
        assert await client.rest() == b""
        assert (await (await connect()).get()).status == 500
    assert len(caplog.records) == 2
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("how", ["raises", "returns", "too much", "too little", "twice"])
async def test_a_response_that_breaks_off_gets_no_second_head(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send({**start, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        if how == "raises":
            raise ValueError
        if how == "too much":
            await send({"type": "http.response.body", "body": b"678901"})
        if how == "too little":
            await send({"type": "http.response.body", "body": b"6"})
        if how == "twice":
            await send({**start, "headers": []})

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await client.head())[0] == 200
        assert (await client.rest()).startswith(b"12345")
        assert len(caplog.records) == 1


async def test_starlettes_own_500_is_sent_once_and_the_connection_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: StarletteRequest) -> JSONResponse:
        raise ValueError

    async def sorry(request: StarletteRequest, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "Sorry.", "code": "internal"}, 500)

    app = Starlette(routes=[Route("/", fail)], exception_handlers={Exception: sorry})
    async with serving(site(app)) as connect:
        client = await connect()
        response = await client.get()
        assert response.json == {"error": "Sorry.", "code": "internal"}
        assert (await client.get("/none")).status == 404
    assert len([record for record in caplog.records if record.exc_info]) == 1


# Heads


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01", 400),  # TLS on a port without it
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n", 400),
        (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400),
        (CHUNKED.replace(b"chunked", b"gzip, chunked"), 501),
        (CHUNKED.replace(b"chunked", b"xchunked"), 501),
        (post(5, headers="Content-Length: 6\r\n"), 400),
        (post(5, headers="").replace(b"5", b"+5"), 400),
        (b"GET /" + b"x" * 8 * KIB + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"x" * 20 * KIB, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 17 * KIB, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 17 * KIB + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 3_000 + b"\r\n", 431),
    ],
)
async def test_bad_heads(head: bytes, status: int) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise AssertionError("the app must not see this")

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(head)
        response = await client.response()
        assert response.status == status
        assert response.code
        assert response.headers["connection"] == "close"
        assert await client.rest() == b""


async def test_empty_lines_before_a_request_are_ignored() -> None:
    async with serving(site()) as connect:
        client = await connect()
        await client.send(b"\r\n")
        assert (await client.get("/1")).status == 200
        await client.send(post(2) + b"ab\r\n\r\n")
        assert (await client.response()).status == 200
        assert (await client.get("/3")).body == b"GET /3"


async def test_a_slow_head_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with talking(site()) as client:
        assert (await client.get()).status == 200
        await trio.sleep(30)  # idle for longer than a head may take
        await client.send(b"GET /")
        response: list[int] = []

        async def drip() -> None:
            while not response:
                await trio.sleep(3)
                await client.send(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer = await client.response()
            response.append(answer.status)
            nursery.cancel_scope.cancel()
        assert (answer.status, answer.code) == (408, "too_slow")
        assert trio.current_time() == 30 + HttpLimits().head_seconds


@pytest.mark.parametrize("said", [b"", b"\r\n"])
async def test_a_silent_connection_is_closed_without_a_word(
    said: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with talking(site()) as client:
        await client.send(said)
        assert await client.rest() == b""
        assert trio.current_time() == HttpLimits().head_seconds


async def test_an_idle_connection_is_kept_for_long_then_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with talking(site()) as client:
        assert (await client.get()).status == 200
        await trio.sleep(HttpLimits().idle_seconds - 1)
        assert (await client.get()).status == 200
        before = trio.current_time()
        assert await client.rest() == b""
        assert trio.current_time() - before == HttpLimits().idle_seconds


# Several requests on one connection


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(site()) as connect:
        client = await connect()
        one = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
        await client.send(one % 1 + post(3, "/2") + b"abc" + one % 3 + b"GET /")
        bodies = [(await client.response()).body for _ in range(3)]
        assert bodies == [b"GET /1", b"POST /2", b"GET /3"]
        await client.send(b"4 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.response()).body == b"GET /4"


async def test_pipelined_while_the_app_runs() -> None:
    runs, goes_on = trio.Event(), trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        runs.set()
        await goes_on.wait()
        await hello(scope, receive, send)

    async with serving(site(app)) as connect:
        client = await connect()
        await client.send(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await runs.wait()
        await client.send(b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(post(50_000, "/3"))
        for _ in range(5):
            await client.send(bytes(10_000))
        goes_on.set()
        assert [(await client.response()).body for _ in range(3)] == [
            b"GET /1",
            b"GET /2",
            b"POST /3",
        ]


async def test_pipelining_is_not_a_way_to_fill_the_memory(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    ours, theirs = trio.testing.lockstep_stream_pair()  # a send ends when it has been read
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, site(app), Peer())
        await ours.send_all(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        sent = 0
        with trio.move_on_after(3_600):
            while sent < MIB:
                await ours.send_all(bytes(KIB))
                sent += KIB
        assert HttpLimits().head_bytes <= sent <= HttpLimits().head_bytes + 2 * KIB
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("keep", ["", "Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(keep: str) -> None:
    for app in (hello, echo):  # with a length, and without one
        async with serving(site(app)) as connect:
            client = await connect()
            await client.send(f"POST / HTTP/1.0\r\nContent-Length: 6\r\n{keep}\r\nPOST /".encode())
            response = await client.response()
            assert response.body == b"POST /"
            assert response.headers["connection"] == "close"
            assert "transfer-encoding" not in response.headers
            assert await client.rest() == b""


async def test_connection_close_is_done() -> None:
    async with serving(site()) as connect:
        client = await connect()
        response = await client.get(headers="Connection: close\r\n")
        assert response.headers["connection"] == "close"
        assert await client.rest() == b""
