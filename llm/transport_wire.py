"""A connection to a server: bytes in, bytes out, and an end at any moment without waiting."""

import os
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import httpx
import trio
from attrs import frozen

from llm.rounds import watching

# Bytes of one read, and so what a slow reader makes us hold; as many as a record of TLS has.
MAX_READ = 16 * 1024


@frozen
class Origin:
    """Where a connection goes; requests to the same origin can share it."""

    secure: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> "Origin":
        """Take it from a URL.

        Raises:
            httpx.UnsupportedProtocol: it is neither http nor https.

        """
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.UnsupportedProtocol("The address must begin with http:// or https://.")
        secure = url.scheme == "https"
        return cls(secure, url.raw_host.decode("ascii"), url.port or (443 if secure else 80))


class Wire(ABC):
    """One connection. Errors are those of httpx."""

    def __init__(self, sockets: trio.SocketStream) -> None:
        self._socket = sockets.socket

    @abstractmethod
    async def read(self) -> bytes:
        """Wait for bytes; none mean that the other side closed.

        Raises:
            httpx.ReadError: the connection broke, or we closed it.

        """

    @abstractmethod
    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """Give what comes next to `take`, from another task, until it returns False.

        A shorter way than `read`, which not every connection has; it may return at any time.

        Raises:
            httpx.ReadError: as `read` does; and whatever `take` does.

        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            httpx.WriteError: the connection broke, or we closed it.

        """

    def close(self) -> None:
        """Close the socket at once; idempotent. TLS is not taken leave of: HTTP has no need."""
        self._socket.close()

    def has_news(self) -> bool:
        """Whether an idle connection can be read: it was closed, or what comes is not for us."""
        return self._socket.is_readable()


class Plain(Wire):
    """Without TLS. Reading is one wait and one system call: it is done for each token."""

    def __init__(self, sockets: trio.SocketStream) -> None:
        super().__init__(sockets)
        self._stream = sockets
        self._number = sockets.socket.fileno()
        self._watch = watching(self._number)

    async def read(self) -> bytes:
        """See `Wire`. It waits first: between two tokens there is nothing to be read."""
        while self._number >= 0:
            try:
                await self._watch.readable()
                data = os.read(self._number, MAX_READ)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise httpx.ReadError(str(error)) from error
            if len(data) == MAX_READ:
                self._watch.more()
            return data
        raise httpx.ReadError("The connection was closed.")

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """See `Wire`."""

        def read() -> bool:
            try:
                data = os.read(self._number, MAX_READ)
            except BlockingIOError:
                return True
            if len(data) < MAX_READ:
                return take(data)
            self._watch.more()  # who sends so much waits for its turn
            take(data)
            return False

        try:
            await self._watch.pour(read)
        except (OSError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(str(error)) from error

    async def write(self, data: bytes) -> None:
        """See `Wire`."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.WriteError(str(error)) from error

    def close(self) -> None:
        """See `Wire`. The number may soon be another socket's."""
        self._number = -1
        self._watch.stop()
        super().close()

    def has_news(self) -> bool:
        """See `Wire`."""
        return self._number < 0 or super().has_news()


class Secure(Wire):
    """With TLS."""

    def __init__(
        self, sockets: trio.SocketStream, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        super().__init__(sockets)
        self._stream = stream

    async def read(self) -> bytes:
        """See `Wire`."""
        try:
            return bytes(await self._stream.receive_some(MAX_READ))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.ReadError(str(error)) from error

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """See `Wire`. What comes is whole only once it is deciphered, which may need a write."""

    async def write(self, data: bytes) -> None:
        """See `Wire`."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpx.WriteError(str(error)) from error


@contextmanager
def within(seconds: float | None, error: type[httpx.TimeoutException]) -> Iterator[None]:
    """Bound a wait as httpx does: None is no bound, and it has an error for each wait."""
    try:
        with trio.fail_after(inf if seconds is None else seconds):
            yield
    except trio.TooSlowError as late:
        raise error(f"It took longer than {seconds:g} s.") from late


async def connect(origin: Origin, tls: ssl.SSLContext | None, *, name: str) -> Wire:
    """Connect, over whichever of a name's addresses answers first (RFC 8305).

    Args:
        origin: where to.
        tls: for a secure one.
        name: what the certificate must be for.

    Raises:
        httpx.ConnectError: nobody answers, or TLS failed.

    """
    try:
        sockets = await trio.open_tcp_stream(origin.host, origin.port)
        return Plain(sockets) if tls is None else await _secured(sockets, tls, name)
    except (OSError, UnicodeError, trio.BrokenResourceError) as error:
        raise httpx.ConnectError(str(error.__cause__ or error)) from error


async def _secured(sockets: trio.SocketStream, tls: ssl.SSLContext, name: str) -> Wire:
    stream = trio.SSLStream(sockets, tls, server_hostname=name, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        sockets.socket.close()
        raise
    return Secure(sockets, stream)
