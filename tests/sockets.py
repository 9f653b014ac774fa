"""A WebSocket client whose TCP connection is closed, whatever became of it.

`trio_websocket.open_websocket` leaves it open where the handshake fails or where the server
closes first; a test in which servers are killed would be told of sockets that nobody closed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio_websocket import (
    ConnectionTimeout,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

PATIENCE = 10.0
"""Seconds to wait for what must come; a test that waits so long has failed."""


@asynccontextmanager
async def open_socket(
    port: int,
    path: str = "/ws",
    subprotocols: Sequence[str] = (),
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    host: str = "127.0.0.1",
) -> AsyncIterator[WebSocketConnection]:
    """Be connected to `port` of loopback while the block runs.

    Raises
    ------
    ConnectionRejected
        The server answered the handshake with an HTTP status.
    HandshakeError
        Nothing listens, or the handshake came to no end.
    """
    failure: Exception | None = None
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise HandshakeError from error
    async with stream:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(PATIENCE):
                        ws = await wrap_client_stream(
                            nursery,
                            stream,
                            f"{host}:{port}",
                            path,
                            subprotocols=subprotocols,
                            extra_headers=list(headers),
                            max_message_size=64 << 20,
                        )
                except trio.TooSlowError:
                    raise ConnectionTimeout from None
                try:
                    yield ws
                except Exception as error:  # noqa: BLE001 - raised again
                    failure = error  # below, outside of the nursery's group
                with trio.move_on_after(PATIENCE):
                    await ws.aclose()
                await trio.aclose_forcefully(stream)
        except* HandshakeError as group:
            failure = group.exceptions[0]
    if failure is not None:
        raise failure
