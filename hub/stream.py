"""The stream under a WebSocket: who may write to the socket, and when.

Two parties write: the pump, without waiting (`write_now`), and tasks that may wait
(`send_all`: trio-websocket's handshake, pongs and close, and a client's slow path). The
rule that keeps frames whole lives here:

- While anybody waits in `send_all`, `write_now` takes nothing.
- If `write_now` gets only a part out, the rest goes out before anything else.
- A write that is cut short, by deadline or cancel, destroys this socket (invariant 1): the
  peer must never see the next frame inside the last.
"""

import socket
import struct
from contextlib import suppress
from os import write
from typing import Protocol, cast

import trio

# Time for a peer that stays silent to take in what we said last, before the socket is
# closed under it; and what it may still send meanwhile. Closing with unread bytes in the
# socket sends a reset, and a reset eats what the peer has not read yet (RFC 9112 9.6).
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024

CLOSE_FRAME = b"\x88"
"""How a close frame begins: whole, opcode 8 (RFC 6455, 5.2)."""

_RESET = struct.pack("ii", 1, 0)


class _HasSocket(Protocol):
    socket: trio.socket.SocketType


class SocketEdge(trio.abc.Stream):
    """A transport whose one rule is that frames stay whole; see the module's own text.

    Args:
        transport: a SocketStream, or an SSLStream over one: that never takes `write_now`.
        received: what was read from the transport already; it is read first.
        send_seconds: how long a write may take before the peer is given up.

    """

    def __init__(
        self, transport: trio.abc.Stream, received: bytes = b"", *, send_seconds: float
    ) -> None:
        self._transport = transport
        self._received = received
        self._send_seconds = send_seconds
        self._lock = trio.StrictFIFOLock()
        self._rest = b""
        self._busy = False
        self._closed = False
        self._leaving = False
        self._over = False  # a close frame is out, and nothing may follow it
        self._fd = -1
        if isinstance(transport, trio.SocketStream):
            self._fd = transport.socket.fileno()
        self.free = self._fd
        """The descriptor to write to without waiting; -1 while nobody may.

        For the pump's loop, in which a call of `write_now` would be felt. Who writes to it tells
        by `keep` or `abort` what did not go well.
        """
        self.heard = trio.current_time()
        """When the peer was last heard of, in trio's time."""

    @property
    def broken(self) -> bool:
        """Nothing can be written any more."""
        return self._closed

    def write_now(self, data: bytes) -> bool:
        """Write without waiting; True if all of `data` is out.

        Otherwise either nothing of it was taken, or, if `clogged` is true now, all of it:
        what is left of it is kept, and goes out first of all with the next `send_all`.

        Raises:
            trio.BrokenResourceError: the peer is gone.

        """
        if self.free < 0:
            if self._over:
                raise trio.BrokenResourceError("the last frame was a goodbye")
            return False
        try:
            written = write(self.free, data)
        except BlockingIOError:
            return False
        except OSError as error:
            self.abort()
            raise trio.BrokenResourceError from error
        if written == len(data):
            return True
        self.keep(data[written:])
        return False

    def keep(self, rest: bytes) -> None:
        """Take note of what a write, which got a part out, has left: it is sent first of all."""
        self._rest = rest
        self._busy = True
        self.free = -1

    @property
    def clogged(self) -> bool:
        """A part of what was taken has yet to be sent with `send_all`."""
        return bool(self._rest)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write what is left of an earlier write, then `data`.

        Raises:
            trio.BrokenResourceError: the peer is gone, or too slow; the socket is closed.

        """
        async with self._lock:
            if self._closed or self._leaving:
                raise trio.ClosedResourceError
            if self._over:
                raise trio.BrokenResourceError("the last frame was a goodbye")
            self._busy = True
            self.free = -1
            whole = False
            try:
                with trio.move_on_after(self._send_seconds):
                    await self._transport.send_all(self._rest + bytes(data))
                    whole = True
            finally:
                if not whole:
                    self.abort()
            if not whole:
                raise trio.BrokenResourceError("the peer takes nothing in")
            self._rest = b""
            self._busy = False
            # A room may have news while trio-websocket answers a close frame by itself, before
            # the client hears of it (RFC 6455, 5.5.1: no data after a close frame).
            self._over = bytes(data[:1]) == CLOSE_FRAME
            if not self._over:
                self.free = self._fd

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a write might get through; the deadline is the caller's."""
        async with self._lock:
            await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read; what was received before this object was made comes first."""
        if self._received:
            await trio.lowlevel.checkpoint()
            data, self._received = self._received, b""
            if max_bytes is not None and len(data) > max_bytes:
                data, self._received = data[:max_bytes], data[max_bytes:]
            return data
        try:
            data = bytes(await self._transport.receive_some(max_bytes))
        except OSError as error:  # a socket closed under a reader, on some systems
            raise trio.BrokenResourceError from error
        self.heard = trio.current_time()
        return data

    def abort(self) -> None:
        """Close the socket at once, with a reset; whoever waits on it is woken."""
        if self._closed:
            return
        self._closed = self._busy = True
        self._fd = self.free = -1
        bottom = self._transport
        while isinstance(bottom, trio.SSLStream):
            bottom = bottom.transport_stream
        sock = cast("_HasSocket", bottom).socket
        with suppress(OSError):  # already gone; closing is all that is left
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()

    async def aclose(self) -> None:
        """Close after the peer had time to take in what was said last; cancelled: at once."""
        if self._closed or self._leaving:
            await trio.lowlevel.checkpoint()
            return
        if self._busy:  # a half-written frame, or somebody stuck in a write
            self.abort()
            await trio.lowlevel.checkpoint()
            return
        self._busy = self._leaving = True
        self._fd = self.free = -1
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await self._linger()
        finally:
            self._closed = True
            with trio.move_on_after(LINGER_SECONDS):
                await self._transport.aclose()

    async def _linger(self) -> None:
        if isinstance(self._transport, trio.SocketStream):
            try:
                await self._transport.send_eof()
                left = LINGER_BYTES
                while left > 0 and (data := await self._transport.receive_some(65536)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass  # gone already, or its reader does the waiting
