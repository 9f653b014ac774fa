"""`/api/usage`: what replies took, for an admin; `/api/usage/me`, for oneself.

Contract: docs/protocol.md.
"""

import hashlib
from datetime import date
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hub.errors import BadRequest
from hub.hub import Hub
from hub.records import User
from hub.rights import demand, may, standing
from hub.usage import WAYS, By, Line, called, first_day, names, summed, total
from hub.web.bodies import json_response
from hub.web.callers import Callers

MOST = 200  # lines of an answer; with rooms or users, each is looked up for its name


class UsageApi:
    """The routes, over one hub."""

    def __init__(self, hub: Hub, callers: Callers) -> None:
        self._hub = hub
        self._callers = callers

    async def all(self, request: Request) -> Response:
        """Sum up what all replies took."""
        user = (await self._callers.known(request)).user
        demand(user, "metrics")
        return await self._sums(request, user)

    async def mine(self, request: Request) -> Response:
        """Sum up what one's own replies took."""
        user = (await self._callers.known(request)).user
        return await self._sums(request, user, only=user.id)

    async def _sums(self, request: Request, viewer: User, only: str | None = None) -> Response:
        since, by = _since(request.query_params.get("since")), _by(request.query_params.get("by"))
        tallies = await self._hub.store.usage(since)
        lines = summed((one for one in tallies if only in (None, one.user)), by)
        shown = lines[-MOST:] if by == "day" else lines[:MOST]
        name = partial(self._room, viewer) if by == "room" else names(self._hub.store, by)
        return json_response(
            {
                "since": since,
                "by": by,
                "usage": [await name(line) for line in shown],
                "total": total(lines),
                "more": len(lines) > len(shown),
            }
        )

    async def _room(self, viewer: User, line: Line) -> Line:
        """Name a room to who may see it. To others not even its id is told, which lets one in."""
        room = await self._hub.store.room(line.key) if line.key else None
        if room is not None:
            member = await self._hub.store.is_member(room.id, viewer.id)
            if may(viewer, "see", standing(viewer, room, member=member)):
                return called(line, room.title)
        if not line.key:
            return called(line, "no room")
        digest = hashlib.sha256(line.key.encode()).hexdigest()[:12]
        return msgspec.structs.replace(
            called(line, "a room of others" if room else "a room that is gone"), key=digest
        )


def _since(text: str | None) -> str:
    if text is None:
        return first_day()
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise BadRequest("“since” must be a day such as 2026-11-21.") from None


def _by(text: str | None) -> By:
    if text is not None and text not in WAYS:
        raise BadRequest(f"“by” must be one of {', '.join(WAYS)}.")
    return text or "day"
