import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define, field

from hub.limits import Places
from hub.web import listener
from hub.web.listener import (
    ListenError,
    most_connections,
    open_listeners,
    raise_file_limit,
    serve,
)
from hub.web.messages import Peer
from tests.web.raw import Client, serving, site


async def test_a_free_port_on_one_address() -> None:
    (one,) = await open_listeners("localhost", 0)
    async with one:
        assert one.socket.getsockname()[1] > 0


async def test_every_address() -> None:
    (probe,) = await open_listeners("127.0.0.1", 0)
    port = probe.socket.getsockname()[1]
    await probe.aclose()
    opened = await open_listeners("", port)
    try:
        assert "0.0.0.0" in [one.socket.getsockname()[0] for one in opened]
        async with await trio.open_tcp_stream("127.0.0.1", port):
            pass
    finally:
        for one in opened:
            await one.aclose()


async def test_a_port_in_use() -> None:
    (one,) = await open_listeners("127.0.0.1", 0)
    async with one:
        port = one.socket.getsockname()[1]
        with pytest.raises(ListenError, match=f"already listens at port {port} on 127.0.0.1"):
            await open_listeners("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "port", "sentence"),
    [
        ("no.such.host.invalid", 0, "no host 'no.such.host.invalid'"),
        ("x" * 300, 0, "no host"),
        ("192.0.2.1", 0, "no address 192.0.2.1"),
        ("127.0.0.1", 70_000, "70000 is not a port"),
        ("127.0.0.1", -1, "-1 is not a port"),
    ],
)
async def test_what_cannot_be_opened(host: str, port: int, sentence: str) -> None:
    with pytest.raises(ListenError, match=sentence):
        await open_listeners(host, port)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.EACCES, "No permission to listen at port 80"), (errno.ENOTSUP, "Cannot listen at")],
)
async def test_errors_of_the_system_in_words(
    code: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(family: int, address: object) -> trio.SocketListener:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(listener, "_open", refuse)  # root may open port 80
    with pytest.raises(ListenError, match=sentence):
        await open_listeners("127.0.0.1", 80)


@define(slots=False, eq=False)
class Flaky(trio.abc.Listener[trio.SocketStream]):
    """Fails with the given errors first, then hands out one connection, then nothing."""

    errors: list[int]
    stream: trio.SocketStream
    closed: bool = field(default=False, init=False)

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, os.strerror(code))
        if self.closed:
            await trio.sleep_forever()
        self.closed = True
        return self.stream

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_shortage_is_waited_out_and_told_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    served = trio.Event()

    async def handle(stream: trio.abc.Stream, peer: Peer) -> None:
        served.set()

    shortages = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS] * 5
    flaky = Flaky(shortages, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    with ours:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, [flaky], handle)
            await served.wait()
            assert trio.current_time() == pytest.approx(2.0)
            nursery.cancel_scope.cancel()
    assert len(caplog.records) == 1


async def _serve(
    listeners: list[Flaky], handle: Callable[[trio.abc.Stream, Peer], Awaitable[None]]
) -> None:
    await serve(listeners, handle, connections=10)


async def test_really_out_of_descriptors() -> None:
    """In a process of its own, where running out hurts nobody else."""
    code = """
import os, resource, socket, trio
from hub.web.listener import open_listeners, serve

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    async def handle(stream, peer):
        await stream.send_all(b"hello")
    (listener,) = await open_listeners("127.0.0.1", 0)
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        client = socket.socket()
        hoard = []
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        async def run(*, task_status):
            await serve([listener], handle, connections=10, task_status=task_status)
        await nursery.start(run)
        client.connect(("127.0.0.1", port))
        await trio.sleep(0.3)
        for fd in hoard: os.close(fd)
        client.setblocking(True); client.settimeout(10)
        print(await trio.to_thread.run_sync(client.recv, 5))
        nursery.cancel_scope.cancel()
trio.run(main)
"""
    done = await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    )
    assert done.stdout == "b'hello'\n"
    assert done.stderr.count("No connection can be accepted for now") == 1


@asynccontextmanager
async def listening(
    handle: Callable[[trio.abc.Stream, Peer], Awaitable[None]], connections: int = 10
) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
    (one,) = await open_listeners("127.0.0.1", 0)
    address = one.socket.getsockname()
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(await trio.open_tcp_stream(*address)))
        return clients[-1]

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve([one], handle, connections=connections, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            with trio.fail_after(30):
                yield connect
        finally:
            for client in clients:
                await trio.aclose_forcefully(client.stream)
            nursery.cancel_scope.cancel()
    with pytest.raises(OSError, match="all attempts"):  # the port is closed behind it
        await trio.open_tcp_stream(*address)


async def test_who_is_at_the_other_end() -> None:
    async def handle(stream: trio.abc.Stream, peer: Peer) -> None:
        await stream.send_all(repr((peer.client, peer.server, peer.scheme)).encode())

    async with listening(handle) as connect:
        client = await connect()
        assert isinstance(client.stream, trio.SocketStream)
        ends = client.stream.socket.getsockname(), client.stream.socket.getpeername()
        assert await client.rest() == repr((*ends, "http")).encode()


async def test_a_crash_ends_one_connection_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(stream: trio.abc.Stream, peer: Peer) -> None:
        data = await stream.receive_some()
        if data == b"crash":
            raise ExceptionGroup("several", [ValueError(), KeyError()])
        await stream.send_all(data)

    async with listening(handle) as connect:
        good, bad = await connect(), await connect()
        await bad.send(b"crash")
        assert await bad.rest() == b""
        await good.send(b"fine")
        assert await good.rest() == b"fine"
    assert len(caplog.records) == 1


async def test_one_connection_too_many_is_503(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(site(), connections=2) as connect:
        one, two, three = [await connect() for _ in range(3)]
        assert (await one.get()).status == (await two.get()).status == 200
        await three.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        response = await three.response()
        assert (response.status, response.code) == (503, "overloaded")
        assert response.headers["retry-after"] == "5"
        assert await three.rest() == b""
        await one.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await (await connect()).get()).status == 200
    assert len(caplog.records) == 1


async def test_a_flood_over_the_limit_is_cut_off() -> None:
    async with serving(site(), connections=1) as connect:
        one = await connect()
        assert (await one.get()).status == 200
        more = [await connect() for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        told = 0
        for client in more:
            if (await client.rest()).startswith(b"HTTP/1.1 503"):
                told += 1
        assert told == 64
        for client in more:
            await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (await (await connect()).response()).status == 503
        assert (await one.get()).status == 200


async def test_closing_the_listener_lets_those_inside_finish() -> None:
    ended = trio.Event()

    async def handle(stream: trio.abc.Stream, peer: Peer) -> None:
        await stream.send_all(b"hello ")
        await stream.send_all(await stream.receive_some())

    (one,) = await open_listeners("127.0.0.1", 0)
    address = one.socket.getsockname()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve([one], handle, connections=1, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        client = Client(await trio.open_tcp_stream(*address))
        assert await client._exactly(6) == b"hello "
        one.socket.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(OSError, match="all attempts"):
            await trio.open_tcp_stream(*address)
        assert not ended.is_set()
        await client.send(b"bye")
        assert await client.rest() == b"bye"
        await ended.wait()
        await client.stream.aclose()


async def test_a_burst_is_served() -> None:
    files = raise_file_limit()
    count = 2_000 if files > 6_000 else files // 3
    async with serving(site(), connections=count) as connect:
        clients: list[Client] = []

        async def one() -> None:
            client = await connect()
            clients.append(client)
            assert (await client.get()).status == 200

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
        assert len(clients) == count


def test_the_limit_of_files_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_some_files_are_not_for_clients() -> None:
    assert [most_connections(files) for files in (1, 100, 1_024, 65_536)] == [1, 50, 768, 65_280]


async def test_one_address_has_so_many_connections_and_is_told_of_more() -> None:
    async def wait(stream: trio.SocketStream, _peer: Peer) -> None:
        while await stream.receive_some():
            pass

    headers = ((b"x-content-type-options", b"nosniff"),)
    places = Places(2)
    (one,) = await open_listeners("127.0.0.1", 0)
    port = one.socket.getsockname()[1]

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await serve(
            [one],
            wait,
            connections=10,
            places=places,
            counted=lambda address: address,
            headers=headers,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        with trio.fail_after(10):
            third = Client(await trio.open_tcp_stream("127.0.0.1", port))
            refused = await third.response()
            assert (refused.status, refused.code) == (429, "too_many_sockets")
            assert refused.headers["retry-after"] == "5"
            assert refused.headers["x-content-type-options"] == "nosniff"
            await third.stream.aclose()
            await streams.pop().aclose()
            while len(places) and places._inside["127.0.0.1"] > 1:  # noqa: ASYNC110
                await trio.sleep(0.001)
            streams.append(await trio.open_tcp_stream("127.0.0.1", port))
            await trio.testing.wait_all_tasks_blocked()
            assert places._inside["127.0.0.1"] == 2
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert not len(places)
