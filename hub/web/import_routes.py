"""`POST /api/import`: a file of chats becomes rooms of whoever brings it.

The file goes to disk as it comes and is read from there twice: first all of it is checked, so
that a file that is wrong at its end leaves nothing behind; then its rooms are made, one by one,
each whole or not at all. What is in memory is one room.
"""

import tempfile
from collections.abc import Iterator
from typing import IO

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub.adopting import Adoption
from hub.errors import BadRequest, Conflict, Unavailable
from hub.hub import Hub
from hub.importing import Chat, read
from hub.records import Room, User
from hub.showing import shown
from hub.web.bodies import json_response

PATH = "/api/import"

AT_ONCE = 8
"""Files of all users that are on disk at once, each as large as `import_bytes` allows."""

IN_MEMORY = 1024 * 1024
"""Bytes of a file that need no disk."""

TITLE_CHARS = 1000
"""Of what the query names a chat; a room's title is shorter."""


class ImportApi:
    """The route, over one hub. One file of a user at a time, and of all files one is read."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._busy: set[str] = set()
        self._reading = trio.CapacityLimiter(1)

    async def take(self, user: User, request: Request) -> Response:
        """Take a file in, and return the rooms that it became.

        Raises:
            BadRequest: it is of no kind that is known, or broken.
            HubError: it can't be taken in just now; rooms that were made until then are there.

        """
        title = request.query_params.get("title", "")[:TITLE_CHARS]
        folder = str(self._hub.settings.data)
        # The file has no name, so that it is gone with its request, also where we are killed.
        with self._only_one(user), tempfile.SpooledTemporaryFile(IN_MEMORY, dir=folder) as file:
            await _save(request, file)
            adoption = self._hub.adoption(user, title)
            rooms, messages = await self._adopt(user, adoption, file)
        return json_response({"rooms": [shown(one) for one in rooms], "messages": messages}, 201)

    def _only_one(self, user: User) -> "_Place":
        if user.id in self._busy:
            raise Conflict("Another file of yours is being taken in. Wait for it.", code="busy")
        if len(self._busy) >= AT_ONCE:
            raise Unavailable(
                "Too many files are being taken in just now.", code="busy", retry_after=10
            )
        return _Place(self._busy, user.id)

    async def _adopt(
        self, user: User, adoption: Adoption, file: IO[bytes]
    ) -> tuple[list[Room], int]:
        count = 0
        chats = _from_start(file)
        while chat := await self._next(chats):
            adoption.room(chat)
            count += 1
        await self._hub.check_owned(user, count)
        rooms: list[Room] = []
        messages = 0
        chats = _from_start(file)
        while chat := await self._next(chats):
            room = adoption.room(chat)
            made = await adoption.messages(chat, room, self._reading)
            await self._hub.adopt(user, room, made)
            rooms.append(room)
            messages += len(made)
        return rooms, messages

    async def _next(self, chats: Iterator[Chat]) -> Chat | None:
        # In a thread: some megabytes would keep everybody else waiting.
        return await trio.to_thread.run_sync(_next, chats, limiter=self._reading)


class _Place:
    """A user's turn, from its taking to its end."""

    def __init__(self, busy: set[str], user: str) -> None:
        self._busy, self._user = busy, user

    def __enter__(self) -> None:
        self._busy.add(self._user)

    def __exit__(self, *_: object) -> None:
        self._busy.discard(self._user)


def _from_start(file: IO[bytes]) -> Iterator[Chat]:
    file.seek(0)
    return read(file)


def _next(chats: Iterator[Chat]) -> Chat | None:
    return next(chats, None)


async def _save(request: Request, file: IO[bytes]) -> None:
    """Write the body to a file; how much it may be and how slow it may come is seen to already."""
    try:
        async for part in request.stream():
            file.write(part)
    except ClientDisconnect:
        raise BadRequest("The request ended too early.") from None
