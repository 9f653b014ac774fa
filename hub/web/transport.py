"""Bytes to and from a peer, each write with its deadline and a farewell that is heard."""

from typing import Final

import trio

from hub.web.messages import HttpLimits

READ_BYTES: Final = 64 * 1024


class PeerGone(OSError):
    """The peer has gone, or is so slow that it counts as gone; nothing reaches it any more."""


class Transport:
    """A stream with the limits of HTTP. Read by one task at a time, written by one."""

    def __init__(self, stream: trio.abc.Stream, limits: HttpLimits) -> None:
        self.stream: Final = stream
        self.limits: Final = limits
        self.ended = False  # the peer has ended its side

    async def read(self) -> bytes:
        """Return what has come, ``b""`` at the end. The deadline is the caller's.

        Raises:
            PeerGone: the connection broke.

        """
        try:
            data = bytes(await self.stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone from error
        self.ended = not data
        return data

    async def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            PeerGone: the connection broke, or a piece took longer than `write_seconds`.

        """
        step = self.limits.write_bytes
        view = memoryview(data)
        for start in range(0, len(data), step):
            await self._write_piece(view[start : start + step])

    async def _write_piece(self, piece: memoryview) -> None:
        written = False
        try:
            with trio.move_on_after(self.limits.write_seconds):
                await self.stream.send_all(piece)
                written = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone from error
        finally:
            if not written:  # nobody knows how much of it went out: the stream is of no use
                await trio.aclose_forcefully(self.stream)
        if not written:
            raise PeerGone

    async def linger(self, *, unread: bool) -> None:
        """Say goodbye such that the last answer is read before the connection is torn down.

        Closing a socket that holds unread bytes resets it, and a reset makes the peer drop
        what it hasn't read yet. So our side is ended, and the rest of theirs thrown away
        until they end it too or `linger_seconds` are over (RFC 9112, 9.6).

        Args:
            unread: the peer may be sending still. TLS cannot end one side alone, so without
                that there is nothing to wait for.

        """
        try:
            with trio.move_on_after(self.limits.linger_seconds):
                if isinstance(self.stream, trio.abc.HalfCloseableStream):
                    await self.stream.send_eof()
                elif not unread:
                    await self.stream.aclose()
                    return
                while not self.ended:
                    await self.read()
        except (PeerGone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone already
