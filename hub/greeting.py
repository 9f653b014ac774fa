"""The first words of characters, when a room is made with them or they join its cast."""

from hub.markup import render_apart
from hub.persona import greetings
from hub.records import LOBBY, Author, Character, Message, Room
from hub.text import sound


def greeted(room: Room) -> bool:
    """Whether characters greet in a room: not where everybody passes, nor where games begin."""
    return room.id != LOBBY and not room.game


async def greeting(
    character: Character, room: Room, *, user: str, id: str, at: str
) -> Message | None:
    """Return how a character opens the talk, or None if it waits until it is asked.

    Its other greetings are the swipes, so placed that the first of them is one step back.

    Args:
        character: who greets.
        room: where.
        user: the name that `{{user}}` stands for: of whoever brought the character in.
        id: of the message.
        at: when, ISO 8601 in UTC.

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
        at=at,
        status="done",
        demo=False,
        private=False,
        swipes=others[::-1] or None,
    )
