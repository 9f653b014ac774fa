"""A model's server on loopback that does as it is told, faults and all.

It is written on bare sockets, so that it can send what no HTTP library would.
"""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import TypeAlias

import msgspec
import trio
from attrs import define, field, frozen
from trio.testing import wait_all_tasks_blocked

from llm.rounds import reading_in_rounds


class Do(Enum):
    """What a script can do beside sending bytes."""

    RESET = "reset the connection"
    STALL = "send nothing more, and wait until the other side closes"


Step: TypeAlias = bytes | Do
Script: TypeAlias = tuple[Step, ...]
Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

REASONS = {200: "OK"}
LAST_CHUNK = b"0\r\n\r\n"
CHECKS = 1000  # passes of the scheduler until a connection counts as left over; a few are enough


@frozen
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        found = msgspec.json.decode(self.body)
        assert isinstance(found, dict)
        return found


@define
class Server:
    """Answers each request by the next of its scripts, and the last one again and again."""

    url: str
    tls: ssl.SSLContext | None = None
    scripts: list[Script] = field(factory=list)
    by_path: dict[str, list[Script]] = field(factory=dict)
    asked: list[Asked] = field(factory=list)
    open: int = 0
    accepted: int = 0
    stalled: trio.Event = field(factory=trio.Event)
    choose: Callable[[Asked], Script] | None = None  # goes before the scripts

    def answer(self, *scripts: Script) -> None:
        self.scripts = list(scripts)

    def answer_at(self, path: str, *scripts: Script) -> None:
        self.by_path[path] = list(scripts)

    def next_script(self, asked: Asked) -> Script:
        if self.choose is not None:
            return self.choose(asked)
        scripts = self.by_path.get(asked.path, self.scripts)
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    async def all_closed(self) -> None:
        """Wait until every connection is closed; fails where one is not."""
        for _ in range(CHECKS):
            if self.open == 0:
                return
            await wait_all_tasks_blocked()
        raise AssertionError(f"{self.open} connections are still open")

    async def handle(self, sockets: trio.SocketStream) -> None:
        stream: Stream = sockets
        if self.tls is not None:
            stream = trio.SSLStream(sockets, self.tls, server_side=True, https_compatible=True)
        self.open += 1
        self.accepted += 1
        try:
            while (asked := await _read_request(stream)) is not None:
                self.asked.append(asked)
                if not await self._play(stream, self.next_script(asked)):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side went, which is what many tests want to see
        finally:
            self.open -= 1
            sockets.socket.close()

    async def _play(self, stream: Stream, script: Script) -> bool:
        """Do what the script says; return whether the connection goes on."""
        for step in script:
            match step:
                case bytes():
                    await stream.send_all(step)
                    await wait_all_tasks_blocked()  # so that each piece is a read of its own
                case Do.RESET:
                    assert isinstance(stream, trio.SocketStream)
                    linger = struct.pack("ii", 1, 0)
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return False
                case Do.STALL:
                    self.stalled.set()
                    while await stream.receive_some():
                        pass
                    return False
        return b"connection: close" not in script[0] if isinstance(script[0], bytes) else False


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on a free port of loopback; at the end every connection must be closed.

    Who asks reads in rounds, as behind the gateway.
    """
    async with reading_in_rounds(), trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        scheme = "https" if tls else "http"
        server = Server(f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}", tls)
        nursery.start_soon(trio.serve_listeners, server.handle, [listener])
        yield server
        await server.all_closed()
        nursery.cancel_scope.cancel()


async def _read_request(stream: Stream) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some()
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive_some()
    return Asked(method, path, headers, body)


def head(status: int = 200, kind: str = "text/event-stream", **headers: str) -> bytes:
    """The head of an answer whose body comes in chunks; `retry_after` is `retry-after`."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Trouble')}", f"content-type: {kind}"]
    lines += ["transfer-encoding: chunked", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def streamed(*pieces: bytes) -> Script:
    """A whole answer, each piece a chunk of its own."""
    return (head(), *map(chunk, pieces), LAST_CHUNK)


def refused(status: int, body: bytes, **headers: str) -> Script:
    """An answer that is an error."""
    return (head(status, "application/json", **headers), chunk(body), LAST_CHUNK)


def event(data: object, name: str = "") -> bytes:
    """A server-sent event with JSON in it."""
    title = f"event: {name}\n".encode() if name else b""
    return title + b"data: " + msgspec.json.encode(data) + b"\n\n"
