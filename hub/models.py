"""Which models people may pick from, and which one a room asks."""

from hub.errors import BadRequest
from hub.records import Character, Room
from llm.provider import Provider, names_of


def picked(name: str | None, provider: Provider) -> str | None:
    """Return the name of a model that may be picked; None leaves it to the owner's list.

    Raises:
        BadRequest: there is no such model.

    """
    names = names_of(provider)
    if name is None or name in names:
        return name
    listed = ", ".join(names)
    raise BadRequest(
        f"There is no model “{name}” here. You can pick from: {listed}.", code="no_model"
    )


def model_of(room: Room, character: Character, provider: Provider) -> str | None:
    """Return the model that plays a character in a room; None is the usual one.

    One that its owner has taken off the list since is not missed: the room's, or the usual
    one, answers.
    """
    names = names_of(provider)
    return next((name for name in (character.model, room.model) if name in names), None)
