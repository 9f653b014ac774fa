"""httpx over trio with a lean way from the socket to the reader: our own transport for it.

A model's reply comes as hundreds of small chunks, and nearly all that a token costs is
spent between `recv` and whoever reads it. Here that is one read, one call of a parser in C
(`httptools`), and one object that is iterated over; httpx's own has h11 and some seven
generators in a chain. All else is as with httpx's own: the pool and its limits, TLS, the four
timeouts and the errors. Only HTTP/1.1; no proxies: who needs one uses httpx's own.

    client = httpx.AsyncClient(transport=Transport())

A response's body can be read as always, or past httpx's generators by `body_of`.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Literal, TypeAlias

import httpx

from llm.transport_http import Incoming, request_head
from llm.transport_pool import Pool
from llm.transport_wire import Origin, Wire, connect, within

Kind: TypeAlias = Literal["fast", "stock"]

MAX_GATHERED = 64 * 1024  # bytes of a request that are sent in one write
BODY = "hubbub.body"  # key of a response's extensions

Timeouts: TypeAlias = Mapping[str, float | None]


class Transport(httpx.AsyncBaseTransport):
    """See the module's own text. It belongs to one client, which closes it."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, limits: httpx.Limits | None = None
    ) -> None:
        """Build it; nothing is sent yet.

        Args:
            tls: as `httpx.create_ssl_context` makes it, and made by it when it is needed
                and left out.
            limits: httpx's default if left out.

        """
        self._tls = tls
        self._pool = Pool(limits or httpx.Limits(max_connections=100, max_keepalive_connections=20))

    @property
    def open(self) -> int:
        """How many connections there are, used and idle."""
        return self._pool.open

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, and return the response as soon as its head is there.

        Raises:
            httpx.TransportError: as httpx's own does.

        """
        timeouts: Timeouts = request.extensions.get("timeout", {})
        origin = Origin.of(request.url)
        head = request_head(request)
        body = await self._begin(request, origin, timeouts)
        try:
            await body.send(request, head)
            incoming = await body.receive_head()
        except BaseException:
            body.close()
            raise
        return httpx.Response(
            incoming.status,
            headers=incoming.headers,
            stream=body,
            extensions={
                "http_version": b"HTTP/" + incoming.version,
                "reason_phrase": incoming.reason,
                BODY: body,
            },
        )

    async def aclose(self) -> None:
        """Close all connections, idle or not; never waits."""
        self._pool.close()

    async def _begin(self, request: httpx.Request, origin: Origin, timeouts: Timeouts) -> "Body":
        """Get a connection."""
        with within(timeouts.get("pool"), httpx.PoolTimeout):
            await self._pool.enter()
        try:
            wire = self._pool.take(origin)
            if wire is None:
                name = request.extensions.get("sni_hostname", origin.host)
                tls = self._context() if origin.secure else None
                with within(timeouts.get("connect"), httpx.ConnectTimeout):
                    wire = await connect(origin, tls, name=name)
                self._pool.add(wire)
        except BaseException:
            self._pool.leave()
            raise
        return Body(self._pool, origin, wire, request.method, timeouts)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class Body(httpx.AsyncByteStream):
    """One request and its response on one connection; iterated over, the response's body.

    It is no generator, so that whoever stops in the middle leaves nothing unfinished. The
    connection goes back to the pool with the response's last byte, and is closed by anything
    that goes wrong, cancellation included.
    """

    def __init__(
        self, pool: Pool, origin: Origin, wire: Wire, method: str, timeouts: Timeouts
    ) -> None:
        """Build it; `timeouts` are the request's own."""
        self._pool = pool
        self._origin = origin
        self._wire = wire
        self._incoming = Incoming(method)
        self._read_wait = timeouts.get("read")
        self._write_wait = timeouts.get("write")
        self._sent = False
        self._released = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return what the next read brings."""
        incoming = self._incoming
        if not incoming.parts:
            await self._read()
            if not incoming.parts:
                raise StopAsyncIteration
        return incoming.take()

    async def pour(self, take: Callable[[bytes], bool]) -> None:
        """Give the parts that come next to `take`, until it returns False; see `Wire.pour`.

        What was not given is there for the iterator, as are the end and what is wrong.
        """
        incoming = self._incoming
        if self._read_wait is not None or self._released:
            return
        if incoming.parts or incoming.whole or incoming.fault:
            return

        def feed(data: bytes) -> bool:
            incoming.feed(data)
            goes_on = not (incoming.whole or incoming.fault)
            return (not incoming.parts or take(incoming.take())) and goes_on

        try:
            await self._wire.pour(feed)
        except BaseException:
            self.close()
            raise

    async def send(self, request: httpx.Request, head: bytes) -> None:
        """Send the request, small ones in one write.

        Raises:
            httpx.WriteTimeout, httpx.LocalProtocolError: it could not be sent. A server that
                closes early is no error here: it may have said why.

        """
        with suppress(httpx.WriteError):
            async with aclosing(_framed(request)) as pieces:
                gathered = head
                async for piece in pieces:
                    gathered += piece
                    if len(gathered) >= MAX_GATHERED:
                        await self._write(gathered)
                        gathered = b""
                await self._write(gathered)
            self._sent = True

    async def receive_head(self) -> Incoming:
        """Wait for the response's head.

        Raises:
            httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError: none came.

        """
        incoming = self._incoming
        while not incoming.has_head:
            await self._feed()
        if incoming.whole:
            self._release(reusable=self._sent and incoming.reusable)
        return incoming

    def close(self) -> None:
        """Let go of the connection; one that is not at the response's end is closed."""
        self._incoming.parts.clear()
        self._release(reusable=False)

    async def aclose(self) -> None:
        """Do the same; never waits."""
        self.close()

    async def _read(self) -> None:
        """Wait for a part of the body, or for its end."""
        incoming = self._incoming
        if self._released:
            if not incoming.whole:
                raise httpx.StreamClosed
            return
        try:
            while not (incoming.parts or incoming.whole):
                await self._feed()
        except BaseException:
            self.close()
            raise
        if incoming.whole:
            self._release(reusable=self._sent and incoming.reusable)

    async def _feed(self) -> None:
        if self._incoming.fault:
            raise httpx.RemoteProtocolError(self._incoming.fault)
        if self._read_wait is None:
            data = await self._wire.read()
        else:
            with within(self._read_wait, httpx.ReadTimeout):
                data = await self._wire.read()
        self._incoming.feed(data)

    async def _write(self, data: bytes) -> None:
        if data:
            with within(self._write_wait, httpx.WriteTimeout):
                await self._wire.write(data)

    def _release(self, *, reusable: bool) -> None:
        if not self._released:
            self._released = True
            self._incoming.finish()
            self._pool.give_back(self._origin, self._wire, reusable=reusable)
            self._pool.leave()


def body_of(response: httpx.Response) -> Body | None:
    """Return the body itself, past httpx; None if another transport made the response.

    It is as the server sent it. Closing the response closes it; its errors are httpx's.
    """
    body = response.extensions.get(BODY)
    return body if isinstance(body, Body) else None


async def _framed(request: httpx.Request) -> AsyncGenerator[bytes, None]:
    """Give the pieces of a request's body as they are sent (RFC 9112, 6.3).

    Raises:
        httpx.LocalProtocolError: the body is not as long as its header says.

    """
    assert isinstance(request.stream, httpx.AsyncByteStream)
    chunked = "transfer-encoding" in request.headers
    left = int(request.headers.get("content-length", 0))
    async with AsyncExitStack() as stack:
        source = aiter(request.stream)
        if isinstance(source, AsyncGenerator):
            await stack.enter_async_context(aclosing(source))
        async for piece in source:
            if chunked:
                if piece:
                    yield b"%x\r\n%s\r\n" % (len(piece), piece)
                continue
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if chunked:
        yield b"0\r\n\r\n"
    elif left:
        raise httpx.LocalProtocolError("The body is not as long as its header says.")
