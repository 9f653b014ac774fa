"""Does a text hold a word or phrase? For triggers and the entries of a lorebook.

A pattern is one or more words, matched whole and in any letter case; `*` stands for the rest
of a word, or for one word where it stands alone:

    dragon          "The Dragon!" but not "dragonfly"
    dragon*         "dragons", "dragonfly"
    red dragon      "red   dragon"
    open * door     "open the door"

Regular expressions are not offered, though cards know them: patterns come from anybody, and
Python's `re` can be made to run for hours by a short pattern, without a deadline and without
giving up the processor. What is made here takes time in proportion to the text's length: every
wildcard is bounded and in an atomic group, which is never tried a second time.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

MAX_PATTERN = 200
"""Characters of a pattern. More is no phrase that somebody says; it would never match."""

MAX_TEXT = 10_000
"""Characters of a text that are looked at, the newest (last) ones."""

_REST = 50
"""Letters that a `*` may stand for; it also bounds the work where a text has no spaces."""

_LITERAL = re.compile(r"[^\s*]+")

# Scripts that write without spaces, or glue particles to words: whole words can't be told there.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Heard:
    """A text that is searched for many patterns: a lorebook has thousands."""

    def __init__(self, text: str) -> None:
        self._text = text[-MAX_TEXT:]
        self._lowered = self._text.lower()

    def has(self, pattern: str, *, case_sensitive: bool = False) -> bool:
        """Tell whether the text holds the pattern. A blank or overlong one is nowhere."""
        if not case_sensitive:
            pattern = pattern.lower()
        text = self._text if case_sensitive else self._lowered
        # Nearly all patterns end here; expressions are made for those few that may match.
        if len(pattern) > MAX_PATTERN or any(p not in text for p in _LITERAL.findall(pattern)):
            return False
        compiled = _compile(pattern)
        return compiled is not None and compiled.search(text) is not None

    def has_any(self, patterns: Iterable[str], *, case_sensitive: bool = False) -> bool:
        """Tell whether the text holds one of the patterns."""
        return any(self.has(one, case_sensitive=case_sensitive) for one in patterns)


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str] | None:
    phrase = re.sub(r"\*+", "*", pattern).split()
    if not phrase:
        return None
    return re.compile(_edge(phrase[0][0], r"(?<!\w)") + r"\s++".join(map(_word, phrase)))


def _word(word: str) -> str:
    """Make the expression for one word. No part of it is tried again once it has matched.

    Taking the first place for each piece between two wildcards misses nothing, as long as
    the last piece looks for the word's end itself.
    """
    if word == "*":
        return rf"\w{{1,{_REST}}}+(?!\w)"
    first, *pieces = map(re.escape, word.split("*"))
    end = _edge(word[-1], r"(?!\w)")
    if not pieces:
        return first + end
    middle = "".join(rf"(?>\w{{0,{_REST}}}?{piece})" for piece in pieces[:-1])
    if not pieces[-1]:
        return rf"{first}{middle}\w{{0,{_REST}}}+{end}"
    return rf"{first}{middle}(?>\w{{0,{_REST}}}?{pieces[-1]}{end})"


def _edge(character: str, boundary: str) -> str:
    """Where a phrase begins or ends with a letter, the text must not go on with one."""
    whole = character == "*" or (character.isalnum() and not _UNSPACED.match(character))
    return boundary if whole or character == "_" else ""
