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

from hub.limits import Places, network_of
from hub.web.messages import Answer, Headers, Peer

log = logging.getLogger(__name__)
security = logging.getLogger("hub.security")

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

# The log tells of those no more often.
_QUIET_SECONDS: Final = 10.0


_RETRY: Final = (b"retry-after", b"5")
FULL: Final = Answer.error(503, "overloaded", "Too many people are connected just now.", [_RETRY])
CROWDED: Final = Answer.error(
    429, "too_many_sockets", "Too many connections are open from where you are.", [_RETRY]
)

Handle: TypeAlias = Callable[[trio.SocketStream, Peer], Awaitable[None]]


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
    places: Places | None = None,
    counted: Callable[[str], str | None] = network_of,
    headers: Headers | None = (),
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept connections until cancelled, each in a task of its own; closes the listeners.

    A listener whose socket is closed meanwhile accepts no more; its connections go on.

    An error of `handle` is logged and ends that connection only.

    Args:
        listeners: from `open_listeners`.
        handle: serves one connection; its stream is closed when it returns.
        connections: how many at a time; one more is answered 503 and closed.
        places: how many of one key may be open at a time; one more is answered 429 and closed.
        counted: gives the key of an address; None: it is not counted.
        headers: go with those answers; None: there is no answer, since the peer would not
            understand it before a TLS handshake.
        task_status: started when connections are accepted.

    """
    async with trio.open_nursery() as nursery:
        door = _Door(handle, _Crowd(connections, places, counted), headers, nursery)
        for listener in listeners:
            await nursery.start(door.accept_from, listener)
        task_status.started()


class _Crowd:
    """Who is inside: how many, and how many of each key."""

    def __init__(
        self, most: int, places: Places | None, counted: Callable[[str], str | None]
    ) -> None:
        self.inside = 0
        self._most: Final = most
        self._places: Final = places
        self._counted: Final = counted

    def enter(self, peer: Peer) -> Answer | None:
        """Let somebody in, or say why not."""
        if self.inside >= self._most:
            return FULL
        key = self._key(peer)
        if self._places is not None and key is not None and not self._places.enter(key):
            return CROWDED
        self.inside += 1
        return None

    def leave(self, peer: Peer) -> None:
        """Let go who was let in."""
        self.inside -= 1
        key = self._key(peer)
        if self._places is not None and key is not None:
            self._places.leave(key)

    def _key(self, peer: Peer) -> str | None:
        return self._counted(peer.client[0]) if peer.client else None


class _Door:
    """Lets connections in, and turns away what is too many."""

    def __init__(
        self, handle: Handle, crowd: _Crowd, headers: Headers | None, nursery: trio.Nursery
    ) -> None:
        self._handle: Final = handle
        self._crowd: Final = crowd
        self._headers: Final = headers
        self._nursery: Final = nursery
        self._leaving = 0
        self._quiet_until = 0.0

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
        peer = _peer(stream)
        answer = self._crowd.enter(peer)
        if answer is None:
            self._nursery.start_soon(self._serve, stream, peer)
        elif self._leaving < _TURNED_AWAY and self._headers is not None:
            self._tell(answer, peer)
            self._leaving += 1
            self._nursery.start_soon(self._turn_away, stream, answer.to_bytes(self._headers))
        else:
            self._tell(answer, peer)
            stream.socket.close()

    def _tell(self, answer: Answer, peer: Peer) -> None:
        now = trio.current_time()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _QUIET_SECONDS
        if answer is FULL:
            log.warning("%s connections are open; more are turned away", self._crowd.inside)
        else:
            address = peer.client[0] if peer.client else "somewhere"
            security.warning("too many connections from %s; more are turned away", address)

    async def _serve(self, stream: trio.SocketStream, peer: Peer) -> None:
        try:
            await self._handle(stream, peer)
        except Exception:  # one connection's error ends that connection
            log.exception("A connection failed")
        finally:
            self._crowd.leave(peer)
            await trio.aclose_forcefully(stream)

    async def _turn_away(self, stream: trio.SocketStream, answer: bytes) -> None:
        try:
            with trio.move_on_after(_TURN_AWAY_SECONDS):
                await stream.send_all(answer)
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
