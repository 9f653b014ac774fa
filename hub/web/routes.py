"""The HTTP API: routes, and what each makes of the hub's answers. Contract: docs/protocol.md."""

from collections.abc import Awaitable, Callable
from math import ceil

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub import __version__, commands
from hub.errors import BadRequest, HubError, Unavailable
from hub.hub import Hub
from hub.records import Answer, User, Visibility
from hub.search import search
from hub.showing import shown
from hub.store.contract import StoreError
from hub.web.account_routes import AccountApi
from hub.web.bodies import json_response, read_body
from hub.web.callers import Callers, address_of
from hub.web.card_routes import CardApi
from hub.web.entrance import Entrance
from hub.web.export_routes import export, export_all
from hub.web.game_routes import GameApi
from hub.web.gate import Gate
from hub.web.import_routes import PATH as IMPORT
from hub.web.import_routes import ImportApi
from hub.web.oidc_routes import OidcApi
from hub.web.token_routes import TokenApi
from hub.web.usage_routes import UsageApi

_FOR_STRANGERS = (
    "/api/session",
    "/api/users",
    "/api/oidc/start",
    "/api/oidc/callback",
    "/healthz",
    "/readyz",
)
"""Where one may come without an account, to get one or since it says nothing of anybody."""


class RoomChange(commands.Command, frozen=True):
    """Body of `PATCH /api/rooms/{id}`: `UpdateRoom` without the room."""

    title: commands.ShortText | None = None
    scenario: commands.Text | None = None
    characters: commands.Cast | None = None
    visibility: Visibility | None = None
    answer: Answer | None = None
    model: commands.ModelName | msgspec.UnsetType | None = msgspec.UNSET
    archived: bool | None = None


class Api:
    """The routes, over one hub."""

    def __init__(self, hub: Hub, entrance: Entrance, gate: Gate) -> None:
        self._hub = hub
        self._entrance = entrance
        self._callers = Callers(entrance, gate)
        self._gate = gate
        self._imports = ImportApi(hub)

    def app(self) -> Starlette:
        """Return the ASGI app."""
        route = self._route
        games = GameApi(self._hub)
        people = AccountApi(self._hub, self._entrance, self._callers)
        usage = UsageApi(self._hub, self._callers)
        tokens = TokenApi(self._entrance, self._callers)
        cards = CardApi(self._hub, self._user)
        oidc = OidcApi(self._entrance, self._callers)
        return Starlette(
            routes=[
                route(
                    "/api/session", GET=people.session, POST=people.log_in, DELETE=people.log_out
                ),
                route("/api/users", GET=people.users, POST=people.register),
                route("/api/users/{id}", PATCH=people.change_user),
                route("/api/password", POST=people.change_password),
                route("/api/tokens", GET=tokens.tokens, POST=tokens.add_token),
                route("/api/tokens/{id}", DELETE=tokens.remove_token),
                route("/api/invites", POST=tokens.invite),
                route("/api/oidc/start", GET=oidc.start),
                route("/api/oidc/callback", GET=oidc.callback),
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
                route("/api/export", GET=self.export_all),
                route(IMPORT, POST=self.take_in),
                route("/api/search", GET=self.search),
                route("/api/cards", POST=cards.look),
                route("/api/rooms/{id}/cards", POST=cards.add),
                route("/api/rooms/{id}/characters/{character}/card", GET=cards.export),
                route("/api/rooms/{id}/messages", GET=self.messages),
                route("/api/rooms/{id}/export", GET=self.export),
                route("/api/usage", GET=usage.all),
                route("/api/usage/me", GET=usage.mine),
                route("/healthz", GET=self.healthy),
                route("/readyz", GET=self.ready),
            ],
            exception_handlers={
                HTTPException: _http_error,
                HubError: self._refused,
                Exception: _our_fault,
            },
        )

    def _route(self, path: str, **methods: Callable[[Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            try:
                if path not in _FOR_STRANGERS and not self._entrance.guests:
                    await self._callers.known(request)
                return await methods[method](request)
            except StoreError as error:
                raise Unavailable(str(error), code="store_down", retry_after=2) from error

        return Route(path, endpoint, methods=list(methods))

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)
        if error.status in {401, 403, 429}:
            what = f"{request.method} {request.scope['raw_path'].decode('ascii')}"
            self._gate.note(error, what, address_of(request))
        body: dict[str, object] = {"error": str(error), "code": error.code}
        if error.code == "log_in":
            body["access"] = self._entrance.access
        response = json_response(body, error.status)
        if error.retry_after is not None or error.status in {429, 503}:
            response.headers["retry-after"] = str(max(1, ceil(error.retry_after or 1)))
        return response

    async def _user(self, request: Request) -> User:
        return (await self._callers.known(request)).user

    # ── rooms ────────────────────────────────────────────────────────────────────────

    async def rooms(self, request: Request) -> Response:
        """List the rooms that the user may see, or with `archived=true` the archived ones."""
        archived = request.query_params.get("archived", "false")
        if archived not in {"true", "false"}:
            raise BadRequest("“archived” must be true or false.")
        user = await self._user(request)
        return json_response({"rooms": await self._hub.rooms(user, archived=archived == "true")})

    async def search(self, request: Request) -> Response:
        """Find words in all rooms that the user may see."""
        user = await self._user(request)
        query = request.query_params
        wanted = commands.SearchMessages(query.get("q", ""), query.get("before"), _limit(query))
        if len(wanted.query) > 500:
            raise BadRequest("“q” is too long: 500 at most.")
        return json_response(await search(self._hub, user, wanted))

    async def create_room(self, request: Request) -> Response:
        """Make a room."""
        user = await self._user(request)
        room = await self._hub.new_room(user, await read_body(request, commands.CreateRoom))
        return json_response({"room": room}, 201)

    async def room(self, request: Request) -> Response:
        """Show a room."""
        user = await self._user(request)
        room = await self._hub.admitted(
            user, request.path_params["id"], request.query_params.get("invite")
        )
        return json_response({"room": shown(room.record), "members": room.members})

    async def update_room(self, request: Request) -> Response:
        """Change a room."""
        user = await self._user(request)
        change = await read_body(request, RoomChange)
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
        messages, more = await self._hub.messages(
            user,
            commands.ReadMessages(
                request.path_params["id"], query.get("before"), _limit(query), query.get("q")
            ),
        )
        return json_response({"messages": messages, "more": more})

    async def export(self, request: Request) -> Response:
        """Return a room as a file."""
        return await export(self._hub, await self._user(request), request)

    async def export_all(self, request: Request) -> Response:
        """Return all that is the user's as a file."""
        return await export_all(self._hub, await self._user(request))

    async def take_in(self, request: Request) -> Response:
        """Make rooms of a file."""
        return await self._imports.take(await self._user(request), request)

    # ── operations ───────────────────────────────────────────────────────────────────

    async def healthy(self, _request: Request) -> Response:
        """Say that the process lives."""
        return json_response({"status": "ok", "version": __version__})

    async def ready(self, _request: Request) -> Response:
        """Say whether people can be served: the store answers."""
        await self._hub.store.room("lobby")
        return json_response({"status": "ready"})


def _limit(query: QueryParams) -> int:
    limit = query.get("limit", "50")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= 200:
        raise BadRequest("“limit” must be a whole number from 1 to 200.")
    return int(limit)


async def _our_fault(_request: Request, _error: Exception) -> Response:
    # It is raised on behind this answer, and logged there.
    return json_response({"error": "Something went wrong on our side.", "code": "internal"}, 500)


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
