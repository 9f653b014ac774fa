"""One HTTP connection: its requests one after the other, until it closes or becomes a WebSocket.

    accept ─→ head ─┬─ a WebSocket handshake ─→ `upgrade` decides ─┬─ Answer ───→ next head
                    │                                              └─ Takeover ─→ its stream now
                    ├─ a file of public/ ─→ from memory ─→ next head
                    └─ anything else ─→ the ASGI app ─→ next head

No error leaves `serve_connection`: what the peer did wrong is answered with JSON, what we did
wrong as well and logged once, and a peer that has gone is nothing to talk about.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import trio
from attrs import field, frozen

from hub.web.asgi import App, run_app
from hub.web.exchange import Exchange, MaxBody
from hub.web.messages import MIB, Answer, Headers, HttpLimits, Peer, Refused, Request
from hub.web.proxies import Proxies
from hub.web.static import StaticFiles
from hub.web.transport import PeerGone, Transport

log = logging.getLogger(__name__)

Takeover: TypeAlias = Callable[[trio.abc.Stream, bytes], Awaitable[None]]
"""Gets the bare stream and the bytes read from it so far: the whole head of the handshake
and whatever came behind it. Nobody else reads or writes the stream from then on; when this
returns or fails, the stream is closed."""

Upgrade: TypeAlias = Callable[[Request], Awaitable[Answer | Takeover]]
"""Decides on a WebSocket handshake: an `Answer` refuses it over HTTP."""

_UNAVAILABLE = Answer.error(
    503, "overloaded", "The server is too busy just now.", [(b"retry-after", b"5")]
)
_INTERNAL = Answer.error(500, "internal", "Something went wrong on our side.")


Gate: TypeAlias = Callable[[Request], Answer | None]


def _open(_request: Request) -> None:
    """Refuse nothing."""


def _none(_request: Request) -> Headers:
    return ()


def _a_mebibyte(_request: Request) -> int:
    return MIB


@frozen
class Site:
    """All that a connection needs to know about what it serves; one for all connections.

    Attributes:
        app: answers what nobody else does.
        upgrade: decides on WebSocket handshakes; without it they are ordinary requests.
        static: files that are answered without asking the app.
        gate: asked before anything else; its answer refuses a request.
        headers: added to every response that has none of that name; names in lower case.
        headers_over_tls: gives more of those, for a request that came by https.
        max_body: how many bytes a request's body may have; more is refused with 413 before
            the app runs, or while it reads.
        proxies: those that may say who is behind them.
        tasks: run beside it for as long as it serves.

    """

    app: App
    upgrade: Upgrade | None = None
    static: StaticFiles | None = None
    gate: Gate = _open
    headers: Headers = ()
    headers_over_tls: Callable[[Request], Headers] = _none
    max_body: MaxBody = _a_mebibyte
    proxies: Proxies = field(factory=Proxies)
    tasks: Sequence[Callable[[], Awaitable[None]]] = ()
    limits: HttpLimits = field(factory=HttpLimits)


async def serve_connection(stream: trio.abc.Stream, site: Site, peer: Peer) -> None:
    """Serve a connection to its end, and close it. Raises nothing but cancellation."""
    try:
        # The takeover runs here, where nothing of the HTTP side is referred to any more: a
        # WebSocket lives for hours, and there are thousands.
        taken = await _serve_requests(stream, site, peer)
        if taken is not None:
            takeover, received = taken
            del taken
            await takeover(stream, received)
    except (PeerGone, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    except Exception:  # an error of one connection stays with it
        log.exception("A connection from %s failed", peer.client)
    finally:
        await trio.aclose_forcefully(stream)


async def _serve_requests(
    stream: trio.abc.Stream, site: Site, peer: Peer
) -> tuple[Takeover, bytes] | None:
    """Answer requests until the connection is done with, or return who takes it over."""
    transport = Transport(stream, site.limits)
    # A connection that never says anything is closed as fast as one that says half a head.
    patience = site.limits.head_seconds
    rest: bytes | None = b""
    while rest is not None:
        exchange = Exchange(transport, site.headers, site.max_body, rest)
        try:
            request = await exchange.read_head(peer, patience)
            if request is None:
                break
            request = site.proxies.seen(request)
            if request.peer.scheme == "https":
                exchange.headers = (*site.headers, *site.headers_over_tls(request))
            takeover = await _answer(site, exchange, request)
        except Refused as refusal:
            await exchange.refuse(refusal.answer)
        else:
            if takeover is not None:
                return takeover, exchange.received
        rest = await exchange.finish()
        patience = site.limits.idle_seconds
    await transport.linger(unread=not exchange.body_read.is_set())
    return None


async def _answer(site: Site, exchange: Exchange, request: Request) -> Takeover | None:
    if (refusal := site.gate(request)) is not None:
        await exchange.answer(refusal)
    elif site.upgrade is not None and request.is_websocket:
        outcome = await _decide(site.upgrade, request, site.limits.upgrade_seconds)
        if not isinstance(outcome, Answer):
            return outcome
        await exchange.answer(outcome)
    elif site.static is not None and (answer := site.static.answer(request)) is not None:
        await exchange.answer(answer)
    else:
        await run_app(site.app, exchange, request)
    return None


async def _decide(upgrade: Upgrade, request: Request, seconds: float) -> Answer | Takeover:
    try:
        with trio.move_on_after(seconds):
            return await upgrade(request)
    except Exception:  # the peer is told, the server goes on
        log.exception("The handshake on %s failed", request.raw_path.decode("ascii"))
        return _INTERNAL
    log.error("The handshake on %s took too long", request.raw_path.decode("ascii"))
    return _UNAVAILABLE
