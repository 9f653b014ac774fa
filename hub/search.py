"""Words looked for in all rooms that somebody may see."""

import msgspec

from hub.commands import SearchMessages
from hub.errors import Unavailable
from hub.hub import DOWN, Hub, open_to
from hub.markup import dressed
from hub.records import Message, User
from hub.store.contract import StoreError


class Found(msgspec.Struct, frozen=True):
    """What was found, in the order in which it was stored; `rooms` are titles by id."""

    messages: list[Message]
    more: bool
    rooms: dict[str, str]


async def search(hub: Hub, user: User, wanted: SearchMessages) -> Found:
    """Find words in all rooms that the user may see, archived ones as well.

    Raises:
        Unavailable: nothing can be read just now.

    """
    try:
        messages, more = await hub.store.search(
            user.id, wanted.query, before=wanted.before, limit=wanted.limit
        )
    except StoreError as error:
        raise Unavailable(DOWN, code="store_down", retry_after=2) from error
    records = {id: await hub.record(id) for id in {one.room for one in messages}}
    # The store finds in all public rooms, also in those that have banned the user.
    rooms = {id: room for id, room in records.items() if room and open_to(user, room)}
    return Found(
        messages=await dressed(one for one in messages if one.room in rooms),
        more=more,
        rooms={id: room.title for id, room in rooms.items()},
    )
