import ssl
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_websocket
import trustme
from attrs import define

from hub.web.http import Site, Takeover, serve_connection
from hub.web.messages import MIB, Answer, HttpLimits, Peer, Request
from hub.web.static import StaticFiles
from tests.web.raw import Client, measure, serving, site, talking

HANDSHAKE = (
    b"GET /ws?csrf=x HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def shout(stream: trio.abc.Stream, received: bytes) -> None:
    """Say what was received so far, then echo in upper case."""
    await stream.send_all(b"%d " % len(received) + received)
    while data := await stream.receive_some():
        await stream.send_all(data.upper())


async def accept(request: Request) -> Answer | Takeover:
    assert request.is_websocket
    assert request.target == b"/ws?csrf=x"
    return shout


@pytest.mark.parametrize("trailing", [b"", b"\x81\x00early"])
async def test_the_stream_and_all_it_said_are_handed_over(trailing: bytes) -> None:
    async with serving(site(upgrade=accept)) as connect:
        client = await connect()
        await client.send(HANDSHAKE[:30])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(HANDSHAKE[30:] + trailing)
        said = HANDSHAKE + trailing
        assert await client._until(b" ") == str(len(said)).encode()
        assert await client._exactly(len(said)) == said
        await client.send(b"get / http/1.1\r\n\r\n")  # nobody parses this any more
        assert await client._until(b"\r\n\r\n") == b"GET / HTTP/1.1"


async def test_on_a_connection_that_was_used_before() -> None:
    async with serving(site(measure, upgrade=accept)) as connect:
        client = await connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + HANDSHAKE)
        assert (await client.response()).body == b"3"
        assert await client._until(b" ") == str(len(HANDSHAKE)).encode()
        assert await client._exactly(len(HANDSHAKE)) == HANDSHAKE


@pytest.mark.parametrize(
    "headers",
    [
        "Upgrade: WebSocket\r\nConnection: keep-alive, upgrade",
        "upgrade: WEBSOCKET\r\nconnection: Upgrade\r\nContent-Length: 0",
        "Upgrade: h2c, websocket\r\nConnection: keep-alive\r\nConnection: Upgrade",
    ],
)
async def test_what_is_a_handshake(headers: str) -> None:
    async with serving(site(upgrade=accept)) as connect:
        client = await connect()
        await client.send(f"GET /ws?csrf=x HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
        assert await client._until(b"GET /ws")


@pytest.mark.parametrize(
    "head",
    [
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        HANDSHAKE.replace(b"Connection: Upgrade\r\n", b""),
        HANDSHAKE.replace(b"1.1", b"1.0"),
        HANDSHAKE.replace(b"Host", b"Content-Length: 2\r\nHost") + b"ab",
    ],
)
async def test_what_is_none(head: bytes) -> None:
    async with serving(site(upgrade=accept)) as connect:
        client = await connect()
        await client.send(head)
        assert (await client.response()).status == 200


async def test_a_refused_handshake_is_a_response_like_any_other() -> None:
    async def refuse(request: Request) -> Answer | Takeover:
        return Answer.error(403, "foreign_origin", "This page may not connect.")

    async with serving(site(upgrade=refuse)) as connect:
        client = await connect()
        await client.send(HANDSHAKE)
        response = await client.response()
        assert (response.status, response.code) == (403, "foreign_origin")
        assert (await client.get("/next")).status == 200


async def test_a_handler_that_fails_is_500_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: Request) -> Answer | Takeover:
        raise ValueError

    async with serving(site(upgrade=fail)) as connect:
        client = await connect()
        await client.send(HANDSHAKE)
        assert (await client.response()).code == "internal"
    assert len(caplog.records) == 1
    assert "csrf" not in caplog.text


async def test_a_handler_that_hangs_is_503(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(request: Request) -> Answer | Takeover:
        await trio.sleep_forever()
        raise AssertionError

    async with talking(site(upgrade=hang)) as client:
        await client.send(HANDSHAKE)
        response = await client.response()
        assert (response.status, response.headers["retry-after"]) == (503, "5")
    assert len(caplog.records) == 1


async def test_a_takeover_that_fails_is_logged_once_and_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def crash(stream: trio.abc.Stream, received: bytes) -> None:
        await stream.send_all(b"half a fra")
        raise ValueError

    async def to_crash(request: Request) -> Answer | Takeover:
        return crash

    async with serving(site(upgrade=to_crash)) as connect:
        client = await connect()
        await client.send(HANDSHAKE)
        assert await client.rest() == b"half a fra"
        assert (await (await connect()).get()).status == 200
    assert len(caplog.records) == 1


def bare(client: Client) -> trio.SocketStream:
    """trio-websocket takes any stream, though its annotations name two."""
    return client.stream  # type: ignore[return-value]


# The whole way, with trio-websocket


@define(slots=False)
class Replay(trio.abc.Stream):
    """What trio-websocket reads: the bytes received so far, then the stream."""

    stream: trio.abc.Stream
    received: bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.received:
            count = max_bytes or len(self.received)
            data, self.received = self.received[:count], self.received[count:]
            return data
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


async def talk(stream: trio.abc.Stream, received: bytes, *, path: str) -> None:
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, Replay(stream, received))
        socket = await request.accept()
        assert socket.path == path
        try:
            while True:
                await socket.send_message((await socket.get_message()).upper())
        except trio_websocket.ConnectionClosed:
            pass


async def accept_websocket(request: Request) -> Answer | Takeover:
    return partial(talk, path=request.target.decode())


async def test_trio_websocket_over_the_stream_that_is_handed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery, serving(site(upgrade=accept_websocket)) as connect:
        for before in (0, 2):
            client = await connect()
            for _ in range(before):
                assert (await client.get()).status == 200
            socket = await trio_websocket.wrap_client_stream(
                nursery, bare(client), "here", "/ws?a=" + "b" * 6_000
            )
            await socket.send_message("hello")
            assert await socket.get_message() == "HELLO"
            await socket.aclose()
    assert caplog.records == []


# TLS


async def test_everything_over_tls(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * MIB)
    authority = trustme.CA()
    server, client_context = _contexts(authority)
    one = Site(
        measure,
        upgrade=accept_websocket,
        static=StaticFiles(tmp_path),
        max_body=lambda _: 2 * MIB,
        limits=HttpLimits(linger_seconds=2),
    )

    async def handle(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, server, server_side=True, https_compatible=True)
        await serve_connection(secure, one, Peer(scheme="https"))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]

        async def connect() -> Client:
            raw = await trio.open_tcp_stream("127.0.0.1", port)
            return Client(
                trio.SSLStream(
                    raw, client_context, server_hostname="here.test", https_compatible=True
                )
            )

        with trio.fail_after(30):
            client = await connect()
            assert (await client.get("/a.txt")).body == b"x" * MIB
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            await client.send(bytes(1_000_000))
            assert (await client.response()).body == b"1000000"
            socket = await trio_websocket.wrap_client_stream(nursery, bare(client), "here", "/ws")
            await socket.send_message("hello")
            assert await socket.get_message() == "HELLO"
            await socket.aclose()

            client = await connect()
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n")
            await client.send(bytes(4_000_000))  # the answer survives what was sent in vain
            assert (await client.response()).status == 413
            await trio.aclose_forcefully(client.stream)

            client = await connect()
            assert (await client.get(headers="Connection: close\r\n")).body == b"0"
            assert await client.rest() == b""
            await client.stream.aclose()
        nursery.cancel_scope.cancel()


def _contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("here.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
