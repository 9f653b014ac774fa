"""The lorebook of a character card: from a card's JSON to what prompt assembly knows.

Sources: `character_book` in Character Card V2, "Lorebook Fields" in V3. What is used: keys and
secondary keys, constant, enabled, order, priority, scan depth, token budget, and of V3's
decorators `@@activate` and `@@dont_activate`. Entries with regular expressions are never
matched (see `llm.phrases`), and entries don't call up other entries. All that is not used is
kept in the card.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm.persona import Lore, Lorebook

MAX_ENTRIES = 1_000
"""Entries that are looked at: each is searched for before each reply."""

DEFAULT_SCAN = 4
MAX_SCAN = 50
"""Lines that are searched for keys, where the book does not say, and at most."""

_DECORATOR = re.compile(r"\A\s*@@@?([a-z_]+)[^\n]*(?:\n|\Z)", re.IGNORECASE)


def lorebook(book: object) -> Lorebook:
    """Read a card's lorebook; what makes no sense in it is left out, so this never fails."""
    if not isinstance(book, Mapping):
        return Lorebook()
    found = book.get("entries")
    entries = found[:MAX_ENTRIES] if isinstance(found, list) else []
    scan, budget = _number(book.get("scan_depth")), _number(book.get("token_budget"))
    return Lorebook(
        entries=tuple(lore for entry in entries for lore in _entry(entry)),
        scan=DEFAULT_SCAN if scan is None else int(min(max(scan, 0), MAX_SCAN)),
        budget=int(budget) if budget is not None and budget > 0 else None,
    )


def without_decorators(book: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a lorebook for V2, which knows no decorators (V3: "on backfilling V2")."""
    plain = copy.deepcopy(dict(book))
    entries = plain.get("entries")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("content"), str):
            entry["content"] = _undecorated(entry["content"])[1]
    return plain


def _entry(entry: object) -> Iterator[Lore]:
    if not isinstance(entry, Mapping) or entry.get("enabled") is False:
        return
    content = entry.get("content")
    if not isinstance(content, str) or not content.strip():
        return
    decorators, content = _undecorated(content)
    forced = "activate" in decorators
    if "dont_activate" in decorators and not forced:
        return
    always = forced or entry.get("constant") is True
    keys = () if entry.get("use_regex") is True else _keys(entry.get("keys"))
    if keys or always:
        order = _number(entry.get("insertion_order")) or 0
        priority = _number(entry.get("priority"))
        yield Lore(
            keys=keys,
            content=content,
            also=_keys(entry.get("secondary_keys")) if entry.get("selective") is True else (),
            always=always,
            case_sensitive=entry.get("case_sensitive") is True,
            order=order,
            priority=order if priority is None else priority,
        )


def _undecorated(content: str) -> tuple[set[str], str]:
    """Split an entry into the names of its decorators and what is left."""
    names = set()
    while found := _DECORATOR.match(content):
        names.add(found[1].lower())
        content = content[found.end() :]
    return names, content.strip() if names else content


def _keys(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return ()
    return tuple(key for key in value if isinstance(key, str) and key.strip())


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 else None
