"""Names of people and rooms: made presentable, or refused with a reason."""

import random
import unicodedata

from hub.errors import BadRequest

_ADJECTIVES = (
    "Amber", "Brave", "Calm", "Clever", "Cosy", "Eager", "Gentle", "Golden", "Happy", "Kind",
    "Lively", "Lucky", "Merry", "Mild", "Nimble", "Patient", "Quick", "Quiet", "Sunny", "Wise",
)  # fmt: skip
_ANIMALS = (
    "Badger", "Bear", "Crane", "Dolphin", "Finch", "Fox", "Hare", "Heron", "Ibis", "Koala",
    "Lark", "Lynx", "Marten", "Otter", "Owl", "Panda", "Robin", "Seal", "Swan", "Wren",
)  # fmt: skip

# Invisible or direction-changing characters: with them a name can pose as another.
_UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Cn"}


def guest_name(chance: random.Random) -> str:
    """Return a friendly name for somebody who gave none."""
    number = chance.randrange(10, 100)
    return f"{chance.choice(_ADJECTIVES)} {chance.choice(_ANIMALS)} {number}"


def clean(text: str, most: int, what: str) -> str:
    """Return `text` normalised (NFKC), on one line, without what can't be seen.

    Raises:
        BadRequest: nothing is left, or it is longer than `most` characters.

    """
    # The joiner of emoji families is kept; it only ever joins what can be seen.
    kept = "".join(
        character
        for character in unicodedata.normalize("NFKC", text)
        if character == "\u200d"
        or character.isspace()
        or unicodedata.category(character) not in _UNSEEN
    )
    name = " ".join(kept.split()).strip("\u200d")
    if not name:
        raise BadRequest(f"A {what} must not be empty.", code="empty")
    if len(name) > most:
        raise BadRequest(f"A {what} has at most {most} characters.", code="too_long")
    return name
