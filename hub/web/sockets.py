"""The way from a WebSocket handshake to a client: checked over HTTP, then taken over."""

import logging
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import trio
import trio_websocket

from hub.client import Client, Conversation
from hub.conversation import TupleConversation
from hub.errors import BadRequest, Forbidden, HubError, NotFound
from hub.hub import Hub
from hub.ids import secret_id
from hub.limits import Limits
from hub.names import guest_name
from hub.object_conversation import ObjectConversation
from hub.records import User
from hub.stream import SocketEdge
from hub.web.entrance import Entrance
from hub.web.gate import Gate, address_of
from hub.web.http import Takeover
from hub.web.messages import Answer, Request
from hub.web.sessions import COOKIE, Visitor
from hub.wire.dialect import Dialect
from hub.wire.objects import WHOLE
from hub.wire.tuples import SUBPROTOCOL, TUPLES

logger = logging.getLogger(__name__)

PATHS = ("/ws", "/", "/chat")

# Time for the second half of the handshake, which was checked already.
HANDSHAKE_SECONDS = 10.0


class Sockets:
    """Decides on handshakes (`upgrade`), and runs the clients that come of them."""

    def __init__(self, hub: Hub, entrance: Entrance, gate: Gate, limits: Limits) -> None:
        self._hub = hub
        self._entrance = entrance
        self._gate = gate
        self._limits = limits

    async def upgrade(self, request: Request) -> Answer | Takeover:
        """Refuse a handshake with an answer, or return who takes the connection over."""
        try:
            if request.path not in PATHS:
                raise NotFound("There is no WebSocket here; use /ws.")
            subprotocol = self._subprotocol(request)
            visitor = await self._visitor(request)
            user = visitor.user if visitor else self._passer_by()
            session = visitor.session.id if visitor else None
            address = address_of(request)
            allowance = self._limits.allowance(user.id, address)
            if allowance is not None:
                allowance.take_as_user("handshake")
                allowance.enter()  # from here on nothing fails: `take_over` gives it back
        except HubError as error:
            return self._gate.refused(error, request)

        async def take_over(stream: trio.abc.Stream, received: bytes) -> None:
            edge = SocketEdge(stream, received, send_seconds=self._hub.settings.send_timeout)
            client = Client(
                user=user,
                session=session,
                address=address,
                stream=edge,
                dialect=self._dialect(subprotocol),
                ready=self._hub.pump.client_has,
                allowance=allowance,
            )
            try:
                await self._serve(client, self._conversation(subprotocol), subprotocol)
            finally:
                if allowance is not None:
                    allowance.leave()

        return take_over

    async def _serve(
        self, client: Client, conversation: Conversation, subprotocol: str | None
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(HANDSHAKE_SECONDS) as handshake:
                    request = await trio_websocket.wrap_server_stream(
                        nursery,
                        client.stream,
                        max_message_size=self._hub.settings.frame_bytes,
                    )
                    ws = await request.accept(subprotocol=subprotocol)
                if handshake.cancelled_caught:
                    nursery.cancel_scope.cancel()
                else:
                    await client.run(ws, conversation, nursery)
        except* (
            trio_websocket.ConnectionClosed,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
        ):
            pass  # the peer went in the middle of the handshake, or of saying goodbye
        except* Exception:  # invariant 2
            logger.exception("A connection from %s failed", client.address)
        finally:
            self._hub.disconnect(client)
            client.stream.abort()

    def _subprotocol(self, request: Request) -> str | None:
        if request.header(b"sec-websocket-protocol") is None:
            return None
        offered = request.tokens(b"sec-websocket-protocol")
        if SUBPROTOCOL.encode() not in offered:
            raise BadRequest(
                f"Of subprotocols, only {SUBPROTOCOL} is spoken here.", code="subprotocol"
            )
        return SUBPROTOCOL

    async def _visitor(self, request: Request) -> Visitor | None:
        ask = self._entrance.ask(
            lambda name: [
                value.decode("latin-1")
                for known, value in request.headers
                if known == name.encode()
            ],
            cookie=cookie_of(_text(request, b"cookie")),
            csrf=parse_qs(request.query.decode("latin-1")).get("csrf", [None])[0],
            proxied=request.peer.proxy is not None,
            changes=True,
        )
        visitor = await self._entrance.visitor(ask)
        if visitor is None and not self._entrance.guests:
            raise Forbidden("Log in first.", code="log_in")
        return visitor

    def _passer_by(self) -> User:
        # A program without a cookie: a guest for as long as its connection.
        return User(secret_id(), guest_name(self._hub.chance))

    def _dialect(self, subprotocol: str | None) -> Dialect:
        return TUPLES if subprotocol == SUBPROTOCOL else WHOLE

    def _conversation(self, subprotocol: str | None) -> Conversation:
        tuples = subprotocol == SUBPROTOCOL
        return TupleConversation(self._hub) if tuples else ObjectConversation(self._hub)


def cookie_of(header: str | None) -> str | None:
    """Return the session's cookie from a Cookie header."""
    try:
        morsel = SimpleCookie(header or "").get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel else None


def _text(request: Request, name: bytes) -> str | None:
    value = request.header(name)
    return None if value is None else value.decode("latin-1")
