"""Games: rooms for clients that know no rooms. The socket and `/api/game/*` both play here.

A game's id is its invite: who knows it may see, play and end it, with or without a session.
Its owner, if it has one, can close it to all others by making the room private.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hub.awaited import Awaited
from hub.commands import NewCharacter
from hub.errors import BadRequest, HubError, Unavailable
from hub.hub import Hub
from hub.records import Author, Room, User
from hub.room import SNAPSHOT, LiveRoom
from hub.store.contract import StoreError
from hub.wire.objects import (
    GameCharacter,
    GameMessage,
    GameState,
    StartGame,
    game_messages,
    game_state,
)

PLAYER = "Player"

# Ids of games are UUIDs as we write them; nothing else needs to be looked up.
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class NoGame(BadRequest):
    """There is no such game, or not any more."""

    code = "no_game"


@contextmanager
def failing_to(what: str) -> Iterator[None]:
    """Put `Failed to …: ` before what goes wrong within."""
    try:
        yield
    except HubError as error:
        raise type(error)(
            f"Failed to {what}: {error}", code=error.code, retry_after=error.retry_after
        ) from error


def player(user: User | None) -> Author:
    """Return who a player is in the game; `user` where it is known."""
    return Author(user.id if user else "player", PLAYER, "human")


class Games:
    """See the module's own text."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self, wanted: StartGame, owner: User | None = None) -> Room:
        """Make a game.

        Raises:
            HubError: the text says what is wrong with the scenario or the cast.

        """
        if not wanted.characters:
            raise BadRequest("A game needs at least one character.", code="no_characters")
        cast = [self._character(one) for one in wanted.characters]
        return await self._hub.new_game(wanted.scenario, cast, owner)

    async def find(self, id: str) -> LiveRoom:
        """Return a game's room.

        Raises:
            NoGame: there is none with this id.

        """
        if _ID.fullmatch(id):
            record = await self._hub.record(id)
            if record is not None and record.game and record.visibility != "private":
                return await self._hub.room(id)
        raise NoGame("Game not found")

    async def play(
        self,
        id: str,
        text: str,
        author: Author,
        awaited: Awaited,
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        """Say something as the player; `awaited` is told the replies. Returns when it was.

        `taken` is called when it was said, so that something else can be said after it.

        Cancelled, it no longer listens: if nobody else does, the turn stops like any other.

        Raises:
            HubError: it was not said.

        """
        room = await self._active(id)
        with room.held():
            await room.play(author, text, awaited)
            taken()
            await awaited.over.wait()  # no deadline: each reply of the turn has its own

    async def state(self, id: str) -> GameState:
        """Return how a game stands."""
        room = await self.find(id)
        try:
            newest = await room.transcript.newest(None, SNAPSHOT)
        except StoreError as error:
            raise Unavailable(str(error), code="store_down", retry_after=2) from error
        return game_state(room.record, newest)

    async def end(self, id: str) -> None:
        """Make a game inactive; twice is once.

        Nothing more can be said in it, by anybody. What was said is answered to its end.
        """
        room = await self.find(id)
        if room.record.active:
            await room.update(active=False)
            room.talk(0)

    async def _active(self, id: str) -> LiveRoom:
        try:
            room = await self.find(id)
        except NoGame:
            room = None
        if room is None or not room.record.active:
            raise NoGame("Game not found or inactive")
        return room

    def _character(self, wanted: GameCharacter) -> NewCharacter:
        return NewCharacter(
            name=wanted.name,
            klass=wanted.klass or "",
            personality=wanted.personality or "",
            backstory=wanted.backstory or "",
            emoji=wanted.emoji or None,
        )


def responses(awaited: Awaited) -> list[GameMessage]:
    """Return what the characters said. A reply that failed is left out (invariant 7).

    Raises:
        Unavailable: none is left; the text is the first one's reason.

    """
    said = game_messages(awaited.replies)
    trouble = [one for one in awaited.replies if one.status == "failed"]
    if trouble and not said:
        raise Unavailable(trouble[0].error or "No model answered.", code="model_failed")
    if not awaited.whole and not said:
        raise Unavailable("The server is restarting.", code="interrupted")
    return said
