"""What is looked at before a request is answered: the host, the origin, and how often.

Nothing of ours is served under a name that is not ours (DNS rebinding), not even a file of the
page; nothing is changed for a page of another site. Who asks is not known yet, so requests
count for their address; a WebSocket's messages count for its user as well (`hub.client`).
"""

import logging
from typing import Final

import trio

from hub.errors import HubError
from hub.limits import Buckets, Kind, Limits, Rate, network_of
from hub.settings import Settings
from hub.web.messages import Answer, Request
from hub.web.refusals import refusal
from hub.web.sessions import COOKIE, Doors

security = logging.getLogger("hub.security")

SAFE: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110, 9.2.1)."""

# Refusals of one address that are logged: a flood of requests must not become one of lines.
_LINES: Final = Rate("10/min burst 20")

_COSTS: Final[dict[tuple[str, str], Kind]] = {
    ("POST", "/api/session"): "login",
    ("POST", "/api/users"): "login",
    ("POST", "/api/password"): "login",
    ("GET", "/api/oidc/start"): "login",
    ("GET", "/api/oidc/callback"): "login",
    ("POST", "/api/rooms"): "room",
    ("POST", "/api/import"): "room",
    ("POST", "/api/game/start"): "room",
    ("POST", "/api/game/message"): "prompt",
}


def open_limits(settings: Settings) -> Limits:
    """Return the limits that the owner has set."""
    return Limits(
        {
            "request": settings.limit_requests,
            "handshake": settings.limit_handshakes,
            "login": settings.limit_logins,
            "message": settings.limit_messages,
            "byte": settings.limit_bytes,
            "prompt": settings.limit_prompts,
            "room": settings.limit_rooms,
        },
        sockets=settings.limit_sockets,
        crowd=settings.limit_crowd,
        clock=trio.current_time,
    )


class Gate:
    """See the module's own text."""

    def __init__(self, doors: Doors, limits: Limits) -> None:
        self._doors: Final = doors
        self._limits: Final = limits
        self._lines: Final = Buckets(_LINES, trio.current_time)

    def refuse(self, request: Request) -> Answer | None:
        """Return what a request is refused with; None: it may go on."""
        try:
            self._check(request)
        except HubError as error:
            return self.refused(error, request)
        return None

    def refused(self, error: HubError, request: Request) -> Answer:
        """Return the answer to a request that is refused, and log who it was."""
        path = request.raw_path.decode("ascii")
        self.note(error, f"{request.method} {path}", address_of(request))
        return refusal(error, request)

    def note(self, error: HubError, what: str, address: str) -> None:
        """Log a refusal; `what` has no query, which may hold secrets."""
        if self._lines.take(network_of(address) or address) == 0:
            security.warning("refused %s: %s from %s", error.code, what, address)

    def count(self, user: str, address: str, method: str, path: str) -> None:
        """Count a request for whom it comes from; `refuse` counted it for the address.

        Raises:
            TooMany: the user did too much of it, from wherever.

        """
        allowance = self._limits.allowance(user, address)
        if allowance is not None:
            allowance.take_as_user("request")
            if kind := _COSTS.get((method, path.rstrip("/"))):
                allowance.take_as_user(kind)

    def _check(self, request: Request) -> None:
        host = _text(request, b"host")
        self._doors.check_host(host)
        if request.is_websocket or request.method not in SAFE:
            self._doors.check_origin(_text(request, b"origin"), host, request.peer.scheme)
        if request.is_websocket:
            self._limits.take("handshake", address_of(request))
        elif request.path.startswith("/api/"):
            self._count(request)

    def _count(self, request: Request) -> None:
        address = address_of(request)
        self._limits.take("request", address)
        kind = _COSTS.get((request.method, request.path.rstrip("/")))
        if kind is None and request.path == "/api/session" and not _has_cookie(request):
            kind = "login"  # it makes a guest
        if kind is not None:
            self._limits.take(kind, address)


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.peer.client[0] if request.peer.client else "somewhere"


def _has_cookie(request: Request) -> bool:
    return COOKIE.encode() in (request.header(b"cookie") or b"")


def _text(request: Request, name: bytes) -> str | None:
    value = request.header(name)
    return None if value is None else value.decode("latin-1")
