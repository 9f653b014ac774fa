"""`/api/tokens` and `/api/invites`: for one's own programs, and for new people.

Contract: docs/accounts.md.
"""

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from hub.commands import Command, ShortText
from hub.records import Token
from hub.rights import demand
from hub.web.bodies import json_response, read_body
from hub.web.callers import Callers, session_by_cookie
from hub.web.entrance import Entrance

Days = Annotated[float, Meta(gt=0, le=3650)]


class NewToken(Command, frozen=True):
    """Body of `POST /api/tokens`; without `days` it works until it is removed."""

    label: ShortText = ""
    days: Days | None = None


class NewInvite(Command, frozen=True):
    """Body of `POST /api/invites`."""

    label: ShortText = ""
    days: Days = 7.0


class Shown(msgspec.Struct, frozen=True):
    """A token, as its owner sees it."""

    id: str
    kind: str
    label: str
    at: str
    expires: float | None


class TokenApi:
    """The routes, over one entrance."""

    def __init__(self, entrance: Entrance, callers: Callers) -> None:
        self._entrance = entrance
        self._callers = callers

    async def tokens(self, request: Request) -> Response:
        """List one's own tokens and invites."""
        user = (await self._callers.known(request)).user
        mine = self._entrance.tokens
        found = [*await mine.of(user.id), *await mine.of(user.id, "invite")]
        return json_response({"tokens": [_shown(token) for token in found]})

    async def add_token(self, request: Request) -> Response:
        """Make a token; its secret is in this answer and nowhere else."""
        visitor = await self._callers.known(request)
        session_by_cookie(visitor)
        wanted = await read_body(request, NewToken)
        secret, token = await self._entrance.tokens.add(
            visitor.user, "api", wanted.label, wanted.days
        )
        return json_response({"token": _shown(token), "secret": secret}, 201)

    async def remove_token(self, request: Request) -> Response:
        """End a token or an invite, and the sockets that came with it."""
        visitor = await self._callers.known(request)
        session_by_cookie(visitor)
        await self._entrance.tokens.remove(visitor.user.id, request.path_params["id"])
        await self._entrance.watch.refresh(visitor.user.id)
        return Response(status_code=204)

    async def invite(self, request: Request) -> Response:
        """Make an invite, which lets one person make an account."""
        visitor = await self._callers.known(request)
        session_by_cookie(visitor)
        demand(visitor.user, "invite")
        wanted = await read_body(request, NewInvite)
        secret, token = await self._entrance.tokens.add(
            visitor.user, "invite", wanted.label, wanted.days
        )
        return json_response({"token": _shown(token), "invite": secret}, 201)


def _shown(token: Token) -> Shown:
    return Shown(token.id, token.kind, token.label, token.at, token.expires)
