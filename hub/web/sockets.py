"""The way from a WebSocket handshake to a client: checked over HTTP, then taken over."""

import logging
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import trio
import trio_websocket

from hub.client import Client, Conversation
from hub.conversation import TupleConversation
from hub.errors import BadRequest, HubError, NotFound
from hub.hub import Hub
from hub.ids import secret_id
from hub.names import guest_name
from hub.object_conversation import ObjectConversation
from hub.records import User
from hub.stream import SocketEdge
from hub.web.http import Takeover
from hub.web.messages import Answer, Request
from hub.web.sessions import COOKIE, Doors, Sessions, Visitor
from hub.wire.dialect import Dialect
from hub.wire.objects import WHOLE
from hub.wire.tuples import SUBPROTOCOL, TUPLES

logger = logging.getLogger(__name__)

PATHS = ("/ws", "/", "/chat")

# Time for the second half of the handshake, which was checked already.
HANDSHAKE_SECONDS = 10.0


class Sockets:
    """Decides on handshakes (`upgrade`), and runs the clients that come of them."""

    def __init__(self, hub: Hub, sessions: Sessions, doors: Doors) -> None:
        self._hub = hub
        self._sessions = sessions
        self._doors = doors

    async def upgrade(self, request: Request) -> Answer | Takeover:
        """Refuse a handshake with an answer, or return who takes the connection over."""
        try:
            if request.path not in PATHS:
                raise NotFound("There is no WebSocket here; use /ws.")
            subprotocol = self._subprotocol(request)
            visitor = await self._visitor(request)
        except HubError as error:
            return Answer.error(error.status, error.code, str(error))
        user = visitor.user if visitor else self._passer_by()
        session = visitor.session.id if visitor else None
        peer = request.peer.client
        address = peer[0] if peer else "somewhere"

        async def take_over(stream: trio.abc.Stream, received: bytes) -> None:
            edge = SocketEdge(stream, received, send_seconds=self._hub.settings.send_timeout)
            client = Client(
                user=user,
                session=session,
                address=address,
                stream=edge,
                dialect=self._dialect(subprotocol),
                ready=self._hub.pump.client_has,
            )
            await self._serve(client, self._conversation(subprotocol), subprotocol)

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
        host = _text(request, b"host")
        self._doors.check_host(host)
        self._doors.check_origin(_text(request, b"origin"), host)
        visitor = await self._sessions.visitor(cookie_of(_text(request, b"cookie")))
        if visitor is not None:
            tokens = parse_qs(request.query.decode("latin-1")).get("csrf", [None])
            self._sessions.check_csrf(visitor.session, tokens[0])
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
