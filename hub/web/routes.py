"""The HTTP API: routes, and what each makes of the hub's answers. Contract: docs/protocol.md."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hub import __version__, commands
from hub.errors import BadRequest, Forbidden, HubError, Unauthorized, Unavailable
from hub.hub import Hub
from hub.names import clean
from hub.records import Answer, Session, User, Visibility
from hub.store.contract import StoreError
from hub.web.export_routes import export
from hub.web.game_routes import GameApi
from hub.web.sessions import COOKIE, Doors, Sessions, Visitor
from hub.wire.tuples import explain

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode

_SAFE = ("GET", "HEAD", "OPTIONS")


class NewName(commands.Command, frozen=True):
    """Body of `POST /api/session`."""

    name: commands.ShortText
    password: str | None = None


class RoomChange(commands.Command, frozen=True):
    """Body of `PATCH /api/rooms/{id}`: `UpdateRoom` without the room."""

    title: commands.ShortText | None = None
    scenario: commands.Text | None = None
    characters: commands.Cast | None = None
    visibility: Visibility | None = None
    answer: Answer | None = None


def json_response(value: object, status: int = 200) -> Response:
    """Return a value as JSON that no cache keeps."""
    return Response(
        _encode(value), status, {"cache-control": "no-store"}, media_type="application/json"
    )


class Api:
    """The routes, over one hub."""

    def __init__(self, hub: Hub, sessions: Sessions, doors: Doors) -> None:
        self._hub = hub
        self._sessions = sessions
        self._doors = doors

    def app(self) -> Starlette:
        """Return the ASGI app."""
        route = self._route
        games = GameApi(self._hub)
        return Starlette(
            routes=[
                route("/api/session", GET=self.session, POST=self.set_name, DELETE=self.log_out),
                route("/api/characters", GET=games.characters),
                route("/api/scenarios", GET=games.scenarios),
                route("/api/game/start", POST=games.start),
                route("/api/game/message", POST=games.message),
                route("/api/rooms", GET=self.rooms, POST=self.create_room),
                route(
                    "/api/rooms/{id}",
                    GET=self.room,
                    PATCH=self.update_room,
                    DELETE=self.delete_room,
                ),
                route("/api/rooms/{id}/messages", GET=self.messages),
                route("/api/rooms/{id}/export", GET=self.export),
                route("/healthz", GET=self.healthy),
                route("/readyz", GET=self.ready),
            ],
            exception_handlers={HTTPException: _http_error, HubError: _hub_error},
        )

    def _route(self, path: str, **methods: Callable[[Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            self._doors.check_host(request.headers.get("host"))
            method = "GET" if request.method == "HEAD" else request.method
            if method not in _SAFE:
                self._doors.check_origin(request.headers.get("origin"), request.headers.get("host"))
            try:
                return await methods[method](request)
            except StoreError as error:
                raise Unavailable(str(error), code="store_down", retry_after=2) from error

        return Route(path, endpoint, methods=list(methods))

    # ── who ──────────────────────────────────────────────────────────────────────────

    async def _visitor(self, request: Request) -> Visitor | None:
        visitor = await self._sessions.visitor(request.cookies.get(COOKIE))
        if visitor is not None and request.method not in _SAFE:
            self._sessions.check_csrf(visitor.session, request.headers.get("x-csrf-token"))
        return visitor

    async def _user(self, request: Request) -> User:
        visitor = await self._visitor(request)
        if visitor is None:
            raise Unauthorized("Open a session first: GET /api/session.", code="no_session")
        return visitor.user

    async def session(self, request: Request) -> Response:
        """Tell who is asking, making a guest where there is nobody yet."""
        visitor = await self._visitor(request)
        return self._introduced(request, visitor or await self._sessions.begin(), fresh=not visitor)

    async def set_name(self, request: Request) -> Response:
        """Take a guest name."""
        wanted = await _body(request, NewName)
        if wanted.password is not None:
            raise Forbidden(
                "There are no accounts here yet: leave the password out.", code="no_accounts"
            )
        name = clean(wanted.name, self._hub.settings.name_chars, "name")
        visitor = await self._visitor(request)
        if visitor is None:
            return self._introduced(request, await self._sessions.begin(name), fresh=True)
        user = await self._hub.rename(visitor.user, name)
        return self._introduced(request, Visitor(user, visitor.session), fresh=False)

    async def log_out(self, request: Request) -> Response:
        """End the session and its sockets."""
        visitor = await self._visitor(request)
        if visitor is not None:
            await self._sessions.end(visitor.session)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    def _introduced(self, request: Request, visitor: Visitor, *, fresh: bool) -> Response:
        response = json_response(
            {"user": visitor.user, "csrf": self._sessions.csrf(visitor.session)}
        )
        if fresh:
            self._set_cookie(request, response, visitor.session)
        return response

    def _set_cookie(self, request: Request, response: Response, session: Session) -> None:
        response.set_cookie(
            COOKIE,
            self._sessions.cookie(session),
            max_age=int(self._hub.settings.session_days * 86_400),
            path="/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )

    # ── rooms ────────────────────────────────────────────────────────────────────────

    async def rooms(self, request: Request) -> Response:
        """List the rooms that the user may see."""
        return json_response({"rooms": await self._hub.rooms(await self._user(request))})

    async def create_room(self, request: Request) -> Response:
        """Make a room."""
        user = await self._user(request)
        room = await self._hub.new_room(user, await _body(request, commands.CreateRoom))
        return json_response({"room": room}, 201)

    async def room(self, request: Request) -> Response:
        """Show a room."""
        user = await self._user(request)
        room = await self._hub.admitted(
            user, request.path_params["id"], request.query_params.get("invite")
        )
        return json_response({"room": room.record, "members": room.members})

    async def update_room(self, request: Request) -> Response:
        """Change a room."""
        user = await self._user(request)
        change = await _body(request, RoomChange)
        command = commands.UpdateRoom(request.path_params["id"], **msgspec.structs.asdict(change))
        return json_response({"room": await self._hub.update(user, command)})

    async def delete_room(self, request: Request) -> Response:
        """Remove a room for good."""
        await self._hub.delete(await self._user(request), request.path_params["id"])
        return Response(status_code=204)

    async def messages(self, request: Request) -> Response:
        """Return a page of history, or of what a search finds."""
        user = await self._user(request)
        query = request.query_params
        limit = query.get("limit", "50")
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= 200:
            raise BadRequest("“limit” must be a whole number from 1 to 200.")
        messages, more = await self._hub.messages(
            user,
            commands.ReadMessages(
                request.path_params["id"], query.get("before"), int(limit), query.get("q")
            ),
        )
        return json_response({"messages": messages, "more": more})

    async def export(self, request: Request) -> Response:
        """Return a room as a file."""
        return await export(self._hub, await self._user(request), request)

    # ── operations ───────────────────────────────────────────────────────────────────

    async def healthy(self, _request: Request) -> Response:
        """Say that the process lives."""
        return json_response({"status": "ok", "version": __version__})

    async def ready(self, _request: Request) -> Response:
        """Say whether people can be served: the store answers."""
        await self._hub.store.room("lobby")
        return json_response({"status": "ready"})


async def _body(request: Request, kind: type[_T]) -> _T:
    """Decode a JSON body.

    Raises:
        BadRequest: it is not JSON, or not of this kind.

    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        # A form of a foreign page can't send this type, so this stops those as well.
        raise BadRequest("Send JSON, with Content-Type: application/json.", code="content_type")
    try:
        data = await request.body()
        return msgspec.json.decode(data, type=kind)
    except ClientDisconnect:
        raise BadRequest("The request ended too early.") from None
    except msgspec.ValidationError as error:
        raise BadRequest(explain(error), code="bad_payload") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest("The body is not valid JSON.", code="bad_json") from error


async def _hub_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HubError)
    response = json_response({"error": str(error), "code": error.code}, error.status)
    if error.retry_after is not None or error.status in {429, 503}:
        response.headers["retry-after"] = str(max(1, round(error.retry_after or 1)))
    return response


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This can't be done with this address."),
    }
    code, sentence = sentences.get(error.status_code, ("bad_request", "This request is not right."))
    response = json_response({"error": sentence, "code": code}, error.status_code)
    response.headers.update(dict(error.headers or {}))
    return response
