"""Opens the port and accepts connections, through bursts and through a lack of descriptors."""

import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import trio

from hub.web.messages import Answer, Peer

log = logging.getLogger(__name__)

# What may wait to be accepted. The kernel cuts this down to its own limit (Linux: 4,096 in
# net.core.somaxconn); beyond that, a burst of connections waits for a second try of TCP.
BACKLOG: Final = 65_535

# Descriptors that are not for clients: database, calls to models, files, the listeners.
RESERVED_FILES: Final = 256

# macOS allows "unlimited" descriptors, but setrlimit() refuses more than OPEN_MAX.
_MACOS_FILES: Final = 10_240

# Out of descriptors, or of memory for sockets: it passes when somebody leaves.
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_RETRY_SECONDS: Final = 0.1

# A connection too many is told so, if it reads that at once; and only so many at a time,
# since each of these takes a descriptor as well.
_TURN_AWAY_SECONDS: Final = 2.0
_TURNED_AWAY: Final = 64


def _full() -> bytes:
    body = Answer.error(503, "overloaded", "Too many people are connected just now.").body
    return (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
        b"retry-after: 5\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
    ) % (len(body), body)


_FULL: Final = _full()

Handle: TypeAlias = Callable[[trio.abc.Stream, Peer], Awaitable[None]]


class ListenError(Exception):
    """The port cannot be opened; its text tells a person why and what to do."""


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Open the port on every address that `host` has; at least one.

    Args:
        host: a name or an address; ``""`` is every address of this machine.
        port: 0 for a free one, then on the first address only, so that there is one port.

    Raises:
        ListenError: none of the addresses can be opened.

    """
    opened: list[trio.SocketListener] = []
    problem: OSError | None = None
    for family, address in await _addresses(host, port):
        try:
            opened.append(await _open(family, address))
        except OSError as error:
            # An address family that this machine lacks doesn't matter if another one works;
            # a port that is taken on one of the addresses does.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                await _close(opened)
                raise ListenError(_sentence(error, host, port)) from error
            problem = error
        if port == 0 and opened:
            break
    if not opened:
        raise ListenError(_sentence(problem, host, port)) from problem
    return opened


async def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    if not 0 <= port <= 65_535:
        raise ListenError(f"{port} is not a port; ports are numbers from 0 to 65535.")
    try:
        found = await trio.socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ListenError(f"There is no host {host!r} to listen on.") from error
    return [(int(family), address) for family, _, _, _, address in found]  # type: ignore[misc]


async def _open(family: int, address: tuple[str, int]) -> trio.SocketListener:
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind(address)
        sock.listen(BACKLOG)
        return trio.SocketListener(sock)
    except BaseException:
        sock.close()
        raise


async def _close(listeners: Sequence[trio.SocketListener]) -> None:
    for listener in listeners:
        await trio.aclose_forcefully(listener)


def _sentence(error: OSError | None, host: str, port: int) -> str:
    place = f"port {port} on {host or 'this machine'}"
    match error.errno if error is not None else None:
        case errno.EADDRINUSE:
            return f"Something else already listens at {place}. Stop it, or choose another port."
        case errno.EACCES | errno.EPERM:
            return f"No permission to listen at {place}. Choose a port from 1024 on."
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT | None:
            return f"This machine has no address {host}, so it cannot listen there."
    return f"Cannot listen at {place}: {os.strerror(error.errno or 0) if error else 'unknown'}."


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _MACOS_FILES):
        if soft == resource.RLIM_INFINITY or 0 <= wanted <= soft:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        soft = wanted
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def most_connections(files: int) -> int:
    """Return how many connections a process with so many files may accept."""
    return files - RESERVED_FILES if files > 2 * RESERVED_FILES else max(files // 2, 1)


async def serve(
    listeners: Sequence[trio.abc.Listener[trio.SocketStream]],
    handle: Handle,
    *,
    connections: int,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept connections until cancelled, each in a task of its own; closes the listeners.

    A listener whose socket is closed meanwhile accepts no more; its connections go on.

    An error of `handle` is logged and ends that connection only.

    Args:
        listeners: from `open_listeners`.
        handle: serves one connection; its stream is closed when it returns.
        connections: how many at a time; one more is answered 503 and closed.
        task_status: started when connections are accepted.

    """
    async with trio.open_nursery() as nursery:
        door = _Door(handle, connections, nursery)
        for listener in listeners:
            await nursery.start(door.accept_from, listener)
        task_status.started()


class _Door:
    """Lets connections in, counts them, and turns away what is too many."""

    def __init__(self, handle: Handle, connections: int, nursery: trio.Nursery) -> None:
        self._handle: Final = handle
        self._connections: Final = connections
        self._nursery: Final = nursery
        self._inside = 0
        self._leaving = 0

    async def accept_from(
        self,
        listener: trio.abc.Listener[trio.SocketStream],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept from one listener, and close it at the end."""
        async with listener:
            task_status.started()
            with suppress(trio.ClosedResourceError):
                while True:
                    self._admit(await _accept(listener))

    def _admit(self, stream: trio.SocketStream) -> None:
        # Counted here and not in the task: a burst is accepted faster than its tasks start.
        if self._inside < self._connections:
            self._inside += 1
            self._nursery.start_soon(self._serve, stream)
        elif self._leaving < _TURNED_AWAY:
            if not self._leaving:
                log.warning("%s connections are open; more are turned away", self._inside)
            self._leaving += 1
            self._nursery.start_soon(self._turn_away, stream)
        else:
            stream.socket.close()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            await self._handle(stream, _peer(stream))
        except Exception:  # one connection's error ends that connection
            log.exception("A connection failed")
        finally:
            self._inside -= 1
            await trio.aclose_forcefully(stream)

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(_TURN_AWAY_SECONDS):
                await stream.send_all(_FULL)
                await stream.send_eof()
                while await stream.receive_some():
                    pass  # else closing would reset the connection and eat the answer
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._leaving -= 1
            await trio.aclose_forcefully(stream)


async def _accept(listener: trio.abc.Listener[trio.SocketStream]) -> trio.SocketStream:
    """Accept, trying again for as long as the system is short of descriptors or memory."""
    told = False
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            if not told:  # once for each shortage, not ten times a second
                log.error("No connection can be accepted for now: %s", error.strerror)  # noqa: TRY400
                told = True
            await trio.sleep(_RETRY_SECONDS)


def _peer(stream: trio.SocketStream) -> Peer:
    return Peer(client=_end(stream.socket.getpeername), server=_end(stream.socket.getsockname))


def _end(name: Callable[[], object]) -> tuple[str, int] | None:
    try:
        found = name()
    except OSError:  # it has gone already
        return None
    match found:
        case (str(host), int(port), *_):
            return host, port
    return None  # a Unix socket, whose ends have no such names
