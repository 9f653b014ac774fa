"""Who is asking: sessions in signed cookies, CSRF tokens bound to them, own origins only.

A session's cookie is its id, signed; the session itself is in the store, so that it can be
ended. The CSRF token is another signature of the same id: it needs no storage, works for as
long as the session does, and is of no use with any other.
"""

import os
import random
import secrets
import time
from pathlib import Path

import itsdangerous
import msgspec
from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response

from hub.errors import Forbidden
from hub.hub import Hub
from hub.ids import secret_id
from hub.names import guest_name
from hub.records import Session, User
from hub.settings import Settings
from hub.store.contract import RemoveSession, SaveSession, SaveUser

COOKIE = "hubbub_session"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@frozen
class Visitor:
    """Somebody with a session; a program has a token that stands for one."""

    user: User
    session: Session
    program: bool = False


class Sessions:
    """See the module's own text.

    Args:
        secret: signs cookies and tokens; a new one logs everybody out.
        days: how long a session lives.

    """

    def __init__(self, hub: Hub, secret: str, days: float, chance: random.Random) -> None:
        self._hub = hub
        self.seconds = int(days * 86_400)
        self._chance = chance
        self._secret = secret
        self._cookies = itsdangerous.Signer(secret, salt="session")
        self._tokens = itsdangerous.Signer(secret, salt="csrf")

    async def visitor(self, cookie: str | None) -> Visitor | None:
        """Return whose cookie this is; None if it is nobody's, or not any more."""
        if not cookie:
            return None
        try:
            id = self._cookies.unsign(cookie).decode()
        except (itsdangerous.BadSignature, UnicodeError):
            return None
        session = await self._hub.store.session(id)
        if session is None or session.expires <= time.time():
            return None
        user = await self._hub.people.known(session)
        return Visitor(user, session) if user is not None else None

    async def begin(self, name: str | None = None) -> Visitor:
        """Make a guest and a session for them."""
        user = User(secret_id(), name or guest_name(self._chance))
        session = Session(secret_id(), user.id, time.time() + self.seconds)
        await self._hub.store.commit(SaveUser(user), SaveSession(session))
        return Visitor(user, session)

    async def rotate(self, before: Visitor | None, user: User) -> Visitor:
        """Begin a session for somebody who has shown who they are.

        Never the one that they came with: whoever put its cookie into their browser would be
        in as well (session fixation). That one ends, and its sockets are closed.
        """
        session = Session(secret_id(), user.id, time.time() + self.seconds)
        ended = [RemoveSession(before.session.id)] if before else []
        await self._hub.store.commit(*ended, SaveSession(session))
        if before is not None:
            self._hub.people.end_session(before.session.id, "You logged in.")
        return Visitor(user, session)

    async def renewed(self, visitor: Visitor) -> tuple[Visitor, bool]:
        """Let a session live on whose time is half over; returns whether it was renewed."""
        expires = time.time() + self.seconds
        if visitor.session.expires > expires - self.seconds / 2:
            return visitor, False
        session = msgspec.structs.replace(visitor.session, expires=expires)
        await self._hub.store.commit(SaveSession(session))
        return Visitor(visitor.user, session), True

    async def end(self, session: Session) -> None:
        """Log out: the session is gone, and its sockets are closed."""
        await self._hub.store.commit(RemoveSession(session.id))
        self._hub.people.end_session(session.id)

    def give_cookie(self, request: Request, response: Response, session: Session) -> None:
        """Have a browser keep the session's cookie."""
        response.set_cookie(
            COOKIE,
            self.cookie(session),
            max_age=self.seconds,
            path="/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )

    def signer(self, salt: str) -> itsdangerous.TimestampSigner:
        """Return what signs something else than sessions by the same secret."""
        return itsdangerous.TimestampSigner(self._secret, salt=salt)

    def cookie(self, session: Session) -> str:
        """Return the cookie's value."""
        return self._cookies.sign(session.id).decode()

    def csrf(self, session: Session) -> str:
        """Return the session's CSRF token."""
        return self._tokens.sign(session.id).decode()

    def check_csrf(self, session: Session, token: str | None) -> None:
        """Refuse a request whose token is not this session's.

        Raises:
            Forbidden: another's, none, or made up.

        """
        if token is None or not secrets.compare_digest(
            token.encode(errors="replace"), self.csrf(session).encode()
        ):
            raise Forbidden("Reload the page and try again.", code="csrf")


class Doors:
    """Which hosts we answer as, and pages of which origins may talk to us."""

    def __init__(self, settings: Settings) -> None:
        self._origins = {
            one.strip().rstrip("/") for one in settings.origins.split(",") if one.strip()
        }
        hosts = {one.strip().lower() for one in settings.hosts.split(",") if one.strip()}
        self._any_host = not hosts and not is_loopback(settings.host)
        self._hosts = hosts | ({*_LOOPBACK, settings.host.lower()} if not self._any_host else set())

    def check_host(self, host: str | None) -> None:
        """Refuse names that are not ours: a page of another site may have taken our address.

        Raises:
            Forbidden: not one of our names.

        """
        name = host_name(host or "")
        if not self._any_host and name not in self._hosts and not name.endswith(".localhost"):
            raise Forbidden("This server does not go by that name.", code="host")

    def check_origin(self, origin: str | None, host: str | None, scheme: str = "http") -> None:
        """Refuse pages of other origins. A program sends no origin, and may pass.

        Args:
            origin: the header.
            host: the header.
            scheme: what the client used, as far as we know.

        Raises:
            Forbidden: a foreign page.

        """
        if origin is None or origin in self._origins:
            return
        theirs, _, authority = origin.partition("://")  # no more than that: RFC 6454, 6.2
        # Behind a proxy that is not trusted with it we see http where the page was https. The
        # other way round it is another origin, which anybody on the network can play.
        ours = {"https"} if scheme == "https" else {"http", "https"}
        if theirs.lower() in ours and host and authority.lower() == host.lower():
            return
        raise Forbidden("Pages of other sites may not do this.", code="origin")


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port or the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach this address."""
    return host in _LOOPBACK or host.startswith("127.") or host.endswith(".localhost")


def secret_of(folder: Path) -> str:
    """Return the folder's secret, made at the first start, readable by its owner only.

    Raises:
        OSError: it can be neither read nor made.

    """
    path = folder / "secret"
    if not path.exists() or not path.read_text().strip():
        # Whole or not at all, also over a power cut: with half a secret anybody can sign.
        fresh = folder / f"secret.{secrets.token_hex(4)}"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return path.read_text().strip()
