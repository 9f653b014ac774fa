"""Who asks, over HTTP: what a route needs to know of it."""

from starlette.requests import Request

from hub.errors import Forbidden
from hub.records import Session
from hub.web.entrance import Ask, Entrance
from hub.web.gate import Gate
from hub.web.sessions import COOKIE, Visitor

SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110 section 9.2.1)."""


class Callers:
    """Who asks, over HTTP; looked up, and counted, once a request."""

    def __init__(self, entrance: Entrance, gate: Gate) -> None:
        self._entrance = entrance
        self._gate = gate

    async def visitor(self, request: Request) -> Visitor | None:
        """Return who asks, or None; see `Entrance.visitor`.

        Raises:
            TooMany: they ask for more than their limits.

        """
        if hasattr(request.state, "visitor"):
            known: Visitor | None = request.state.visitor
            return known
        found = await self._entrance.visitor(self.ask(request))
        if found is not None:
            address = address_of(request)
            self._gate.count(found.user.id, address, request.method, request.url.path)
        request.state.visitor = found
        return found

    async def known(self, request: Request) -> Visitor:
        """Return who asks.

        Raises:
            Unauthorized: nobody whom we let in.

        """
        visitor = await self.visitor(request)
        if visitor is None:
            raise self._entrance.stranger()
        return visitor

    def ask(self, request: Request) -> Ask:
        """Gather what the request says of who asks."""
        return self._entrance.ask(
            request.headers.getlist,
            cookie=request.cookies.get(COOKIE),
            csrf=request.headers.get("x-csrf-token"),
            proxied=getattr(request.state, "proxy", None) is not None,
            changes=request.method not in SAFE,
        )


def session_by_cookie(visitor: Visitor) -> Session:
    """Return a browser's session: what is about passwords and tokens is no program's business.

    Raises:
        Forbidden: it is a program with a token, which may have leaked.

    """
    if visitor.program:
        raise Forbidden("A token can't do this. Log in with a browser.", code="no_tokens")
    return visitor.session


def address_of(request: Request) -> str:
    """Return where a request comes from, for limits and logs."""
    return request.client.host if request.client else "somewhere"
