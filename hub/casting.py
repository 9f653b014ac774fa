"""What goes into a room, checked: its texts, and the characters of its cast."""

from collections.abc import Mapping, Sequence

import msgspec
from attrs import frozen

from hub.commands import Cast, NewCharacter
from hub.errors import BadRequest
from hub.ids import Ids
from hub.names import clean
from hub.presets import ASSISTANT, Presets
from hub.records import Character, Trigger
from hub.settings import Settings

CARDS_BYTES = 2 * 1024 * 1024
"""Of all cards of a room as JSON: they are stored and read with it, whatever changes."""


@frozen
class Casting:
    """Makes casts and texts of what users ask for."""

    settings: Settings
    presets: Presets
    ids: Ids

    def title(self, text: str) -> str:
        """Return a room's title, made presentable.

        Raises:
            BadRequest: it is empty or too long.

        """
        return clean(text, self.settings.title_chars, "title")

    def bounded(self, text: str, what: str) -> str:
        """Return a long text as it is.

        Raises:
            BadRequest: it is too long.

        """
        most = self.settings.scenario_chars
        if len(text) > most:
            raise BadRequest(f"A {what} has at most {most:,} characters.", code="too_long")
        return text

    def plain(self) -> list[Character]:
        """Return the cast of a room for which nobody chose one."""
        return [self.presets.characters[ASSISTANT]]

    def cast(self, wanted: Cast, present: Sequence[Character] = ()) -> list[Character]:
        """Return a cast of presets, characters of one's own, and those who are `present`.

        Raises:
            BadRequest: too many, two alike, one that does not exist, a text too long.

        """
        known = {one.id: one for one in present}
        cast = [self._character(one, known) for one in wanted]
        self._check(cast)
        return cast

    def imported(self, character: Character, present: Sequence[Character]) -> Character:
        """Return a character that came with a card, fit for a room in which are `present`.

        It has an id of its own, and a name that is not too long.

        Raises:
            BadRequest: too many, two with one name, a text too long, cards that are too large.

        """
        for text in (character.personality, character.backstory, character.greeting):
            self.bounded(text, "character's text")
        name = character.name[: self.settings.name_chars].strip()
        newcomer = msgspec.structs.replace(
            character,
            id=self.ids.new(),
            name=clean(name, self.settings.name_chars, "character's name"),
            instructions=self.bounded(character.instructions, "character's text"),
            triggers=[one for one in character.triggers if _usable(one)],
        )
        self._check([*present, newcomer])
        return newcomer

    def _check(self, cast: Sequence[Character]) -> None:
        if len(cast) > self.settings.cast:
            raise BadRequest(
                f"A room has at most {self.settings.cast} characters.", code="too_many"
            )
        names = [one.name.casefold() for one in cast]
        if len(set(names)) < len(names):
            raise BadRequest("Two characters of a room can't have the same name.", code="same_name")
        if len({one.id for one in cast}) < len(cast):
            raise BadRequest("Two characters of a room can't have the same id.", code="same_id")
        cards = sum(len(msgspec.json.encode(one.card)) for one in cast if one.card is not None)
        if cards > CARDS_BYTES:
            raise BadRequest(
                f"The cards of a room's characters have at most {CARDS_BYTES >> 20} MiB together.",
                code="too_long",
            )

    def _character(self, wanted: str | NewCharacter, present: Mapping[str, Character]) -> Character:
        if isinstance(wanted, str):
            found = present.get(wanted) or self.presets.characters.get(wanted)
            if found is None:
                raise BadRequest(f"There is no character “{wanted}”.", code="no_character")
            return found
        texts = (wanted.klass, wanted.personality, wanted.backstory, wanted.instructions)
        for text in (*texts, wanted.greeting):
            self.bounded(text, "character's text")
        # Its card never travels to clients, so a change of its other fields must not lose it.
        before = present.get(wanted.id or "")
        return Character(
            card=before.card if before else None,
            triggers=[Trigger(one.when, one.then) for one in wanted.triggers],
            id=wanted.id or self.ids.new(),
            name=clean(wanted.name, self.settings.name_chars, "character's name"),
            klass=wanted.klass,
            emoji=wanted.emoji,
            personality=wanted.personality,
            backstory=wanted.backstory,
            instructions=wanted.instructions,
            greeting=wanted.greeting,
            talkativeness=wanted.talkativeness,
            muted=wanted.muted,
            model=wanted.model,
        )


def _usable(trigger: Trigger) -> bool:
    """Whether people could have written it, who are held to the lengths of `NewTrigger`."""
    return 0 < len(trigger.when) <= 200 and 0 < len(trigger.then) <= 2000
