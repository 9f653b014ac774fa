"""Frames and bodies that are far too big: refused while they are read, and memory stays flat."""

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from tests.hubs import running_hub

MIB = 1 << 20
FLAT = 8 * MIB
"""Bytes that the whole process may take while it refuses something huge."""


@contextmanager
def flat_memory(most: int) -> Iterator[None]:
    """Python must not take more than so many bytes beside those that it had."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


async def test_a_frame_of_60_mb_closes_its_connection_only() -> None:
    async with running_hub() as running, running.connect_objects() as other:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            head = struct.pack("!BBQ", 0x81, 0x80 | 127, 60 * MIB) + bytes(4)
            with flat_memory(FLAT), trio.fail_after(30):
                received = await exchange(stream, head, b"a", 60 * MIB)
        assert struct.pack("!H", 1009) in received
        assert (await other.ask("get_game_state", "x"))["data"]["error"] == "Game not found"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_200_mb_is_refused_while_it_is_read(chunked: bool) -> None:
    async with running_hub() as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {200 * MIB}"
            head = (
                "POST /api/game/message HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: application/json\r\n{framing}\r\n\r\n"
            ).encode()
            if chunked:
                head += f"{200 * MIB:x}\r\n".encode()
            with flat_memory(FLAT), trio.fail_after(30):
                received = await exchange(stream, head, b"a", 200 * MIB)
        assert received.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"too_large"' in received
        assert (await running.http.get("/healthz")).status_code == 200


async def exchange(stream: trio.SocketStream, head: bytes, filler: bytes, size: int) -> bytes:
    """Send until it is all sent or refused; return all that came back."""
    received = bytearray()

    async def read() -> None:
        try:
            while data := await stream.receive_some(MIB):
                received.extend(data)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.05)
        try:
            await stream.send_all(head)
            piece = memoryview(filler * (64 * 1024))
            for _ in range(size // len(piece)):
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            pass
    return bytes(received)
