"""Requests and responses over our transport; where both must do the same, over httpx's own too."""

import gc
import gzip
import weakref
from collections.abc import AsyncIterator
from itertools import pairwise

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llm.transport import body_of
from llm.transport_http import MAX_SILENT, Incoming
from tests.llm.peers import OK, Peer, Stream, answering, client, peer, reset, until_closed

both = pytest.mark.parametrize("kind", ["fast", "rounds", "stock"])

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TWO = CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

# How a response ends: what came, what it is, and whether its connection is used again.
WHOLE = {
    "length": (HEAD + b"content-length: 3\r\n\r\nabc", b"abc", True),
    "nothing": (HEAD + b"content-length: 0\r\n\r\n", b"", True),
    "chunks": (TWO, b"abcde", True),
    "chunk extensions": (CHUNKED + b"3;a=b;c\r\nabc\r\n0;d\r\n\r\n", b"abc", True),
    "capitals in the size": (CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", True),
    "blanks after the size": (CHUNKED + b"3  \r\nabc\r\n0\r\n\r\n", b"abc", True),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", b"abc", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b"", True),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + TWO, b"abcde", True),
    "hints": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + TWO, b"abcde", True),
    "upgrade offered": (HEAD + b"upgrade: h2\r\ncontent-length: 1\r\n\r\na", b"a", True),
    "close": (HEAD + b"connection: close\r\ncontent-length: 3\r\n\r\nabc", b"abc", False),
    "old": (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc", False),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc", b"abc", True),
    "bare line ends": (b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc", b"abc", True),
}


@both
@pytest.mark.parametrize("in_bytes", [False, True])
@pytest.mark.parametrize("name", WHOLE)
async def test_a_response_ends_where_it_ends(kind: str, name: str, in_bytes: bool) -> None:
    came, body, used_again = WHOLE[name]
    pieces = [came[at : at + 1] for at in range(len(came))] if in_bytes else [came]
    async with peer(answering(*pieces, end=not used_again)) as server, client(kind) as asker:
        for _ in range(2):
            response = await asker.get(server.url)
            assert response.content == body
        assert server.accepted == (1 if used_again else 2)


@both
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_may_go_on_until_the_connection_closes(kind: str, version: bytes) -> None:
    play = answering(b"HTTP/" + version + b" 200 OK\r\n\r\nab", b"cd", end=True)
    async with peer(play) as server, client(kind) as asker:
        assert (await asker.get(server.url)).content == b"abcd"
        assert (await asker.get(server.url)).content == b"abcd"
        assert server.accepted == 2


@both
@pytest.mark.parametrize("head", [HEAD + b"content-length: 5\r\n\r\n", CHUNKED])
async def test_the_answer_to_a_head_has_no_body(kind: str, head: bytes) -> None:
    async with peer(answering(head)) as server, client(kind) as asker:
        for _ in range(2):
            response = await asker.head(server.url)
            assert (response.status_code, response.content) == (200, b"")
        assert server.accepted == 1


async def test_a_body_after_a_head_is_not_the_next_response() -> None:
    async with peer(answering(OK)) as server, client() as asker:
        for _ in range(2):
            assert (await asker.head(server.url)).content == b""
        assert server.accepted == 2


@pytest.mark.parametrize("more", [b"x", OK, b"\x00" * 99])
@pytest.mark.parametrize("late", [False, True])
async def test_bytes_that_nobody_asked_for_are_not_the_next_response(
    more: bytes, late: bool
) -> None:
    pieces = [OK, more] if late else [OK + more]
    async with peer(answering(*pieces)) as server, client() as asker:
        for times in (1, 2):
            assert (await asker.get(server.url)).content == b"ok"
            await server.has_answered(times)
        assert server.accepted == 2


@both
async def test_the_head_is_as_it_came(kind: str) -> None:
    head = b"HTTP/1.1 418 I'm a teapot\r\nX-One: a\r\nx-one:  b c \r\ncontent-length: 0\r\n\r\n"
    async with peer(answering(head)) as server, client(kind) as asker:
        response = await asker.get(server.url)
    assert (response.status_code, response.reason_phrase) == (418, "I'm a teapot")
    assert response.http_version == "HTTP/1.1"
    assert response.headers.get_list("x-one") == ["a", "b c"]


@both
async def test_compression_is_taken_off(kind: str) -> None:
    body = gzip.compress(b"hello " * 100)
    head = b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with peer(answering(HEAD + head + body)) as server, client(kind) as asker:
        assert (await asker.get(server.url)).content == b"hello " * 100


async def test_what_one_read_brings_is_one_piece() -> None:
    async with (
        peer(answering(TWO)) as server,
        client() as asker,
        asker.stream("GET", server.url) as response,
    ):
        body = body_of(response)
        assert body is not None
        assert [piece async for piece in body] == [b"abcde"]
        assert [piece async for piece in body] == []


async def test_another_transports_body_is_read_as_always() -> None:
    async with peer(answering(TWO)) as server, client("stock") as asker:
        assert body_of(await asker.get(server.url)) is None


# ── what goes wrong ──────────────────────────────────────────────────────────────────────

LONG = b"x: " + b"y" * 50_000 + b"\r\n"
FAULTS = {
    "nothing": (),
    "half a head": (HEAD,),
    "half a body": (HEAD + b"content-length: 5\r\n\r\nab",),
    "half a chunk": (CHUNKED + b"5\r\nab",),
    "no last chunk": (CHUNKED + b"2\r\nab\r\n",),
    "no end of the trailers": (CHUNKED + b"2\r\nab\r\n0\r\nx: y\r\n",),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n",),
    "TLS": (b"\x15\x03\x01\x00\x02\x02F",),
    "a size that is none": (CHUNKED + b"2\r\nab\r\nzz\r\n",),
    "a chunk without its end": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n",),
    "a length that is none": (HEAD + b"content-length: two\r\n\r\nab",),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",),
    "another version": (b"HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n",),
    "another protocol": (b"HTTP/1.1 101 No\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",),
    "another coding": (HEAD + b"transfer-encoding: gzip\r\n\r\nabc",),
    "a header without a name": (HEAD + b": x\r\n\r\n",),
    "a head without end": (HEAD, *[LONG] * 4),
    "one header without end": (HEAD + b"x: ", *[b"y" * 50_000] * 4),
    "hints without end": (b"HTTP/1.1 103 No\r\nx: y\r\n\r\n" * 9000,),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_what_is_wrong_is_the_servers_fault(name: str) -> None:
    play = answering(*FAULTS[name], end=True)
    async with peer(play) as server, client() as asker:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await asker.get(server.url)
        assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "endless", [CHUNKED + b"2\r\nab\r\n0\r\n" + LONG * 4, CHUNKED + b"2;" + b"x" * 200_000]
)
async def test_what_is_no_body_is_bounded(endless: bytes) -> None:
    """Before and after a body alike; the server goes on for longer than we listen."""

    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        await stream.send_all(endless)
        await until_closed(stream)

    async with peer(play) as server, client() as asker:
        with pytest.raises(httpx.RemoteProtocolError):
            await asker.get(server.url)
        await server.all_closed()


async def test_the_parts_before_a_fault_are_good() -> None:
    async with (
        peer(answering(CHUNKED + b"2\r\nab\r\nzz\r\n", end=True)) as server,
        client() as asker,
        asker.stream("GET", server.url) as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"ab"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)


@both
@pytest.mark.parametrize("before", [b"", HEAD, CHUNKED + b"2\r\nab\r\n", CHUNKED + b"5\r\nab"])
async def test_a_reset_is_an_error(kind: str, before: bytes) -> None:
    async def play(server: Peer, stream: Stream) -> None:
        await server.request(stream)
        if before:
            await stream.send_all(before)
            await trio.testing.wait_all_tasks_blocked()
        reset(stream)

    async with peer(play) as server, client(kind) as asker:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await asker.get(server.url)


@given(st.lists(st.integers(1, len(TWO) - 1), max_size=8), st.sampled_from(sorted(WHOLE)))
def test_reads_may_end_anywhere(cuts: list[int], name: str) -> None:
    came, body, used_again = WHOLE[name]
    incoming = Incoming("GET")
    places = [0, *sorted(cut for cut in cuts if cut < len(came)), len(came)]
    found = b""
    for begin, end in pairwise(places):
        if begin < end:
            incoming.feed(came[begin:end])
            found += incoming.take()
    assert (found, incoming.whole, incoming.reusable) == (body, True, used_again)
    assert not incoming.fault
    at_once = Incoming("GET")
    at_once.feed(came)
    assert (incoming.reason, incoming.headers) == (at_once.reason, at_once.headers)


@given(st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([HEAD, CHUNKED, TWO, OK, b""]))))
def test_nonsense_is_a_fault_or_a_response(pieces: list[bytes]) -> None:
    incoming = Incoming("GET")
    for piece in pieces:
        incoming.feed(piece)
        if incoming.whole or incoming.fault:
            break
    assert not (incoming.whole and incoming.fault)
    assert not (incoming.fault and incoming.reusable)
    assert sum(map(len, incoming.parts)) < MAX_SILENT


# ── requests ─────────────────────────────────────────────────────────────────────────────


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@both
async def test_a_request_is_as_it_was_made(kind: str) -> None:
    async with peer(answering(OK)) as server, client(kind, headers={"x-one": "a"}) as asker:
        await asker.post(server.url + "path/ä b?q=1#f", content=b"body", headers={"X-One": "b"})
    head, _, body = server.asked[0].partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /path/%C3%A4%20b?q=1 HTTP/1.1"
    assert b"X-One: b" in headers
    assert b"Content-Length: 4" in headers
    assert [name for name in headers if name.lower().startswith(b"host: 127.0.0.1:")]
    assert body == b"body"


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_body_of_unknown_length_goes_in_chunks(size: int) -> None:
    got = bytearray()

    async def play(server: Peer, stream: Stream) -> None:
        while not got.endswith(b"0\r\n\r\n"):
            got.extend(await stream.receive_some())
        await stream.send_all(OK)
        await until_closed(stream)

    async with peer(play) as server, client() as asker:
        await asker.post(server.url, content=pieces_of(b"a" * size, b"", b"b"))
    body = bytes(got).partition(b"\r\n\r\n")[2]
    assert body == b"%x\r\n" % size + b"a" * size + b"\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize("length", ["2", "4"])
async def test_a_body_must_be_as_long_as_was_said(length: str) -> None:
    async with peer(answering(OK)) as server, client() as asker:
        with pytest.raises(httpx.LocalProtocolError):
            await asker.post(server.url, content=b"abc", headers={"content-length": length})


@pytest.mark.parametrize(
    "headers", [{"x": "a\r\ny: b"}, {"x\r\ny": "a"}, {"x": "a\x00"}, {"x y": "a"}, {"": "a"}]
)
async def test_headers_cannot_be_smuggled_in(headers: dict[str, str]) -> None:
    async with peer(answering(OK)) as server, client() as asker:
        with pytest.raises(httpx.LocalProtocolError):
            await asker.get(server.url, headers=headers)
        with pytest.raises(httpx.LocalProtocolError):
            await asker.request("GET / HTTP/1.1\r\nx:", server.url)
        assert server.accepted == 0


async def test_a_server_may_refuse_before_it_has_all() -> None:
    """It says why and closes while we still send, which fails then; what it said counts."""

    async def play(server: Peer, stream: Stream) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")

    class Long:
        """No generator: httpx would leave it unfinished."""

        sent = 0

        def __aiter__(self) -> "Long":
            return self

        async def __anext__(self) -> bytes:
            if self.sent:
                await server.all_closed()
            self.sent += 1
            if self.sent > 100:
                raise StopAsyncIteration
            return b"x" * 100_000

    async with peer(play) as server, client() as asker:
        for times in (1, 2):
            body = Long()
            response = await asker.post(server.url, content=body)
            assert (response.status_code, response.content) == (413, b"no")
            assert body.sent < 100
            assert server.accepted == times


async def test_no_other_scheme() -> None:
    async with client() as asker:
        with pytest.raises(httpx.UnsupportedProtocol):
            await asker.get("ftp://127.0.0.1/")


def test_the_parser_leaves_nothing_to_the_garbage_collector() -> None:
    gc.disable()
    try:
        incoming = Incoming("GET")
        incoming.feed(TWO)
        incoming.finish()
        left = weakref.ref(incoming)
        del incoming
        assert left() is None
    finally:
        gc.enable()
