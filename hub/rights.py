"""Who may do what: one table, asked by everybody, known by nobody else.

A right depends on the user's role, on the action, and on how the user stands to the room in
question. Each cell names the least role that has the right; an empty one is nobody's. The
same table is in docs/rights.md, which a test compares.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

from hub.errors import Forbidden, NotFound
from hub.records import Role, Room, User

ROLES: tuple[Role, ...] = get_args(Role)

Standing: TypeAlias = Literal["owner", "member", "visitor", "outsider", "banned"]
"""How somebody stands to a room.

    owner     made it
    member    was let in, once, by an invite or by the owner
    visitor   none of these, and the room is public
    outsider  none of these, and it is not: they must not even know that it exists
    banned    was sent away for good, whatever they were before
"""
STANDINGS: tuple[Standing, ...] = get_args(Standing)

RoomAction: TypeAlias = Literal[
    "see", "join", "speak", "stop", "edit", "delete", "kick", "ban", "export"
]
HubAction: TypeAlias = Literal["connect", "create", "invite", "metrics", "users"]
Action: TypeAlias = RoomAction | HubAction

_HUB: dict[Action, Role] = {
    "connect": "guest",
    "create": "guest",
    "invite": "moderator",
    "metrics": "admin",
    "users": "admin",
}

_NOBODY: Role | None = None

# In the order of STANDINGS. What an outsider can't see nobody changes, an admin included:
# whoever runs the hub has the owner's commands for that.
_ROOM: dict[Action, tuple[Role | None, ...]] = {
    "see": ("guest", "guest", "guest", _NOBODY, "moderator"),
    "join": ("guest", "guest", "guest", _NOBODY, "moderator"),
    "speak": ("guest", "guest", "guest", _NOBODY, "moderator"),
    "stop": ("guest", "guest", "guest", _NOBODY, "moderator"),
    "edit": ("guest", "moderator", "moderator", _NOBODY, "moderator"),
    "delete": ("guest", "admin", "admin", _NOBODY, "admin"),
    "kick": ("guest", "moderator", "moderator", _NOBODY, "moderator"),
    "ban": ("guest", "moderator", "moderator", _NOBODY, "moderator"),
    "export": ("guest", "guest", "guest", _NOBODY, "moderator"),
}

_SENTENCES: dict[Action, str] = {
    "connect": "You may not connect.",
    "create": "You may not make rooms.",
    "invite": "Only a moderator may invite people.",
    "metrics": "Only an admin may see the metrics.",
    "users": "Only an admin may look after accounts.",
    "speak": "You may not speak in this room.",
    "stop": "You may not stop this.",
    "edit": "Only who made this room, or a moderator, may change it.",
    "delete": "Only who made this room, or an admin, may delete it.",
    "kick": "Only who made this room, or a moderator, may send somebody away.",
    "ban": "Only who made this room, or a moderator, may ban somebody.",
    "export": "You may not take this room along.",
}


def standing(user: User, room: Room, *, member: bool) -> Standing:
    """Say how a user stands to a room; `member` is what the store says."""
    if room.owner == user.id:
        return "owner"
    if room.banned and user.id in room.banned:
        return "banned"
    if member:
        return "member"
    return "visitor" if room.visibility == "public" else "outsider"


def least_role(action: Action, stands: Standing | None = None) -> Role | None:
    """Return the least role with a right, None for nobody; `stands` for actions on rooms."""
    if stands is None:
        return _HUB.get(action)
    cells = _ROOM.get(action)
    return cells[STANDINGS.index(stands)] if cells else None


def may(user: User, action: Action, stands: Standing | None = None) -> bool:
    """Whether a user may do something, to a room to which they stand so."""
    least = least_role(action, stands)
    return least is not None and ROLES.index(user.role) >= ROLES.index(least)


def demand(user: User, action: Action, stands: Standing | None = None) -> None:
    """Refuse what a user may not do.

    Raises:
        NotFound: nor may they know that the room exists.
        Forbidden: they may not.

    """
    if may(user, action, stands):
        return
    if stands is not None and not may(user, "see", stands):
        raise NotFound("There is no such room, or you need an invite.", code="no_room")
    raise Forbidden(_SENTENCES.get(action, "You may not do this."))


def table() -> Iterator[tuple[Action, Standing | None, Role | None]]:
    """Go through all cells."""
    for hub_action in _HUB:
        yield hub_action, None, least_role(hub_action)
    for room_action in _ROOM:
        for stands in STANDINGS:
            yield room_action, stands, least_role(room_action, stands)
