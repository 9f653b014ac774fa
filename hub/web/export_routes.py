"""Downloads: a room, or all that is one's own. Sent page by page, so little of it is in memory."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hub.errors import BadRequest
from hub.export import FORMATS, PAGE, File, disposition, owner_line, portable, room_line
from hub.hub import Hub
from hub.markup import dressed
from hub.records import Message, Room, User
from hub.room import now
from hub.showing import shown
from hub.store.contract import Store

MOST_ROOMS = 10_000
"""Rooms in a file with everything: public ones and one's own; more nobody has."""

Parts = AsyncGenerator[bytes, None]


async def export(hub: Hub, user: User, request: Request) -> Response:
    """Return a room's transcript as the user may see it.

    Raises:
        BadRequest: an unknown format.
        NotFound: the user may not be in this room.
        StoreError: it can't be read just now.

    """
    wanted = request.query_params.get("format", "json")
    if wanted not in FORMATS:
        raise BadRequest(f"“format” must be one of {', '.join(FORMATS)}.")
    room = await hub.admitted(user, request.path_params["id"], to="export")
    record = _seen_by(user, room.record)
    # Read before the response begins: a store that is down is told, not a broken file sent.
    first = await hub.store.transcript(room.id, viewer=user.id, limit=PAGE)
    return _Download(
        _file(File(record, FORMATS[wanted]), _pages(hub.store, room.id, user.id, first)),
        FORMATS[wanted].media_type,
        disposition(record.title, wanted),
    )


async def export_all(hub: Hub, user: User) -> Response:
    """Return all that is the user's: their rooms whole, and of public ones what concerns them.

    Raises:
        StoreError: it can't be read just now.

    """
    rooms = await hub.store.rooms(user.id, limit=MOST_ROOMS)
    return _Download(
        _everything(hub.store, user, rooms),
        FORMATS["jsonl"].media_type,
        disposition(user.name, "jsonl"),
    )


async def _everything(store: Store, user: User, rooms: Sequence[Room]) -> Parts:
    yield owner_line(user, now())
    for room in rooms:
        whole = room.owner == user.id or await store.is_member(room.id, user.id)
        head = room_line(_seen_by(user, room))
        if whole:
            yield head
            head = b""
        concerns = _everything_said if whole else _concerning(user)
        first = await store.transcript(room.id, viewer=user.id, limit=PAGE)
        async with aclosing(_pages(store, room.id, user.id, first)) as pages:
            async for page in pages:
                if kept := [one for one in page if concerns(one)]:
                    yield head + File(room, FORMATS["jsonl"]).add(kept)
                    head = b""


def _everything_said(_message: Message) -> bool:
    return True


def _concerning(user: User) -> Callable[[Message], bool]:
    """Return what says of each message, oldest first, whether the user wrote or was answered it."""
    prompts: set[str] = set()

    def concerns(message: Message) -> bool:
        if message.author.id == user.id:
            prompts.add(message.id)
        return message.private or message.id in prompts or message.reply_to in prompts

    return concerns


def _seen_by(user: User, room: Room) -> Room:
    """Return a room as it may go along; the cards of its cast only with its owner."""
    cast = room.cast if room.owner == user.id else shown(room).cast
    return portable(msgspec.structs.replace(shown(room), cast=cast))


async def _pages(
    store: Store, room: str, viewer: str, page: Sequence[Message]
) -> AsyncGenerator[Sequence[Message], None]:
    """Give a room's messages in pages, beginning with `page`."""
    while page:
        yield await dressed(page)
        # Where people talk faster than this is read it would never end otherwise.
        if len(page) < PAGE:
            return
        page = await store.transcript(room, viewer=viewer, after=page[-1].id, limit=PAGE)


async def _file(file: File, pages: AsyncGenerator[Sequence[Message], None]) -> Parts:
    body = file.begin()
    async with aclosing(pages):
        async for page in pages:
            yield body + file.add(page)
            body = b""
    yield body + file.end()


class _Download(Response):
    """Sends a file while it is read. Each write has the connection's deadline."""

    def __init__(self, parts: Parts, media_type: str, disposition: str) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = media_type
        self.init_headers({"content-disposition": disposition, "cache-control": "no-store"})
        self._parts = parts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """See ASGI."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        async with aclosing(self._parts) as parts:
            if scope["method"] != "HEAD":
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
