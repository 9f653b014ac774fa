"""A client that says exactly the bytes it is told to, and reads HTTP without any library."""

import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import msgspec
import trio
from attrs import define, field, frozen

from hub.web.asgi import App, Message, Receive, Send
from hub.web.http import Site, serve_connection
from hub.web.listener import open_listeners, serve
from hub.web.messages import Peer

CHUNKED = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(size: int, path: str = "/", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n{headers}\r\n"
    return head.encode()


@frozen
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of an error in the form of the API; its sentence must be there too."""
        error = msgspec.json.decode(self.body, type=dict[str, str])
        assert set(error) == {"error", "code"}
        assert error["error"].endswith(".")
        assert self.headers["content-type"] == "application/json"
        return error["code"]


@define
class Client:
    stream: trio.abc.Stream
    buffer: bytes = field(default=b"", init=False)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def get(self, path: str = "/", headers: str = "", method: str = "GET") -> Response:
        await self.send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n{headers}\r\n".encode())
        return await self.response(method)

    async def response(self, method: str = "GET") -> Response:
        status, headers = await self.head()
        if method == "HEAD" or status in (204, 304) or status < 200:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self._exactly(int(headers["content-length"]))
        else:
            body = await self.rest()
        return Response(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._until(b"\r\n\r\n")).decode().split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        pairs = [line.split(": ", 1) for line in lines]
        names = [name.lower() for name, _ in pairs]
        assert len(set(names)) == len(names), names
        return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def rest(self) -> bytes:
        """All up to the end of the connection, which must not be a reset."""
        while await self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._until(b"\r\n"), 16):
            body += await self._exactly(size)
            assert await self._until(b"\r\n") == b""
        assert await self._until(b"\r\n") == b""
        return body

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            assert await self._more(), f"ended early: {self.buffer!r}"
        found, _, self.buffer = self.buffer.partition(mark)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            assert await self._more(), f"ended early: {self.buffer!r}"
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65_536)
        self.buffer += data
        return bool(data)

    def reset(self) -> None:
        """Vanish with a reset rather than an end."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


Connect = Callable[[], Coroutine[None, None, Client]]


@asynccontextmanager
async def serving(site: Site, connections: int = 1_000) -> AsyncIterator[Connect]:
    """Serve on a real port of loopback; what is yielded opens connections to it."""

    async def handle(stream: trio.abc.Stream, peer: Peer) -> None:
        await serve_connection(stream, site, peer)

    async with trio.open_nursery() as nursery:
        listeners = await open_listeners("127.0.0.1", 0)
        port = listeners[0].socket.getsockname()[1]

        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(await trio.open_tcp_stream("127.0.0.1", port)))
            return clients[-1]

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await serve(listeners, handle, connections=connections, task_status=task_status)

        await nursery.start(run)
        try:
            with trio.fail_after(60):
                yield connect
        finally:
            for client in clients:
                await trio.aclose_forcefully(client.stream)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def talking(site: Site) -> AsyncIterator[Client]:
    """Serve one connection in memory, for tests about time."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, site, Peer())
        yield Client(ours)
        nursery.cancel_scope.cancel()


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    body = f"{scope['method']} {scope['path']}".encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Send the body back as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def measure(scope: Message, receive: Receive, send: Send) -> None:
    """Read the whole body and answer how long it was."""
    size = 0
    while (message := await receive()).get("more_body"):
        size += len(message["body"])
    body = str(size + len(message["body"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def site(app: App = hello, **more: object) -> Site:
    return Site(app, **more)  # type: ignore[arg-type]
