"""A room as a download, sent page by page: however long it is, little of it is in memory."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hub.errors import BadRequest
from hub.export import FORMATS, PAGE, File, disposition
from hub.hub import Hub
from hub.records import Message, User
from hub.room import shown
from hub.store.contract import Store


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
    record = shown(room.record)
    # Read before the response begins: a store that is down is told, not a broken file sent.
    first = await hub.store.transcript(room.id, viewer=user.id, limit=PAGE)
    return _Download(
        File(record, FORMATS[wanted]),
        hub.store,
        user.id,
        first,
        {"content-disposition": disposition(record.title, wanted), "cache-control": "no-store"},
    )


class _Download(Response):
    """Sends a file while it reads it. Each write has the connection's deadline."""

    def __init__(
        self,
        file: File,
        store: Store,
        viewer: str,
        first: Sequence[Message],
        headers: dict[str, str],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = file.format.media_type
        self.init_headers(headers)
        self._file = file
        self._store = store
        self._viewer = viewer
        self._page = first

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """See ASGI."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        body = self._file.begin()
        if scope["method"] != "HEAD":
            while self._page:
                body += self._file.add(self._page)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                body = b""
                await self._turn()
        await send({"type": "http.response.body", "body": body + self._file.end()})

    async def _turn(self) -> None:
        """Read the next page."""
        last = self._page[-1]
        # Where people talk faster than this is read it would never end otherwise.
        full = len(self._page) == PAGE
        self._page = (
            await self._store.transcript(last.room, viewer=self._viewer, after=last.id, limit=PAGE)
            if full
            else ()
        )
