"""Between an exchange and an ASGI app (asgi.readthedocs.io/en/latest/specs/www.html, HTTP 2.4).

The app runs in the connection's own task. Beside it a second one watches whether the peer
is still there; when it has gone, the app is told `http.disconnect` and cancelled at its next
checkpoint. Nothing of a request outlives it.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import trio

from hub.web.exchange import Exchange
from hub.web.messages import Refused, Request
from hub.web.transport import PeerGone

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.4"}


async def run_app(app: App, exchange: Exchange, request: Request) -> None:
    """Answer the request with the app.

    Raises:
        Refused: the body was not acceptable, or the app failed (which is logged here).
        PeerGone: the peer went away.

    """
    bridge = _Bridge(exchange)
    error = await bridge.run(app, _scope(request))
    if bridge.refusal is not None:
        raise bridge.refusal
    if bridge.gone:
        raise PeerGone from error
    if error is not None or not exchange.complete:
        what = "failed" if error is not None else "ended without a whole response"
        # The query stays out of the log: it may hold secrets.
        log.error("%s %s: the app %s", request.method, _shown(request), what, exc_info=error)
        raise Refused.because(500, "internal", "Something went wrong on our side.")


class _Bridge:
    """What the app calls, for one request."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange: Final = exchange
        self.refusal: Refused | None = None
        self.gone = False
        self._body_given = False
        self._over: Final = trio.Event()  # the peer has gone, or the response is complete
        self._app: Final = trio.CancelScope()
        self._watch: Final = trio.CancelScope()

    async def run(self, app: App, scope: Message) -> Exception | None:
        """Run the app to its end and return the error that it ended with."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_peer)
            with self._app:
                try:
                    await app(scope, self.receive, self.send)
                except Exception as error:  # noqa: BLE001  the caller logs it
                    failure = error
            self._watch.cancel()
        return failure

    async def _watch_peer(self) -> None:
        with self._watch:
            await self.exchange.body_read.wait()
            await self.exchange.peer_gone()
            self._lose_peer()

    def _lose_peer(self) -> None:
        self.gone = True
        self._over.set()
        self._app.cancel()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if self._over.is_set() or self._body_given:
            await self._over.wait()
            return {"type": "http.disconnect"}
        try:
            body = b"" if self.exchange.body_read.is_set() else await self.exchange.read_body()
        except Refused as refusal:
            # Not raised into the app: whatever it makes of exceptions, this is the answer.
            self.refusal = refusal
            self._over.set()
            self._app.cancel()
        except PeerGone:
            self._lose_peer()
        else:
            more = not self.exchange.body_read.is_set()
            self._body_given = not more
            return {"type": "http.request", "body": body, "more_body": more}
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's `send`.

        Raises:
            PeerGone: (an OSError, as ASGI 2.4 wants) nobody hears it.

        """
        kind = message["type"]
        if kind == "http.response.start":
            self.exchange.start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body":
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"an HTTP response has no message {kind!r}")

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        try:
            await self.exchange.write(body, more=more)
        except PeerGone:
            self._lose_peer()
            raise
        if not more:
            # What the app does from now on is no longer for the peer, nor ended by its going.
            self._watch.cancel()
            self._over.set()


def _scope(request: Request) -> Message:
    return {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": request.version,
        "method": request.method,
        "scheme": request.peer.scheme,
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": request.peer.client,
        "server": request.peer.server,
        # The address of a trusted proxy, which may say more about who is behind it.
        "state": {"proxy": request.peer.proxy},
    }


def _shown(request: Request) -> str:
    return request.raw_path.decode("ascii")
