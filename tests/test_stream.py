"""The stream under a WebSocket: frames stay whole, and a write cut short ends that socket only."""

import socket

import pytest
import trio
import trio.testing

from hub.stream import SocketEdge

BIG = b"x" * 2_000_000  # more than the buffers of both ends hold


async def pair(send_seconds: float = 20.0) -> tuple[SocketEdge, trio.SocketStream]:
    """Two ends of a TCP connection with small buffers; the first is ours."""
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    for one in (ours, theirs):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    edge = SocketEdge(
        trio.SocketStream(trio.socket.from_stdlib_socket(ours)), send_seconds=send_seconds
    )
    return edge, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


async def read(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(10):
        while len(data) < size and (piece := await stream.receive_some(size - len(data))):
            data += piece
    return data


async def test_what_fits_is_written_at_once() -> None:
    edge, peer = await pair()
    assert edge.write_now(b"hello")
    assert not edge.clogged
    assert await read(peer, 5) == b"hello"
    edge.abort()
    await peer.aclose()


async def test_the_rest_of_a_write_goes_out_before_anything_else() -> None:
    edge, peer = await pair()
    assert not edge.write_now(BIG)  # only a part is out
    assert (edge.clogged, edge.write_now(b"not now")) == (True, False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.send_all, b"pong")
        assert await read(peer, len(BIG) + 4) == BIG + b"pong"
    assert not edge.clogged
    assert edge.write_now(b"now")
    assert await read(peer, 3) == b"now"
    edge.abort()
    await peer.aclose()


async def test_while_somebody_waits_to_write_nothing_slips_in_between() -> None:
    edge, peer = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.send_all, BIG)
        await trio.testing.wait_all_tasks_blocked()
        assert not edge.write_now(b"in between")
        nursery.start_soon(edge.send_all, b"after")
        assert await read(peer, len(BIG) + 5) == BIG + b"after"
    edge.abort()
    await peer.aclose()


async def test_a_write_that_is_cancelled_destroys_the_socket() -> None:
    """Invariant 1: the next frame must never land inside the last."""
    edge, peer = await pair()
    with trio.move_on_after(0.05):
        await edge.send_all(BIG)
    assert edge.broken
    assert not edge.write_now(b"next frame")
    with pytest.raises(trio.ClosedResourceError):
        await edge.send_all(b"next frame")
    with pytest.raises(trio.BrokenResourceError):  # a reset, not an orderly end
        while await peer.receive_some():
            pass
    await peer.aclose()


async def test_a_write_that_takes_too_long_destroys_the_socket() -> None:
    edge, peer = await pair(send_seconds=0.05)
    assert not edge.write_now(BIG)
    assert edge.clogged
    with pytest.raises(trio.BrokenResourceError):
        await edge.send_all(b"")
    assert edge.broken
    await peer.aclose()


async def test_a_peer_that_went_is_told_by_the_next_write() -> None:
    edge, peer = await pair()
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        edge.write_now(b"hello?")
    assert edge.broken


async def test_closing_lets_the_peer_read_what_was_said_last() -> None:
    edge, peer = await pair()
    await peer.send_all(b"unread " * 100)  # closing over these would reset the connection
    assert edge.write_now(b"goodbye")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.aclose)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send_all(b"more")
        assert await read(peer, 100) == b"goodbye"
        await peer.aclose()


async def test_closing_after_half_a_frame_resets() -> None:
    edge, peer = await pair()
    assert not edge.write_now(BIG)
    assert edge.clogged
    await edge.aclose()
    with pytest.raises(trio.BrokenResourceError):
        while await peer.receive_some():
            pass
    await peer.aclose()


async def test_what_was_read_before_is_read_first() -> None:
    original, peer = await pair()
    replayed = SocketEdge(original._transport, b"GET / HTTP/1.1", send_seconds=1)
    await peer.send_all(b"frames")
    assert await replayed.receive_some(3) == b"GET"
    assert await replayed.receive_some() == b" / HTTP/1.1"
    assert await replayed.receive_some() == b"frames"
    replayed.abort()
    await peer.aclose()


async def test_streams_without_a_socket_take_the_slow_way() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    edge = SocketEdge(ours, send_seconds=1)
    assert not edge.write_now(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.send_all, b"x")
        assert await theirs.receive_some() == b"x"


async def test_nothing_is_written_while_the_stream_is_closing() -> None:
    """Seen: the pump's slow path wrote to a socket that was saying goodbye."""
    edge, peer = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert not edge.write_now(b"late")
        with pytest.raises(trio.ClosedResourceError):
            await edge.send_all(b"late")
        await edge.aclose()  # a second time is no trouble
        assert await read(peer, 1) == b""
        await peer.aclose()
