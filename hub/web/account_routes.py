"""`/api/session`, `/api/users`, `/api/password`: coming in, going out, and whose account it is.

Contract: docs/accounts.md.
"""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hub.accounts import Person
from hub.commands import Command, ShortText
from hub.hub import Hub
from hub.records import Role
from hub.rights import demand
from hub.web.bodies import json_response, read_body
from hub.web.callers import Callers, address_of, session_by_cookie
from hub.web.entrance import Entrance
from hub.web.sessions import COOKIE, Visitor


class LogIn(Command, frozen=True):
    """Body of `POST /api/session`: a name to be called by, or with a password to log in."""

    name: ShortText
    password: ShortText | None = None


class Register(Command, frozen=True):
    """Body of `POST /api/users`."""

    name: ShortText
    password: ShortText
    invite: ShortText | None = None


class ChangePassword(Command, frozen=True):
    """Body of `POST /api/password`."""

    old: ShortText
    new: ShortText


class ChangeUser(Command, frozen=True):
    """Body of `PATCH /api/users/{id}`."""

    role: Role | None = None
    disabled: bool | None = None


class AccountApi:
    """The routes, over one entrance."""

    def __init__(self, hub: Hub, entrance: Entrance, callers: Callers) -> None:
        self._hub = hub
        self._entrance = entrance
        self._callers = callers

    async def session(self, request: Request) -> Response:
        """Tell who is asking, making a guest where there is nobody yet."""
        visitor, fresh = await self._entrance.welcome(self._callers.ask(request))
        return self._introduced(request, visitor, fresh=fresh)

    async def log_in(self, request: Request) -> Response:
        """Take a name, or log in by name and password."""
        wanted = await read_body(request, LogIn)
        if wanted.password is None:
            visitor = await self._callers.visitor(request)
            visitor, fresh = await self._entrance.take_name(visitor, wanted.name)
            return self._introduced(request, visitor, fresh=fresh)
        before = await self._entrance.before(self._callers.ask(request))
        visitor = await self._entrance.log_in(
            before, wanted.name, wanted.password, address_of(request)
        )
        return self._introduced(request, visitor, fresh=True)

    async def log_out(self, request: Request) -> Response:
        """End the session and its sockets."""
        visitor = await self._callers.visitor(request)
        if visitor is not None:
            await self._entrance.sessions.end(session_by_cookie(visitor))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def register(self, request: Request) -> Response:
        """Make an account; a guest becomes it."""
        wanted = await read_body(request, Register)
        before = await self._entrance.before(self._callers.ask(request))
        visitor = await self._entrance.register(
            before, wanted.name, wanted.password, wanted.invite, address_of(request)
        )
        return self._introduced(request, visitor, fresh=True, status=201)

    async def change_password(self, request: Request) -> Response:
        """Change one's own password; all other sessions end."""
        visitor = await self._callers.known(request)
        wanted = await read_body(request, ChangePassword)
        session = session_by_cookie(visitor).id
        await self._entrance.accounts.change_password(
            visitor.user, wanted.old, wanted.new, session=session, address=address_of(request)
        )
        self._hub.people.end_user(visitor.user.id, "Your password was changed.", keep=session)
        return Response(status_code=204)

    async def users(self, request: Request) -> Response:
        """List the accounts."""
        demand((await self._callers.known(request)).user, "users")
        people = await self._entrance.accounts.everybody()
        return json_response({"users": [_shown(one) for one in people]})

    async def change_user(self, request: Request) -> Response:
        """Change somebody's role, lock them out, or let them in again."""
        visitor = await self._callers.known(request)
        demand(visitor.user, "users")
        id = request.path_params["id"]
        wanted = await read_body(request, ChangeUser)
        accounts = self._entrance.accounts
        await accounts.find(id)
        if wanted.role is not None:
            await accounts.set_role(id, wanted.role, by=visitor.user.id)
        if wanted.disabled is not None:
            await accounts.set_disabled(id, wanted.disabled, by=visitor.user.id)
        await self._entrance.watch.refresh(id)
        return json_response({"user": _shown(await accounts.find(id))})

    def _introduced(
        self, request: Request, visitor: Visitor, *, fresh: bool, status: int = 200
    ) -> Response:
        sessions = self._entrance.sessions
        csrf = None if visitor.program else sessions.csrf(visitor.session)
        response = json_response(
            {"user": visitor.user, "csrf": csrf, "access": self._entrance.access}, status
        )
        if fresh:
            sessions.give_cookie(request, response, visitor.session)
        return response


class Shown(msgspec.Struct, frozen=True):
    """An account, as an admin sees it; never with its password's hash."""

    id: str
    name: str
    role: Role
    disabled: bool
    password: bool
    at: str


def _shown(person: Person) -> Shown:
    user, account = person.user, person.account
    return Shown(
        user.id, user.name, user.role, account.disabled, account.password is not None, account.at
    )
