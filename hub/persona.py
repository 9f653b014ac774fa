"""How a character of a room is played: its own fields, and what its card adds to them.

The other side of `hub.cards`: nothing here fails, whatever is in the card.
"""

import re
from collections.abc import Mapping
from typing import Any

from hub.lore import lorebook
from hub.records import Character
from llm.persona import Persona, Rule, substitute
from llm.speaker import clean_name


def persona(character: Character) -> Persona:
    """Return how a model plays a character, with what its card adds."""
    data = card_data(character.card or {})
    return Persona(
        name=character.name,
        klass=character.klass,
        personality=_named(character, character.personality),
        backstory=_named(character, character.backstory),
        instructions=character.instructions,
        rules=tuple(Rule(trigger.when, trigger.then) for trigger in character.triggers),
        lore=lorebook(data.get("character_book")),
        system=_named(character, _soft_text(data, "system_prompt")),
        closing=_named(character, _soft_text(data, "post_history_instructions")),
        examples=_named(character, _soft_text(data, "mes_example")),
    )


def greetings(character: Character, *, user: str, group: bool = False) -> tuple[str, ...]:
    """Return how a character may open a talk: its greeting first, then the alternate ones.

    Args:
        character: who greets.
        user: the name that `{{user}}` stands for.
        group: others are in the cast: greetings for groups (V3) come too.

    """
    data = card_data(character.card or {})
    texts = [character.greeting, *_soft_texts(data, "alternate_greetings")]
    if group:
        texts += _soft_texts(data, "group_only_greetings")
    char = _called(character)
    filled = (substitute(text, char=char, user=clean_name(user)).strip() for text in texts)
    return tuple(dict.fromkeys(text for text in filled if text))


def card_data(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's fields: they are in `data`, or (V1) on the outside; {} if it is no card."""
    data = card.get("data")
    if isinstance(data, dict):
        return data
    known = ("description", "personality", "first_mes")
    return dict(card) if "spec" not in card and any(key in card for key in known) else {}


def _soft_text(data: Mapping[str, Any], key: str) -> str:
    """Read a card that was checked when it came, or that somebody changed in the store."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _soft_texts(data: Mapping[str, Any], key: str) -> list[str]:
    value = data.get(key)
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _called(character: Character) -> str:
    nickname = _soft_text(card_data(character.card or {}), "nickname")
    return clean_name(nickname) if nickname.strip() else clean_name(character.name)


def _named(character: Character, text: str) -> str:
    """Put in the nickname (V3) for `{{char}}`; the other names are known when it speaks."""
    called = _called(character)
    if called == clean_name(character.name):
        return text
    return re.sub(r"\{\{char\}\}|<bot>|<char>", lambda _: called, text, flags=re.IGNORECASE)
