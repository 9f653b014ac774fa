"""Who a model plays: a persona, and what its triggers and lorebook add to a single reply."""

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

from attrs import frozen

from llm.phrases import Heard

BYTES_PER_TOKEN = 3.5


@frozen
class Rule:
    """Where one of the phrases in `when` (parted by commas) was said, `then` is to be done."""

    when: str
    then: str


@frozen
class Lore:
    """An entry of a lorebook: `content` is known where one of `keys` was said.

    Attributes:
        also: with these, one of them must have been said too.
        always: known in any case.
        order: lower comes earlier in the prompt.
        priority: the lowest is left out first where the budget ends.

    """

    keys: tuple[str, ...]
    content: str
    also: tuple[str, ...] = ()
    always: bool = False
    case_sensitive: bool = False
    order: float = 0
    priority: float = 0


@frozen
class Lorebook:
    """What a character knows. `scan`: so many of the last lines are searched for keys."""

    entries: tuple[Lore, ...] = ()
    scan: int = 4
    budget: int | None = None


@frozen
class Persona:
    """Who answers. One without class, personality, backstory is a plain helper, not a role.

    Attributes:
        system: replaces our rules of style; `{{original}}` in it stands for them.
        closing: the last words of the system part; `{{original}}` in it stands for nothing.
        examples: how it talks; left out as soon as what was said fills the budget.

    """

    name: str
    klass: str = ""
    personality: str = ""
    backstory: str = ""
    instructions: str = ""
    rules: tuple[Rule, ...] = ()
    lore: Lorebook = Lorebook()
    system: str = ""
    closing: str = ""
    examples: str = ""

    @property
    def plain(self) -> bool:
        """True if there is no role to play."""
        return not (self.klass or self.personality or self.backstory or self.system)


def tokens(text: str) -> int:
    """Estimate how many tokens a text is, without what its message costs."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def substitute(text: str, *, char: str, user: str, original: str = "") -> str:
    """Put names in for `{{char}}`, `{{user}}`, `<BOT>`, `<USER>`; any letter case, once.

    `{{original}}` becomes `original`; comments (`{{// ...}}`, `{{comment: ...}}`,
    `{{hidden_key: ...}}`) go. Other braces stay as they are. Source: Character Card V1 to V3.
    """
    values = {
        "{{char}}": char,
        "<bot>": char,
        "<char>": char,
        "{{user}}": user,
        "<user>": user,
        "{{original}}": original,
    }
    return _MACRO.sub(lambda found: values.get(found[0].lower(), ""), text)


_MACRO = re.compile(
    r"\{\{(?:char|user|original)\}\}|<(?:bot|char|user)>"
    r"|\{\{(?://|comment:|hidden_key:)[^{}]*\}\}",
    re.IGNORECASE,
)


def triggered(rules: Iterable[Rule], asked: Sequence[str]) -> str:
    """Return what the rules say about the texts that are to be answered, each once."""
    heard = [Heard(text) for text in asked]
    hits = (
        rule.then.strip()
        for rule in rules
        if any(one.has_any(rule.when.split(",")) for one in heard)
    )
    return "\n".join(f"- {then}" for then in dict.fromkeys(hits) if then)


def known(book: Lorebook, said: Sequence[str], asked: Sequence[str], most: int) -> str:
    """Return the entries that matched: the most important ones that fit, in their own order.

    Args:
        book: whose entries.
        said: texts of the conversation, oldest first; the book tells how many are searched.
        asked: what this reply answers; searched in any case.
        most: tokens that all entries together may take; the book itself may want less.

    """
    scanned = said[-book.scan :] if book.scan > 0 else ()
    heard = Heard("\n".join([*scanned, *asked]))
    hits = [entry for entry in book.entries if entry.content.strip() and _is_known(entry, heard)]
    hits.sort(key=lambda entry: -entry.priority)
    room = most if book.budget is None else min(book.budget, most)
    costs = accumulate(tokens(entry.content) for entry in hits)
    fitting = [entry for entry, cost in zip(hits, costs, strict=True) if cost <= room]
    return "\n".join(e.content.strip() for e in sorted(fitting, key=lambda entry: entry.order))


def _is_known(entry: Lore, heard: Heard) -> bool:
    if entry.always:
        return True
    sides = [entry.keys, *([entry.also] if entry.also else [])]
    return all(heard.has_any(keys, case_sensitive=entry.case_sensitive) for keys in sides)
