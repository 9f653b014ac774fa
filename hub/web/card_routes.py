"""Character cards over HTTP: looked into, put into a room's cast, taken out again as a file."""

import re
from collections.abc import Awaitable, Callable

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub.cards import Imported, Spec, export_json, export_png, import_card
from hub.commands import NewCharacter, NewTrigger
from hub.errors import BadRequest, NotFound
from hub.export import disposition
from hub.hub import Hub
from hub.persona import card_data
from hub.records import Character, Room, User
from hub.web.bodies import json_response

_TAKES_CARDS = re.compile(r"/api/cards|/api/rooms/[^/]+/cards")

_SPECS: dict[str, Spec] = {"v2": "v2", "v3": "v3"}

AT_ONCE = 2
"""Cards that are read or written at once, each in a thread, in some ten times its size."""


def takes_cards(path: str) -> bool:
    """Whether a body sent to this address is a card, and may be as large as one."""
    return _TAKES_CARDS.fullmatch(path) is not None


class CardApi:
    """The routes, over one hub; `user` says who asks."""

    def __init__(self, hub: Hub, user: Callable[[Request], Awaitable[User]]) -> None:
        self._hub = hub
        self._user = user
        self._limiter = trio.CapacityLimiter(AT_ONCE)

    async def look(self, request: Request) -> Response:
        """Return what is in a card, in the form in which `create_room` takes a character."""
        await self._user(request)
        imported = await self._read(request)
        character = self._hub.casting.imported(imported.character, ())
        return json_response({"character": _as_new(character), **_about(imported)})

    async def add(self, request: Request) -> Response:
        """Put a card's character into a room's cast; the card stays with it."""
        user = await self._user(request)
        room = await self._hub.admitted(user, request.path_params["id"], to="edit")
        imported = await self._read(request)
        before: set[str] = set()
        joined: list[str] = []

        def decide(record: Room) -> dict[str, object]:
            before.update(one.id for one in record.cast)
            character = self._hub.casting.imported(imported.character, record.cast)
            joined.append(character.id)
            return {"cast": [*record.cast, character]}

        record = await room.change(decide)
        await self._hub.greet(user, room, before)
        found = {"room": record, "character": joined[0], **_about(imported)}
        return json_response(found, 201)

    async def export(self, request: Request) -> Response:
        """Return a character of a room as a card."""
        user = await self._user(request)
        query = request.query_params
        kind, spec = query.get("format", "json"), _SPECS.get(query.get("spec", "v3"))
        if kind not in {"json", "png"} or spec is None:
            raise BadRequest("“format” must be json or png, and “spec” v2 or v3.")
        room = await self._hub.admitted(user, request.path_params["id"], to="export")
        character = room.character(request.path_params["character"])
        if character is None:
            raise NotFound("There is no such character in this room.", code="no_character")
        make: Callable[[Character, Spec], bytes] = export_png if kind == "png" else export_json
        data = await trio.to_thread.run_sync(make, character, spec, limiter=self._limiter)
        return Response(
            data,
            headers={
                "content-disposition": disposition(character.name, kind),
                "cache-control": "no-store",
            },
            media_type="image/png" if kind == "png" else "application/json",
        )

    async def _read(self, request: Request) -> Imported:
        try:
            data = await request.body()  # its size is bounded before it comes here
        except ClientDisconnect:
            raise BadRequest("The request ended too early.") from None
        most = self._hub.settings.card_bytes
        return await trio.to_thread.run_sync(import_card, data, most, limiter=self._limiter)


def _about(imported: Imported) -> dict[str, object]:
    data = card_data(imported.character.card or {})
    others = data.get("alternate_greetings")
    return {
        "scenario": imported.scenario,
        "notes": imported.notes,
        "warnings": imported.warnings,
        "greetings": bool(imported.character.greeting) + len(others or ()),
    }


def _as_new(character: Character) -> NewCharacter:
    values = msgspec.structs.asdict(character)
    triggers = [NewTrigger(one.when, one.then) for one in character.triggers]
    known = {name: values[name] for name in NewCharacter.__struct_fields__}
    return NewCharacter(**{**known, "id": None, "triggers": triggers})
