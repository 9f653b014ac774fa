"""`/api/game/*` and the presets, for game clients that speak HTTP. Contract: docs/game-protocol.md.

These routes know nobody: neither cookie nor CSRF token is looked at, for nothing here
depends on who asks; the game's id opens it. For the same reason any content type will do:
pages of other sites are kept out by their Origin, as everywhere.
"""

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hub.awaited import Awaited
from hub.errors import BadRequest
from hub.games import Games, failing_to, player, responses
from hub.hub import Hub
from hub.records import Character
from hub.wire import objects


class Preset(msgspec.Struct, frozen=True, rename={"klass": "class"}):
    """A character of the presets, with all keys that game clients look for."""

    id: str
    name: str
    emoji: str
    klass: str
    personality: str
    backstory: str
    greeting: str
    talkativeness: float


def preset(character: Character) -> Preset:
    """Return a character as it is listed."""
    return Preset(
        id=character.id,
        name=character.name,
        emoji=character.emoji or "",
        klass=character.klass,
        personality=character.personality,
        backstory=character.backstory,
        greeting=character.greeting,
        talkativeness=character.talkativeness,
    )


class GameApi:
    """The routes, over one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._games = Games(hub)

    async def start(self, request: Request) -> Response:
        """Make a game."""
        with failing_to("start game"):
            wanted = objects.read(await _body(request), objects.StartGame)
            game = await self._games.start(wanted)
        return _json({"gameId": game.id})

    async def message(self, request: Request) -> Response:
        """Say something, and answer with what the characters say to it."""
        with failing_to("process message"):
            wanted = objects.read(await _body(request), objects.SendMessage)
        id = objects.game_id(wanted.game)
        with failing_to("process message"):
            awaited = Awaited(lambda _: None)
            await self._games.play(id, wanted.message, player(None), awaited)
            return _json({"responses": responses(awaited)})

    async def characters(self, _request: Request) -> Response:
        """List the characters of the presets."""
        return _json([preset(one) for one in self._hub.presets.characters.values()])

    async def scenarios(self, _request: Request) -> Response:
        """List the scenarios of the presets."""
        return _json(list(self._hub.presets.scenarios.values()))


def _json(value: object) -> Response:
    return Response(
        msgspec.json.encode(value),
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise BadRequest("The request ended too early.") from None
