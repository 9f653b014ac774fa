"""Character cards, the format in which characters travel: import, export, and what they add.

Sources: Character Card V1 and V2 (github.com/malfoyslastname/character-card-spec-v2), V3
(github.com/kwaroran/character-card-spec-v3). A card is JSON, alone or as base64 in a tEXt
chunk of a PNG: `chara` (V1, V2) or `ccv3` (V3, preferred). Some tools write zTXt or iTXt;
these are read too.

The card is kept whole in `Character.card`, so that whatever we don't know of it (extensions,
fields of other tools) is there again when it is exported. What the character's own fields say
wins over the card. Where a card has no place for them, they go into `extensions.hubbub`.

    card                             character
    name, nickname                   name; nickname is what {{char}} stands for
    description                      backstory
    personality                      personality
    first_mes                        greeting; alternate_greetings are its swipes
    scenario                         offered to the room, see `Imported.scenario`
    system_prompt,                   in the prompt, see `hub.persona`
    post_history_instructions,
    mes_example, character_book
    extensions.talkativeness         talkativeness (as SillyTavern has it)
    extensions.hubbub                class, emoji, instructions, triggers, model
"""

import base64
import binascii
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec
from attrs import frozen

from hub.errors import BadRequest
from hub.lore import without_decorators
from hub.persona import card_data
from hub.png import (
    Chunk,
    PngError,
    plain_picture,
    read_chunks,
    text_chunk,
    text_of,
    write_chunks,
)
from hub.records import Character, Trigger
from llm.speaker import clean_name

MAX_FILE = 4 * 1024 * 1024
"""Bytes of a file. Cards are pictures of some 500 KiB; it is held in memory while it is read."""

MAX_JSON = 1024 * 1024
"""Bytes of a card's JSON. It is stored with every room that has the character in its cast."""

MAX_DEPTH = 32
MAX_VALUES = 50_000
"""Nesting and count of values in a card: beyond any real one, far below what hurts."""

MAX_TEXT = 50_000
"""Characters of one text of a card. Long ones run to 15,000."""

MAX_GREETINGS = 50
MAX_TRIGGERS = 50

Spec: TypeAlias = Literal["v2", "v3"]
Json: TypeAlias = dict[str, Any]

_KEYWORDS = ("ccv3", "chara")
_SPECS = {"chara_card_v2": "v2", "chara_card_v3": "v3"}
_BACKFILLED = (
    "This is a version 3 card, kept here as version 2 as well. Please use a program that reads "
    "version 3 to get all of it."
)


class CardError(BadRequest):
    """A card can't be read."""

    code = "bad_card"


@frozen
class Imported:
    """What a card gave.

    Attributes:
        character: ready for a cast; make its id unique there.
        scenario: what the card would have the room be about, names not yet put in.
        notes: what the card's maker tells people; never part of a prompt.
        image: the picture without the card in it, None for JSON.
        warnings: sentences for the user: what of the card is not used here.

    """

    character: Character
    scenario: str = ""
    notes: str = ""
    image: bytes | None = None
    warnings: tuple[str, ...] = ()


def import_card(data: bytes, most: int = MAX_FILE) -> Imported:
    """Read a card, JSON or PNG, version 1, 2 or 3, of at most so many bytes.

    Raises:
        CardError: it is no card, broken, or too big.

    """
    if len(data) > most:
        raise CardError(f"This file is bigger than {most / 1024 / 1024:.3g} MiB.")
    kind = _kind(data)
    if kind == "json":
        return _imported(_decoded(data), None)
    try:
        chunks = read_chunks(data)
        card = _embedded(chunks)
    except PngError as error:
        raise CardError(str(error)) from None
    return _imported(card, write_chunks(_without_card(chunks)))


def export_json(character: Character, spec: Spec) -> bytes:
    """Make a card of a character, as JSON that people can read."""
    return msgspec.json.format(msgspec.json.encode(_card(character, spec)), indent=2)


def export_png(character: Character, spec: Spec, image: bytes | None = None) -> bytes:
    """Make a card of a character, in a picture.

    Version 3 comes with a version 2 card beside it, for programs that know no better.

    Args:
        character: whose card.
        spec: the version.
        image: a PNG to put the card in; None makes a plain square.

    Raises:
        CardError: `image` is no PNG.

    """
    try:
        chunks = read_chunks(image) if image else list(plain_picture(_color(character.name)))
    except PngError as error:
        raise CardError(str(error)) from None
    *head, end = _without_card(chunks)
    second = _card(character, "v2")
    if spec == "v2":
        return write_chunks([*head, _embed("chara", second), end])
    notes = second["data"]["creator_notes"]
    second["data"]["creator_notes"] = f"{notes}\n\n{_BACKFILLED}".strip()
    third = _card(character, "v3")
    return write_chunks([*head, _embed("ccv3", third), _embed("chara", second), end])


def _kind(data: bytes) -> Literal["json", "png"]:
    """Tell by its first bytes what a file is; name the common mistakes."""
    if data.startswith(b"\x89PNG"):
        return "png"
    if data.startswith(b"PK"):
        raise CardError("This is a CHARX or zip archive. Please export the card as PNG or JSON.")
    if data.startswith((b"\xff\xd8", b"GIF8")) or data[8:12] == b"WEBP":
        raise CardError("This picture is no PNG, so no card can be read from it.")
    if not data.strip():
        raise CardError("This file is empty.")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        raise CardError("This is no character card: a card is a PNG picture or a JSON file.")
    return "json"


def _embedded(chunks: Sequence[Chunk]) -> Json:
    """Find the card in a picture; version 3 first, whatever comes first in the file."""
    texts: dict[str, bytes] = {}
    for chunk in chunks:
        if _is_card(chunk):
            text = text_of(chunk, limit=MAX_JSON * 4 // 3 + 4)
            if text:
                texts.setdefault(text.keyword.lower(), text.value)
    for keyword in _KEYWORDS:
        if keyword in texts:
            return _decoded(_unbased(texts[keyword]))
    raise CardError("There is no character card in this picture.")


def _unbased(value: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(value.split()), validate=True)
    except binascii.Error:
        raise CardError("The card in this picture is not in base64, as it should be.") from None


def _embed(keyword: str, card: Json) -> Chunk:
    return text_chunk(keyword, base64.b64encode(msgspec.json.encode(card)))


def _is_card(chunk: Chunk) -> bool:
    """Tell whether a chunk holds a card, without reading what it holds."""
    keyword = chunk.data.partition(b"\0")[0].lower()
    return chunk.type in (b"tEXt", b"zTXt", b"iTXt") and keyword in (b"ccv3", b"chara")


def _without_card(chunks: Sequence[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if not _is_card(chunk)]


def _decoded(raw: bytes) -> Json:
    if len(raw) > MAX_JSON:
        raise CardError(f"The card's text is bigger than {MAX_JSON // 1024} KiB.")
    try:
        value = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"))
    except RecursionError:
        raise CardError("The card is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CardError("The card is not valid JSON.") from None
    if not isinstance(value, dict):
        raise CardError("This is JSON, but no character card.")
    _check_size(value)
    return value


def _check_size(card: Json) -> None:
    """Count values level by level; the depth of recursion is not ours to spend."""
    level: list[object] = [card]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if depth > MAX_DEPTH:
            raise CardError("The card is nested too deeply.")
        if count > MAX_VALUES:
            raise CardError("The card has too many parts.")
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _imported(card: Json, image: bytes | None) -> Imported:
    warnings = _version_warnings(card)
    data = card_data(card)
    if not data:
        raise CardError("This is JSON, but no character card.")
    name = _text(data, "name").strip()
    if not name:
        raise CardError("The card has no name in it.")
    book = data.get("character_book")
    if book is not None and not isinstance(book, dict):
        raise _wrong("character_book", "an object", book)
    _texts(data, "group_only_greetings")
    if any(entry.get("use_regex") is True for entry in _entries(book)):
        warnings.append("Entries of its lorebook with regular expressions are not used here.")
    return Imported(
        character=_character(name, card, data),
        scenario=_text(data, "scenario"),
        notes=_text(data, "creator_notes"),
        image=image,
        warnings=tuple(warnings),
    )


def _version_warnings(card: Json) -> list[str]:
    spec, version = card.get("spec"), card.get("spec_version")
    if spec is not None and spec not in _SPECS:
        raise CardError("This card is of a kind that is not known here: only V1, V2 and V3 are.")
    try:
        newer = float(cast("str", version)) > float(_SPECS.get(str(spec), "v2")[1:])
    except (TypeError, ValueError):
        newer = False
    return ["This card is of a newer version; some of it may not be used here."] if newer else []


def _character(name: str, card: Json, data: Json) -> Character:
    extensions = data.get("extensions") or {}
    if not isinstance(extensions, dict):
        raise _wrong("extensions", "an object", extensions)
    own = extensions.get("hubbub")
    own = own if isinstance(own, dict) else {}
    for key in ("system_prompt", "post_history_instructions", "mes_example", "nickname"):
        _text(data, key)
    _texts(data, "alternate_greetings")
    return Character(
        id=_slug(name),
        name=clean_name(name),
        klass=_text(own, "class")[:100],
        emoji=_text(own, "emoji")[:16] or None,
        personality=_text(data, "personality"),
        backstory=_text(data, "description"),
        instructions=_text(own, "instructions"),
        triggers=_triggers(own.get("triggers")),
        greeting=_text(data, "first_mes"),
        talkativeness=_share(extensions.get("talkativeness")),
        model=_text(own, "model")[:200] or None,
        card=card,
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    if len(value) > MAX_TEXT:
        raise CardError(f"The card's “{key}” is longer than {MAX_TEXT} characters.")
    return value.replace("\0", "")


def _texts(data: Mapping[str, Any], key: str) -> list[str]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(key, "a list of texts", value)
    if len(value) > MAX_GREETINGS:
        raise CardError(f"The card has more than {MAX_GREETINGS} of “{key}”.")
    return [_text({key: text}, key) for text in value]


def _entries(book: Json | None) -> list[Json]:
    """Check a lorebook's outline; entries that make no sense are left out when it is used."""
    entries = (book or {}).get("entries")
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise _wrong("entries", "a list", entries)
    return [entry for entry in entries if isinstance(entry, dict)]


def _wrong(key: str, wanted: str, value: object) -> CardError:
    names = {bool: "a yes or no", dict: "an object", list: "a list", str: "text"}
    return CardError(
        f"The card's “{key}” should be {wanted}, not {names.get(type(value), 'a number')}."
    )


def _share(value: object) -> float:
    """Read a share from 0 to 1, which SillyTavern writes as text."""
    try:
        share = float(cast("str", value))
    except (TypeError, ValueError):
        return 0.5
    return share if 0 <= share <= 1 else 0.5


def _triggers(value: object) -> list[Trigger]:
    try:
        return msgspec.convert(value or [], list[Trigger])[:MAX_TRIGGERS]
    except msgspec.ValidationError:
        return []


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")[:40] or "character"


def _card(character: Character, spec: Spec) -> Json:
    """Make the card's JSON: what came with the character, with what it is now over it."""
    card = copy.deepcopy(character.card or {})
    data = card_data(card)
    if "data" not in card:
        card = {}  # a V1 card has its fields outside, where V2 and V3 have none
    data = {**_defaults(spec), **{key: v for key, v in data.items() if v is not None}}
    data |= {
        "name": character.name,
        "description": character.backstory,
        "personality": character.personality,
        "first_mes": character.greeting,
        "extensions": _extensions(character, data),
    }
    if spec == "v2" and isinstance(data.get("character_book"), dict):
        data["character_book"] = without_decorators(data["character_book"])
    number = spec[1:]
    return {**card, "spec": f"chara_card_{spec}", "spec_version": f"{number}.0", "data": data}


def _defaults(spec: Spec) -> Json:
    """Return the fields that a card must have."""
    texts = (
        "name description personality scenario first_mes mes_example creator_notes "
        "system_prompt post_history_instructions creator character_version"
    )
    data: Json = dict.fromkeys(texts.split(), "")
    data |= {"alternate_greetings": [], "tags": [], "extensions": {}}
    return data | ({"group_only_greetings": []} if spec == "v3" else {})


def _extensions(character: Character, data: Json) -> Json:
    extensions = data.get("extensions")
    extensions = dict(extensions) if isinstance(extensions, dict) else {}
    own: Json = {
        "class": character.klass,
        "emoji": character.emoji,
        "instructions": character.instructions,
        "triggers": msgspec.to_builtins(character.triggers),
        "model": character.model,
    }
    kept = extensions.get("hubbub")
    mine = {**(kept if isinstance(kept, dict) else {}), **own}
    mine = {key: value for key, value in mine.items() if value}
    if mine:
        extensions["hubbub"] = mine
    if _share(extensions.get("talkativeness")) != character.talkativeness:
        extensions["talkativeness"] = str(character.talkativeness)
    return extensions


def _color(name: str) -> tuple[int, int, int]:
    """Pick a soft color by name, the same one each time."""
    seed = binascii.crc32(name.encode())
    return (96 + seed % 96, 96 + (seed >> 8) % 96, 96 + (seed >> 16) % 96)
