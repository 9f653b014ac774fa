"""Names of people and rooms: made presentable, or refused with a reason; and compared.

Two names are the same where their `key` is: what a person could take for the other is not
given out twice. The key follows the idea of UTS 39 (skeletons of confusables), with a table of
our own: the standard's has ten thousand lines, is for identifiers, and tells "I" from "i",
which names must not. Ours has the letters that Latin is imitated with in practice.
"""

# ruff: noqa: RUF001  - letters that look like others are what this is about

import random
import re
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
_UNSEEN = {"Cf", "Co", "Cs", "Zl", "Zp", "Cn"}

# Letters and marks that show nothing: fillers of Hangul, joiners of graphemes, inherent vowels
# of Khmer, separators of Mongolian, the empty pattern of Braille.
_BLANK = set("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0")

_JOINER = "\u200d"

# What looks like Latin, as it is after casefold. Capitals decide where the two cases look like
# different letters (Greek and Cyrillic): what looks the same is worse than what looks alike.
_SCRIPTS = {
    "а": "a", "в": "b", "г": "r", "е": "e", "һ": "h", "н": "h", "і": "i", "ј": "j", "к": "k",
    "ӏ": "l", "м": "m", "о": "o", "р": "p", "ԛ": "q", "с": "c", "ѕ": "s", "т": "t", "у": "y",
    "ү": "y", "ѵ": "v", "ԝ": "w", "х": "x", "ԁ": "d", "ԍ": "g", "є": "e", "ь": "b", "з": "3",
    "α": "a", "β": "b", "γ": "y", "ε": "e", "ζ": "z", "η": "n", "ι": "i", "κ": "k", "μ": "m",
    "ν": "v", "ο": "o", "ρ": "p", "σ": "o", "τ": "t", "υ": "u", "χ": "x", "ω": "w", "ϲ": "c",
    "ϳ": "j", "հ": "h", "ո": "n", "օ": "o", "ս": "u", "ց": "g", "զ": "q", "յ": "j", "ա": "w",
    "ɑ": "a", "ʙ": "b", "ᴄ": "c", "ɡ": "g", "ɢ": "g", "ʜ": "h", "ı": "i", "ɩ": "i",
    "ɪ": "i", "ȷ": "j", "ᴋ": "k", "ʟ": "l", "ᴍ": "m", "ɴ": "n", "ᴏ": "o", "ᴘ": "p", "ʀ": "r",
    "ꜱ": "s", "ᴛ": "t", "ᴜ": "u", "ʋ": "v", "ᴠ": "v", "ᴡ": "w", "ʏ": "y", "ᴢ": "z", "ø": "o",
    "đ": "d", "ð": "d", "ħ": "h", "ł": "l", "ŧ": "t", "ƒ": "f", "þ": "p", "æ": "ae", "œ": "oe",
}  # fmt: skip
_SIGNS = {
    "0": "o", "1": "l", "i": "l", "|": "l", "!": "l", "ǃ": "l", "ǀ": "l", "$": "s", "@": "a",
    "‐": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "_": "-", "·": ".", "․": ".",
    "‘": "'", "’": "'", "ʼ": "'", "ʹ": "'", "`": "'", "´": "'", "“": '"', "”": '"',
}  # fmt: skip
# The capitals of these look like another letter than their small ones. They count where
# Latin letters stand beside them: a name that is Greek throughout keeps its two cases one.
_CAPITALS = str.maketrans({"Ν": "N", "Η": "H", "Υ": "Y", "Ζ": "Z"})
_LOOKS = str.maketrans({one: like.replace("i", "l") for one, like in _SCRIPTS.items()} | _SIGNS)
_PAIRS = (("rn", "m"), ("vv", "w"))
_LATIN = re.compile("[A-Za-z]")


def guest_name(chance: random.Random) -> str:
    """Return a friendly name for somebody who gave none."""
    number = chance.randrange(10, 100)
    return f"{chance.choice(_ADJECTIVES)} {chance.choice(_ANIMALS)} {number}"


def clean(text: str, most: int, what: str) -> str:
    """Return `text` normalised (NFKC), without what can't be seen or turns the direction.

    Raises:
        BadRequest: nothing is left, it is longer than `most` characters, or has control
            characters, which nobody types into a name.

    """
    normal = unicodedata.normalize("NFKC", text).strip()
    if any(unicodedata.category(character) == "Cc" for character in normal):
        raise BadRequest(
            f"A {what} must not have control characters or line breaks.", code="control_characters"
        )
    # The joiner of emoji families is kept; it only ever joins what can be seen.
    kept = "".join(one for one in normal if one == _JOINER or not _is_unseen(one))
    name = " ".join(kept.split()).strip(_JOINER)
    if not name:
        raise BadRequest(f"A {what} must not be empty.", code="empty")
    if len(name) > most:
        raise BadRequest(f"A {what} has at most {most} characters.", code="too_long")
    return name


def key(name: str) -> str:
    """Return what two names are compared by: equal for what looks the same to a person.

    It has no case, spaces, accents or invisible characters, and of letters that look alike
    (scripts, I l 1, O 0, rn m) always the same one. Never empty for a name from `clean`; not
    for showing. A key is stored with each account: a change here needs those made anew.
    """
    text = unicodedata.normalize("NFKC", name)
    if _LATIN.search(text):
        text = text.translate(_CAPITALS)
    text = unicodedata.normalize("NFKD", text.casefold())
    seen = "".join(one for one in text if not _is_unseen(one) and not _is_accent(one))
    looks = seen.translate(_LOOKS)
    for pair, like in _PAIRS:
        looks = looks.replace(pair, like)
    return "".join(looks.split()) or "".join(text.split())


def _is_unseen(character: str) -> bool:
    return (
        character in _BLANK
        or "\ufe00" <= character <= "\ufe0f"  # variation selectors
        or unicodedata.category(character) in _UNSEEN
    )


def _is_accent(character: str) -> bool:
    # The block of general accents; vowels of Indic and other scripts are letters to readers.
    return "\u0300" <= character <= "\u036f"
