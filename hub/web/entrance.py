"""Who comes in, and how: a cookie, a token, a proxy's word, or nothing at all.

    Authorization: Bearer   a program's API token; no cookie, so no CSRF token
    the trusted header      what a proxy of ours says of who asks; then nothing else counts
    the session's cookie    a browser; its changes need the session's CSRF token
    nothing                 a new guest, where guests are let in

HTTP and handshakes ask here alike.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec
from attrs import frozen

from hub.accounts import Accounts
from hub.errors import Conflict, Forbidden, Unauthorized
from hub.hub import Hub
from hub.names import clean
from hub.oidc import Identity, Oidc
from hub.records import Session, User
from hub.settings import SettingError, Settings
from hub.store.contract import KEY_LENGTH
from hub.tokens import PREFIX, Tokens
from hub.watch import Watch, session_of
from hub.web.sessions import Sessions, Visitor, is_loopback

security = logging.getLogger("hub.security")

Auth: TypeAlias = Literal["guests", "accounts", "invite"]
Registration: TypeAlias = Literal["open", "invite", "closed"]


class Access(msgspec.Struct, frozen=True):
    """What the page must know to let somebody in; see docs/accounts.md."""

    auth: Auth
    registration: Registration
    passwords: bool
    oidc: str | None = None


@frozen
class Ask:
    """What a request says of who asks.

    Attributes:
        cookie: of the session.
        authorization: the header.
        csrf: the token that came with it.
        identity: the trusted header's value, if it came from a trusted proxy.
        changes: it changes something, or opens a socket: a cookie needs its CSRF token.

    """

    cookie: str | None
    authorization: str | None
    csrf: str | None
    identity: str | None
    changes: bool


class Entrance:
    """See the module's own text."""

    def __init__(
        self,
        hub: Hub,
        sessions: Sessions,
        accounts: Accounts,
        tokens: Tokens,
        watch: Watch,
        *,
        oidc: Oidc | None = None,
    ) -> None:
        self.sessions = sessions
        self.accounts = accounts
        self.tokens = tokens
        self.watch = watch
        self.oidc = oidc
        self.access = access(hub.settings, oidc.name if oidc else None)
        self._hub = hub
        self._by_header = bool(hub.settings.trusted_header)

    def ask(
        self,
        headers: Callable[[str], Sequence[str]],
        *,
        cookie: str | None,
        csrf: str | None,
        proxied: bool,
        changes: bool,
    ) -> Ask:
        """Gather what a request says of who asks.

        Args:
            headers: gives all values of a header.
            cookie: of the session.
            csrf: the token, wherever it came.
            proxied: it came through a trusted proxy.
            changes: see `Ask`.

        """
        identity = None
        if self._by_header and proxied:
            named = headers(self._hub.settings.trusted_header.lower())
            if len(named) == 1:
                identity = _text(named[0])
            elif named:  # a proxy that only adds its own lets through what the client made up
                security.warning("the trusted header came %d times; it was not used", len(named))
        authorization = next(iter(headers("authorization")), None)
        return Ask(cookie, authorization, csrf, identity, changes)

    @property
    def guests(self) -> bool:
        """Whether people may come in without an account."""
        return self.access.auth == "guests"

    async def visitor(self, ask: Ask) -> Visitor | None:
        """Return who asks; None if it is nobody whom we let in.

        Raises:
            Unauthorized: by a token that opens nothing.
            Forbidden: by a cookie, with a CSRF token that is not its own; or disabled.

        """
        if (secret := self._bearer(ask)) is not None:
            return await self._program(secret)
        visitor = await self._by_cookie(ask)
        if visitor is not None and ask.changes:
            self.sessions.check_csrf(visitor.session, ask.csrf)
        return visitor

    async def before(self, ask: Ask) -> Visitor | None:
        """Return whose session is to end when somebody logs in or registers.

        It may be a guest's from the time when guests were let in, whom `visitor` does not
        know any more, and who has had no chance to learn a CSRF token.

        Raises:
            Forbidden: they are let in, but the CSRF token is not their own.

        """
        visitor = await self._by_cookie(ask)
        if visitor is None:
            return await self.sessions.visitor(ask.cookie)
        self.sessions.check_csrf(visitor.session, ask.csrf)
        return visitor

    async def _by_cookie(self, ask: Ask) -> Visitor | None:
        visitor = await self.sessions.visitor(ask.cookie)
        if visitor is None or (visitor.user.guest and not self.guests):
            return None
        if self._by_header:
            user = await self._named_by_proxy(ask)
            return visitor if user is not None and user.id == visitor.user.id else None
        return visitor

    async def welcome(self, ask: Ask) -> tuple[Visitor, bool]:
        """Return who asks, and whether they need a new cookie.

        Raises:
            Unauthorized: they must log in first.

        """
        visitor = await self.visitor(ask)
        if visitor is not None:
            return (visitor, False) if visitor.program else await self.sessions.renewed(visitor)
        if self._by_header:
            user = await self._named_by_proxy(ask)
            if user is not None:
                before = await self.sessions.visitor(ask.cookie)
                return await self.sessions.rotate(before, user), True
        if not self.guests:
            raise self.stranger()
        return await self.sessions.begin(), True

    def stranger(self) -> Unauthorized:
        """Return the error for somebody whom we don't know."""
        if self.guests:
            return Unauthorized("Open a session first: GET /api/session.", code="no_session")
        return Unauthorized("Log in first.", code="log_in")

    async def log_in(
        self, before: Visitor | None, name: str, password: str, address: str
    ) -> Visitor:
        """Log somebody in by a password. The session that they had so far ends.

        Raises:
            HubError: see `Accounts.log_in`.

        """
        self._demand_passwords()
        person = await self.accounts.log_in(name, password, address)
        visitor = await self.sessions.rotate(before, person.user)
        if not await self.accounts.unchanged(person):
            # Locked out, or the password changed, in this very moment: after sessions had ended.
            await self.sessions.end(visitor.session)
            raise Unauthorized("Your account was changed. Log in again.", code="wrong_password")
        return visitor

    async def take_name(self, visitor: Visitor | None, name: str) -> tuple[Visitor, bool]:
        """Give somebody another name; a new guest, where guests are let in.

        Returns:
            Who they are, and whether they need a new cookie.

        Raises:
            Unauthorized: they must log in first.
            Conflict: the name is an account's, or looks like one's.

        """
        if visitor is not None:
            return await self._rename(visitor, name), False
        if not self.guests:
            raise self.stranger()
        name = clean(name, self._hub.settings.name_chars, "name")
        await self.accounts.check_free(name)
        return await self.sessions.begin(name), True

    async def register(
        self, before: Visitor | None, name: str, password: str, invite: str | None, address: str
    ) -> Visitor:
        """Make an account; a guest becomes it. The session that they had so far ends.

        Raises:
            Forbidden: not open to everybody, and no invite that works.
            Conflict: they have an account already; or see `Accounts.register`.

        """
        self._demand_passwords()
        if before is not None and not before.user.guest:
            raise Conflict("You have an account already.", code="has_account")
        guest = before.user if before else None
        with self.tokens.redeeming(invite):
            token = await self.tokens.invite(invite) if invite is not None else None
            if token is None and self.access.registration != "open":
                raise Forbidden("You need an invitation to register.", code="registration_closed")
            user = await self.accounts.register(
                name, password, guest=guest, invite=token, address=address
            )
        visitor = await self.sessions.rotate(before, user)
        self._hub.user_changed(user)
        return visitor

    async def _rename(self, visitor: Visitor, name: str) -> Visitor:
        if visitor.user.guest:
            await self.accounts.check_free(name)
            return Visitor(await self._hub.rename(visitor.user, name), visitor.session)
        user = await self.accounts.rename(visitor.user, name)
        self._hub.user_changed(user)
        return Visitor(user, visitor.session)

    async def vouched(self, before: Visitor | None, who: Identity, address: str) -> Visitor:
        """Log in whom a service vouches for. The session that they had so far ends.

        Raises:
            Forbidden: they have no account, and get none by themselves; or it is disabled.

        """
        guest = before.user if before and before.user.guest else None
        user = await self.accounts.identified(
            subject("oidc", who.issuer, who.subject),
            who.name,
            guest=guest,
            newcomers=self._hub.settings.oidc_registration == "on",
        )
        security.info("log-in of %s by %s from %s", user.id, who.issuer, address)
        visitor = await self.sessions.rotate(before, user)
        self._hub.user_changed(user)
        return visitor

    def _demand_passwords(self) -> None:
        if not self.access.passwords:
            raise Forbidden("Nobody logs in by a password here.", code="no_passwords")

    def _bearer(self, ask: Ask) -> str | None:
        scheme, _, secret = (ask.authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None  # of a proxy that asks for a password itself, for instance
        secret = secret.strip()
        # A proxy that tells who asks may also pass on a token of its own, which is not for us.
        return None if self._by_header and not secret.startswith(PREFIX) else secret

    async def _program(self, secret: str) -> Visitor:
        token = await self.tokens.api(secret)
        if token is not None:
            session = session_of(token.id, token.user, token.expires)
            user = await self._hub.people.known(session)
            if user is not None:
                return Visitor(user, session, program=True)
        raise Unauthorized("This token opens nothing (any more).", code="bad_token")

    async def _named_by_proxy(self, ask: Ask) -> User | None:
        if not ask.identity:
            return None
        user = await self.accounts.identified(
            subject("header", ask.identity), ask.identity, adopt=True
        )
        session = Session("", user.id, 0.0)
        return await self._hub.people.known(session) or user


def _text(header: str) -> str | None:
    # Headers come as Latin-1 (RFC 9110 section 5.5); proxies mostly mean UTF-8.
    try:
        return header.encode("latin-1").decode().strip() or None
    except UnicodeDecodeError:
        return header.strip() or None


def subject(*parts: str) -> str:
    """Return the name of an identity for the store."""
    whole = "|".join(parts)
    if len(whole) > KEY_LENGTH:
        raise Forbidden("The name by which you were sent here is too long.", code="bad_identity")
    return whole


def access(settings: Settings, oidc: str | None = None) -> Access:
    """Decide who may come in.

    Raises:
        SettingError: the settings contradict each other.

    """
    auth = auth_of(settings)
    if settings.registration not in {"", "on", "off"}:
        raise SettingError(f"--registration must be on or off, not “{settings.registration}”.")
    by_default = "on" if auth == "guests" else "off"
    registration: Registration = "closed"
    if auth == "invite":
        registration = "invite"
    elif (settings.registration or by_default) == "on":
        registration = "open"
    if settings.oidc_registration not in {"", "on", "off"}:
        raise SettingError("--oidc-registration must be on or off.")
    if settings.trusted_header and settings.oidc_issuer:
        raise SettingError("--trusted-header and --oidc-issuer exclude each other.")
    if settings.trusted_header:
        if not settings.trusted_proxies:
            raise SettingError("--trusted-header needs --trusted-proxies: who may send it.")
        registration = "closed"
    return Access(auth, registration, not settings.trusted_header, oidc)


def auth_of(settings: Settings) -> Auth:
    """Return how people come in; on loopback alone everybody may.

    Raises:
        SettingError: it is none of the ways.

    """
    if not settings.auth:
        alone = is_loopback(settings.host) and not settings.trusted_header
        return "guests" if alone else "accounts"
    if settings.auth not in get_args(Auth):
        ways = ", ".join(get_args(Auth))
        raise SettingError(f"--auth must be one of {ways}, not “{settings.auth}”.")
    if settings.auth == "guests" and settings.trusted_header:
        raise SettingError("--trusted-header tells who asks: --auth can't be guests with it.")
    auth: Auth = settings.auth  # type: ignore[assignment]
    return auth
