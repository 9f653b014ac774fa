"""A peer on bare sockets for tests of the transport, and clients over either transport."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeAlias

import httpx
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from llm.rounds import reading_in_rounds
from llm.transport import Transport

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Play: TypeAlias = Callable[["Peer", Stream], Awaitable[None]]

PASSES = 1000  # of the scheduler, until a connection counts as left over; a few are enough
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@define
class Peer:
    """What listens on `url`; `play` is done on each connection."""

    url: str
    play: Play
    tls: ssl.SSLContext | None = None
    open: int = 0
    accepted: int = 0
    answered: int = 0
    asked: list[bytes] = field(factory=list)
    stop: trio.Event = field(factory=trio.Event)

    async def handle(self, sockets: trio.SocketStream) -> None:
        self.open += 1
        self.accepted += 1
        stream: Stream = sockets
        if self.tls is not None:
            stream = trio.SSLStream(sockets, self.tls, server_side=True, https_compatible=True)
        try:
            await self.play(self, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side went, which is what many tests want to see
        finally:
            self.open -= 1
            sockets.socket.close()

    async def request(self, stream: Stream) -> bytes:
        """The head of the next request, and its body if there is a content-length."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = await stream.receive_some()
            if not part:
                raise trio.ClosedResourceError
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        _, found, length = head.lower().partition(b"content-length: ")
        while found and len(body) < int(length.split(b"\r\n")[0]):
            body += await stream.receive_some()
        self.asked.append(head + b"\r\n\r\n" + body)
        return self.asked[-1]

    async def has_answered(self, times: int) -> None:
        for _ in range(PASSES):
            if self.answered >= times:
                return
            await wait_all_tasks_blocked()
        raise AssertionError(f"it has answered only {self.answered} times")

    async def all_closed(self) -> None:
        for _ in range(PASSES):
            if not self.open:
                return
            await wait_all_tasks_blocked()
        raise AssertionError(f"{self.open} connections are left over")


@asynccontextmanager
async def peer(
    play: Play, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Peer]:
    """Listen while the block runs; at its end every connection must be closed."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        scheme = "https" if tls else "http"
        found = Peer(f"{scheme}://{host}:{listener.socket.getsockname()[1]}/", play, tls)
        nursery.start_soon(trio.serve_listeners, found.handle, [listener])
        yield found
        await found.all_closed()
        nursery.cancel_scope.cancel()


def answering(*pieces: bytes, end: bool = False) -> Play:
    """Answer each request by these bytes, each piece a read of its own; then close if `end`."""

    async def play(peer: Peer, stream: Stream) -> None:
        while True:
            await peer.request(stream)
            for piece in pieces:
                await stream.send_all(piece)
                await wait_all_tasks_blocked()
            peer.answered += 1
            if end:
                return

    return play


async def until_closed(stream: Stream) -> None:
    """Wait for the other side to close."""
    while await stream.receive_some():
        pass


def reset(stream: Stream) -> None:
    """Have the connection reset rather than closed, when it is."""
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def client(kind: str = "fast", **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client over either transport, which leaves no connection when it is closed.

    The kind "rounds" is our own as the gateway has it: its waits are in rounds.
    """
    limits = more.pop("limits", httpx.Limits())
    verify = more.pop("verify", False)
    tls = verify if isinstance(verify, ssl.SSLContext) else None
    own = Transport(tls=tls, limits=limits)
    found = httpx.AsyncClient(
        transport=None if kind == "stock" else own,
        limits=limits,
        verify=verify,
        trust_env=False,
        timeout=more.pop("timeout", None),
        **more,
    )
    async with reading_in_rounds() if kind == "rounds" else nullcontext(), found:
        yield found
    assert own.open == 0
