"""What a word is, to every store alike.

The databases are given words, not text: their own tokenizers differ from each other and
between versions. Case, accents and compatibility forms do not count (`Éclair` is `eclair`).
Scripts that are written without spaces count as one word a character.
"""

import re
import unicodedata
from hashlib import blake2b

from attrs import frozen

INDEXED_CHARS = 100_000
"""Characters of a text that can be found: folding them takes about 10 ms at worst."""

INDEXED_WORDS = 5_000
"""Different words of a text that can be found; at 40 characters each they stay below the
1 MB that PostgreSQL allows a tsvector."""

WORD_LENGTH = 40
"""Characters of a word that count; nobody tells longer ones apart by searching."""

PREFIX_LENGTH = 3
"""The last word of a query also finds longer words from so many letters on: the index of
prefixes has this length, and shorter ones match half the messages."""

QUERY_WORDS = 16
"""Words of a query that count: each is one more list to intersect."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile("[a-z0-9]+")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """List the different words of a text, folded, in the order in which they first occur."""
    found = dict.fromkeys(word[:WORD_LENGTH] for word in _split(text[:INDEXED_CHARS]))
    return list(found)[:INDEXED_WORDS]


def _split(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKD", text).casefold()
    return _WORD.findall("".join(c for c in folded if unicodedata.category(c) != "Mn"))


@frozen
class Query:
    """All of `whole` must be among a text's words, and one that begins with `prefix`."""

    whole: tuple[str, ...]
    prefix: str | None

    def __bool__(self) -> bool:
        """Say whether there is anything to look for: signs alone find nothing."""
        return bool(self.whole or self.prefix)

    def matches(self, found: set[str]) -> bool:
        """Whether a text with these words is meant."""
        prefix = self.prefix
        begins = prefix is None or any(word.startswith(prefix) for word in found)
        return bool(self) and begins and found.issuperset(self.whole)


def parse(query: str) -> Query:
    """Read what somebody typed. Quotes, operators and other signs mean nothing."""
    wanted = words(query)[:QUERY_WORDS]
    if not wanted or len(wanted[-1]) < PREFIX_LENGTH:
        return Query(tuple(wanted), None)
    return Query(tuple(wanted[:-1]), wanted[-1])


def scope(room: str, to: str | None) -> str:
    """Make a word for "in this room, seen by all" or "a whisper of `to` in this room".

    It is indexed with a message's own words, so that the index itself leaves out what a
    viewer may not see. No word of a text begins with its first character.
    """
    whose = room if to is None else f"{room}\0{to}"
    return "§" + blake2b(whose.encode(), digest_size=8).hexdigest()
