"""What clients are shown of rooms: less than the hub knows."""

import msgspec

from hub.records import Character, Member, Message, Room

# Settings that clients are not told of: who may not come in is not for all to see, and what
# no longer fits into prompts they can read for themselves.
UNTOLD = ("banned", "summary")


class Snapshot(msgspec.Struct, frozen=True):
    """What somebody who joins is told; `offset` is that of the last event it includes."""

    room: Room
    epoch: str
    offset: int
    recovered: bool
    members: list[Member]
    member_count: int
    messages: list[Message]
    replies: list[Message]
    more: bool
    """There are messages older than these."""


def shown(room: Room) -> Room:
    """Return a room as it goes over the wire: without the cards, which may be large."""
    cast = [
        one if one.card is None else msgspec.structs.replace(one, card=None) for one in room.cast
    ]
    return msgspec.structs.replace(room, cast=cast, **dict.fromkeys(UNTOLD, msgspec.UNSET))


def as_member(character: Character) -> Member:
    """A character as a member of a room."""
    return Member(character.id, character.name, "character", character.emoji)
