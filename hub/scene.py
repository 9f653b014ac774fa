"""From a room's records to what a model is asked: personas, lines, scenes."""

from collections.abc import Iterable, Sequence

from hub.records import Character, Message, Room
from llm.character import Line, Scene
from llm.persona import Persona, Rule


def persona_of(character: Character) -> Persona:
    """Return whom the model plays."""
    return Persona(
        name=character.name,
        klass=character.klass,
        personality=character.personality,
        backstory=character.backstory,
        instructions=character.instructions,
        rules=tuple(Rule(one.when, one.then) for one in character.triggers),
    )


def scene_of(
    room: Room,
    character: Character,
    people: Iterable[str],
    past: Sequence[Message],
    asked: Sequence[str],
) -> Scene:
    """Return what a reply of the character is to go on; `past` is all that it may know."""
    return Scene(
        scenario=room.scenario,
        cast=tuple(one.name for one in room.cast if one.id != character.id),
        people=tuple(people),
        lines=tuple(
            Line(one.author.name, one.text, one.author.kind, one.id)
            for one in past
            if one.author.kind != "system" and one.status != "running" and one.text.strip()
        ),
        asked=tuple(asked),
    )
