"""The first words of characters, when a room is made with them or they join its cast."""

from collections.abc import Iterable

from hub.ids import Ids
from hub.markup import render_apart
from hub.persona import greetings
from hub.records import LOBBY, Author, Character, Message, Room
from hub.room import now
from hub.text import sound


async def greetings_in(
    room: Room, newcomers: Iterable[Character], *, user: str, ids: Ids
) -> list[Message]:
    """Return what those say first whom a user has brought into a room.

    Nobody greets in the lobby, where everybody passes, nor in games, which begin otherwise.
    """
    if room.id == LOBBY or room.game:
        return []
    found = [await _greeting(one, room, user, ids.new()) for one in newcomers]
    return [one for one in found if one is not None]


async def _greeting(character: Character, room: Room, user: str, id: str) -> Message | None:
    """Return how a character opens the talk, or None if it waits until it is asked.

    Its other greetings are the swipes, so placed that the first of them is one step back.
    """
    text, *others = [
        sound(one) for one in greetings(character, user=user, group=len(room.cast) > 1)
    ] or [""]
    if not text:
        return None
    return Message(
        id=id,
        room=room.id,
        author=Author(character.id, character.name, "character", character.emoji),
        text=text,
        html=await render_apart(text),
        at=now(),
        status="done",
        demo=False,
        private=False,
        swipes=others[::-1] or None,
    )
