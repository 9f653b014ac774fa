"""From a room's records to what a model is told of: lines and scenes."""

from collections.abc import Container, Iterable, Sequence

from hub.records import Character, Message, Room
from hub.settings import Settings
from llm.character import Line, Scene

PAST = 200
"""Messages of the past that are considered for a prompt; its budget of tokens decides."""


def budget_of(settings: Settings) -> int:
    """Return how many tokens a prompt may have, so that a whole reply still fits."""
    return max(settings.context_tokens - settings.max_tokens, settings.context_tokens // 4)


def heard(
    messages: Sequence[Message],
    before: str,
    prompts: Sequence[str],
    waiting: Container[str],
) -> list[Message]:
    """Return what a reply may know, in the order in which it was answered.

    A prompt that had to wait for its turn stands where that turn began, after the replies of
    the turn before; one that still waits is not known yet. So turns never mix.

    Args:
        messages: the newest of the room, oldest first.
        before: the reply's id.
        prompts: ids of what it answers.
        waiting: ids of prompts that no turn has taken up yet.

    """
    place: dict[str, str] = {}
    for one in messages:
        if one.reply_to:
            place.setdefault(one.reply_to, one.id)
    if prompts:
        place |= dict.fromkeys(prompts, min(place.get(prompts[-1], before), before))

    def order(message: Message) -> tuple[str, str]:
        return place.get(message.id, message.id), message.id

    known = [
        one
        for one in messages
        if order(one)[0] <= before
        and one.id not in waiting
        and one.status not in {"running", "failed"}
    ]
    return sorted(known, key=order)


def scene_of(
    room: Room,
    character: Character,
    people: Iterable[str],
    past: Sequence[Message],
    asked: Sequence[str],
    summary: str = "",
) -> Scene:
    """Return what a reply of the character is to go on.

    `past` is all that it may know, and `summary` what of it is not in there.
    """
    return Scene(
        scenario=room.scenario,
        cast=tuple(one.name for one in room.cast if one.id != character.id),
        people=tuple(people),
        summary=summary,
        lines=tuple(
            Line(one.author.name, one.text, one.author.kind, one.id)
            for one in past
            if one.author.kind != "system" and one.status != "running" and one.text.strip()
        ),
        asked=tuple(asked),
    )
