"""Connections of our transport: kept, awaited, timed, cancelled, closed; with TLS too."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from llm.choose import ModelSettings
from llm.plan import plan
from llm.provider import SetupError
from llm.transport import Transport, body_of
from llm.upstream import Upstream
from tests.llm.peers import OK, Peer, Play, Stream, answering, client, peer, until_closed

both = pytest.mark.parametrize("kind", ["fast", "rounds", "stock"])

FOREVER = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


def own(asker: httpx.AsyncClient) -> Transport:
    found = asker._transport
    assert isinstance(found, Transport)
    return found


async def silent(server: Peer, stream: Stream) -> None:
    """Take a request and say nothing."""
    await server.request(stream)
    await until_closed(stream)


async def half(server: Peer, stream: Stream) -> None:
    """Begin an answer and say nothing more."""
    await server.request(stream)
    await stream.send_all(FOREVER)
    await until_closed(stream)


async def deaf(server: Peer, stream: Stream) -> None:
    """Take nothing until it is told to stop."""
    await server.stop.wait()


# ── the pool ─────────────────────────────────────────────────────────────────────────────


@both
async def test_a_connection_that_the_server_closed_is_not_used_again(kind: str) -> None:
    async with peer(answering(OK, end=True)) as server, client(kind) as asker:
        for times in (1, 2, 3):
            assert (await asker.get(server.url)).content == b"ok"
            await server.all_closed()
            assert server.accepted == times


async def test_a_connection_is_kept_for_so_long(autojump_clock: object) -> None:
    limits = httpx.Limits(keepalive_expiry=5)
    async with peer(answering(OK)) as server, client(limits=limits) as asker:
        await asker.get(server.url)
        await trio.sleep(4.9)
        await asker.get(server.url)
        assert server.accepted == 1
        await trio.sleep(5.1)
        await asker.get(server.url)
        assert server.accepted == 2
        assert own(asker).open == 1


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_so_many_connections_are_kept(kept: int) -> None:
    limits = httpx.Limits(max_keepalive_connections=kept)
    async with peer(answering(OK)) as server, client(limits=limits) as asker:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(asker.get, server.url)
        assert own(asker).open == kept


@both
async def test_so_many_connections_are_open_at_once(kind: str) -> None:
    most = 0

    async def play(server: Peer, stream: Stream) -> None:
        nonlocal most
        while True:
            await server.request(stream)
            most = max(most, server.open)
            await wait_all_tasks_blocked()
            await stream.send_all(OK)

    limits = httpx.Limits(max_connections=3)
    async with peer(play) as server, client(kind, limits=limits) as asker:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(asker.get, server.url)
        assert (len(server.asked), most) == (20, 3)


async def test_who_came_first_is_first() -> None:
    limits = httpx.Limits(max_connections=1)
    async with peer(answering(OK)) as server, client(limits=limits) as asker:
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(asker.get, f"{server.url}{number}")
                await wait_all_tasks_blocked()
        assert [asked.split()[1] for asked in server.asked] == [b"/%d" % n for n in range(9)]


async def test_who_could_not_connect_gives_its_place_back() -> None:
    limits = httpx.Limits(max_connections=1)
    timeout = httpx.Timeout(None, pool=0)
    async with peer(answering(OK)) as server, client(limits=limits, timeout=timeout) as asker:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                await asker.get("http://127.0.0.1:1/")
        assert (await asker.get(server.url)).content == b"ok"


async def test_a_kept_connection_makes_room_for_another_server() -> None:
    limits = httpx.Limits(max_connections=1)
    async with (
        peer(answering(OK)) as one,
        peer(answering(OK)) as other,
        client(limits=limits) as asker,
    ):
        for server in (one, other, one):
            await asker.get(server.url)
            assert own(asker).open == 1
        assert (one.accepted, other.accepted) == (2, 1)


async def test_closing_closes_all(autojump_clock: object) -> None:
    async with (
        peer(half) as server,
        peer(answering(OK)) as other,
        client() as asker,
        trio.open_nursery() as nursery,
    ):

        async def read() -> None:
            with pytest.raises(httpx.ReadError):
                await asker.get(server.url)

        await asker.get(other.url)
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert own(asker).open == 2
        await own(asker).aclose()
        assert own(asker).open == 0
        await server.all_closed()
        await other.all_closed()


# ── the four timeouts ────────────────────────────────────────────────────────────────────


async def test_waiting_for_a_connection_is_bounded(autojump_clock: object) -> None:
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(None, pool=7)
    async with peer(half) as server, client(limits=limits, timeout=timeout) as asker:
        async with asker.stream("GET", server.url):
            start = trio.current_time()
            with pytest.raises(httpx.PoolTimeout):
                await asker.get(server.url)
            assert trio.current_time() - start == pytest.approx(7)
        async with asker.stream("GET", server.url):
            assert own(asker).open == 1


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full, so that nobody more gets an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


async def test_connecting_is_bounded(autojump_clock: object, full_port: int) -> None:
    async with client(timeout=httpx.Timeout(None, connect=7)) as asker:
        start = trio.current_time()
        with pytest.raises(httpx.ConnectTimeout):
            await asker.get(f"http://127.0.0.1:{full_port}/")
        assert trio.current_time() - start == pytest.approx(7)


async def test_the_handshake_of_tls_is_part_of_connecting(autojump_clock: object) -> None:
    async with peer(silent) as server, client(timeout=httpx.Timeout(None, connect=7)) as asker:
        start = trio.current_time()
        with pytest.raises(httpx.ConnectTimeout):
            await asker.get(server.url.replace("http:", "https:"))
        assert trio.current_time() - start == pytest.approx(7)
        await server.all_closed()


@pytest.mark.parametrize("play", [silent, half])
async def test_reading_is_bounded(autojump_clock: object, play: Play) -> None:
    async with peer(play) as server, client(timeout=httpx.Timeout(None, read=7)) as asker:
        start = trio.current_time()
        with pytest.raises(httpx.ReadTimeout):
            await asker.get(server.url)
        assert trio.current_time() - start == pytest.approx(7)
        await server.all_closed()


async def test_writing_is_bounded(autojump_clock: object) -> None:
    async with peer(deaf) as server, client(timeout=httpx.Timeout(None, write=7)) as asker:
        start = trio.current_time()
        with pytest.raises(httpx.WriteTimeout):
            await asker.post(server.url, content=b"x" * 50_000_000)
        assert trio.current_time() - start == pytest.approx(7)
        assert own(asker).open == 0
        server.stop.set()


# ── leaving ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("play", [silent, half])
async def test_a_cancelled_request_closes_its_connection_at_once(play: Play) -> None:
    async with peer(play) as server, client() as asker:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asker.get, server.url)
                await wait_all_tasks_blocked()
                assert own(asker).open == 1
                scope.cancel()
        assert own(asker).open == 0
        await server.all_closed()


async def test_cancelled_while_it_connects(full_port: int) -> None:
    async with client() as asker:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asker.get, f"http://127.0.0.1:{full_port}/")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert own(asker).open == 0


async def test_cancelled_while_it_waits_for_a_connection() -> None:
    limits = httpx.Limits(max_connections=1)
    async with peer(half) as server, client(limits=limits) as asker:
        async with asker.stream("GET", server.url):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(asker.get, server.url)
                    await wait_all_tasks_blocked()
                    scope.cancel()
        async with asker.stream("GET", server.url) as response:
            assert response.status_code == 200


async def test_a_response_left_in_the_middle_is_not_used_again() -> None:
    async with peer(half) as server, client() as asker:
        for times in (1, 2):
            async with asker.stream("GET", server.url) as response:
                body = body_of(response)
                assert body is not None
                assert await anext(body) == b"ab"
            await server.all_closed()
            assert server.accepted == times


async def test_a_closed_body_gives_no_more() -> None:
    async with peer(half) as server, client() as asker:
        response = await asker.send(asker.build_request("GET", server.url), stream=True)
        body = body_of(response)
        assert body is not None
        await response.aclose()
        await response.aclose()
        with pytest.raises(httpx.StreamClosed):
            await anext(body)


# ── names and TLS ────────────────────────────────────────────────────────────────────────


async def test_a_name_may_have_addresses_where_nobody_is() -> None:
    """`localhost` is ::1 as well, and the peer only on 127.0.0.1."""
    async with peer(answering(OK), host="localhost") as server, client() as asker:
        assert (await asker.get(server.url)).content == b"ok"


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nobody.invalid", "x" * 80 + ".invalid"])
async def test_nobody_there_is_an_error_of_connecting(host: str) -> None:
    async with client() as asker:
        with pytest.raises(httpx.ConnectError):
            await asker.get(f"http://{host}/")
        assert own(asker).open == 0


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    authority.configure_trust(context)
    return context


async def test_tls_says_whom_it_wants_and_what_it_speaks(authority: trustme.CA) -> None:
    names: list[str | None] = []
    spoken: list[str | None] = []
    context = server_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda _sock, name, _context: names.append(name)

    async def play(server: Peer, stream: Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await stream.do_handshake()
        spoken.append(stream.selected_alpn_protocol())
        await answering(OK)(server, stream)

    async with (
        peer(play, tls=context, host="localhost") as server,
        client(verify=trusting(authority)) as asker,
    ):
        for _ in range(3):
            assert (await asker.get(server.url)).content == b"ok"
        assert (names, spoken, server.accepted) == (["localhost"], ["http/1.1"], 1)


@both
@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("example.org", True)])
async def test_a_certificate_of_somebody_else_is_refused(
    kind: str, name: str, trusted: bool, authority: trustme.CA
) -> None:
    verify = trusting(authority if trusted else trustme.CA())
    context = server_context(authority, name)
    async with (
        peer(answering(OK), tls=context, host="localhost") as server,
        client(kind, verify=verify) as asker,
    ):
        with pytest.raises(httpx.ConnectError, match="certificate" if kind != "stock" else None):
            await asker.get(server.url)
        assert server.asked == []


async def test_the_name_on_the_certificate_may_be_another(authority: trustme.CA) -> None:
    context = server_context(authority, "example.org")
    async with (
        peer(answering(OK), tls=context, host="localhost") as server,
        client(verify=trusting(authority)) as asker,
    ):
        other = {"sni_hostname": "example.org"}
        assert (await asker.get(server.url, extensions=other)).content == b"ok"


async def test_tls_that_ends_in_the_middle_is_a_fault(authority: trustme.CA) -> None:
    context = server_context(authority)
    async with (
        peer(answering(FOREVER, end=True), tls=context, host="localhost") as server,
        client(verify=trusting(authority)) as asker,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await asker.get(server.url)


async def test_leaving_tls_waits_for_nobody(authority: trustme.CA) -> None:
    context = server_context(authority)
    async with (
        peer(half, tls=context, host="localhost") as server,
        client(verify=trusting(authority)) as asker,
    ):
        async with asker.stream("GET", server.url):
            assert own(asker).open == 1
        assert own(asker).open == 0
        await server.all_closed()


# ── which transport a model is asked over ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "environment", "fast"),
    [
        ("http://127.0.0.1:1", {}, True),
        ("https://models.example", {}, True),
        ("http://127.0.0.1:1", {"HTTP_PROXY": "http://proxy.example:1"}, True),
        ("http://models.example", {"HTTP_PROXY": "http://proxy.example:1"}, False),
        ("https://models.example", {"ALL_PROXY": "http://proxy.example:1"}, False),
        ("https://models.example", {"NO_PROXY": "*"}, True),
    ],
)
async def test_proxies_are_left_to_the_stock_transport(
    address: str, environment: dict[str, str], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    upstream = Upstream(address, who="x")
    assert isinstance(upstream._client._transport, Transport) is fast
    await upstream.aclose()


async def test_the_stock_transport_is_a_setting() -> None:
    upstream = Upstream("http://127.0.0.1:1", who="x", transport="stock")
    assert not isinstance(upstream._client._transport, Transport)
    await upstream.aclose()


def test_a_transport_that_there_is_not(tmp_path: Path) -> None:
    asked = ModelSettings(transport="slow")  # type: ignore[arg-type]
    with pytest.raises(SetupError, match="fast or stock"):
        plan(asked, {}, tmp_path)
