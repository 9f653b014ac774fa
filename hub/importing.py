"""Chats that come from elsewhere: files of ours and of SillyTavern, read room by room.

What is read here is checked for its form only, and nothing in it is believed: who wrote what is
settled by `hub.adopting`, HTML is made anew. Four kinds of file are known by what is in them:

    everything  JSONL; {"hubbub", "user"}, then for each room {"room"} and its messages
    room        JSON; {"room", "messages"}
    messages    JSONL; one message of ours a line
    SillyTavern JSONL; {"chat_metadata", ...}, then {"name", "is_user", "mes", ...} a line
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any

import msgspec
from attrs import Factory, define, field, frozen

from hub.errors import BadRequest
from hub.records import Answer, Author, Character, Kind, Status, Usage
from hub.text import sound
from hub.wire.tuples import explain

VERSION = 1
"""Of the file with everything; a program refuses what a newer one has written."""

LONGEST_DOCUMENT = 16 * 1024 * 1024
"""Bytes of a JSON document or of one line: it has to be in memory whole while it is read."""

MESSAGES = 20_000
"""Of one room: they are stored in one go, and nobody else's prompts are stored meanwhile."""

CHARS = 6_000_000
"""Of one room, texts and swipes: with their HTML they are in memory until they are stored."""

ME = "me"
"""What an author is called whom the file itself takes for its owner."""


class BadFile(BadRequest):
    """A file can't be taken in; the sentence begins with the place in it."""

    code = "bad_import"


@frozen
class Said:
    """One message, as the file has it. `author.id` means something in this file only."""

    place: str
    id: str
    author: Author
    text: str
    at: str | None
    status: Status = "done"
    demo: bool = False
    private: bool = False
    reply_to: str | None = None
    usage: Usage | None = None
    error: str | None = None
    swipes: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """A room's settings, as far as they are taken over; what lets people in is not."""

    title: str = ""
    scenario: str = ""
    cast: list[Character] = []
    answer: Answer = "all"
    archived: bool = False
    pace: int = 0
    at: str = ""


@define
class Chat:
    """One room of a file.

    Attributes:
        place: where in the file it begins, for people.
        settings: None where the file has nothing but messages.
        mine: what the file calls whoever it belongs to.

    """

    place: str
    settings: Settings | None = None
    said: list[Said] = Factory(list)
    mine: frozenset[str] = frozenset({ME})
    _chars: int = field(default=0, init=False)

    def add(self, one: Said) -> None:
        """Take in the next message.

        Raises:
            BadFile: it is one too many.

        """
        self._chars += len(one.text) + sum(map(len, one.swipes))
        if len(self.said) >= MESSAGES or self._chars > CHARS:
            raise _bad(
                one.place,
                f"This room is too long: {MESSAGES:,} messages and {CHARS:,} characters are the"
                " most. Split the file.",
            )
        self.said.append(one)


def read(file: IO[bytes]) -> Iterator[Chat]:
    """Go through the rooms of a file, each whole; no more than one is in memory.

    Raises:
        BadFile: it is of no kind that is known, or broken; the sentence says where.

    """
    first = _line(file, 1).removeprefix(b"\xef\xbb\xbf")
    if not _stands_alone(first):
        yield _document(first + file.read(LONGEST_DOCUMENT + 1 - len(first)))
        return
    yield from _chats(file, first)


def _stands_alone(line: bytes) -> bool:
    """Whether the first line is a JSON object by itself, and not the whole of a room."""
    try:
        return "messages" not in msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False


def _line(file: IO[bytes], number: int) -> bytes:
    line = file.readline(LONGEST_DOCUMENT + 1)
    if len(line) > LONGEST_DOCUMENT:
        raise _bad(f"Line {number}", f"It is longer than {LONGEST_DOCUMENT >> 20} MB.")
    return line


# ── a room as one document ───────────────────────────────────────────────────────────────


class _Document(msgspec.Struct, frozen=True):
    room: Settings
    messages: list[msgspec.Raw]


def _document(data: bytes) -> Chat:
    if not data.strip():
        raise BadFile("The file is empty.")
    if len(data) > LONGEST_DOCUMENT:
        raise BadFile(f"A JSON file may have {LONGEST_DOCUMENT >> 20} MB; JSONL may have more.")
    try:
        found = msgspec.json.decode(data, type=_Document)
    except msgspec.ValidationError as error:
        raise BadFile(f"This is no room of Hubbub and no chat: {explain(error)}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise _bad(f"Line {_line_of(error, data)}", "This is not valid JSON.") from None
    chat = Chat("The room", found.room)
    for number, raw in enumerate(found.messages, 1):
        chat.add(_ours(f"Message {number}", bytes(raw)))
    return chat


def _line_of(error: Exception, data: bytes) -> int:
    byte = re.search(r"byte (\d+)", str(error))
    return data[: int(byte[1]) if byte else len(data)].count(b"\n") + 1


# ── one thing a line ─────────────────────────────────────────────────────────────────────


def _chats(file: IO[bytes], first: bytes) -> Iterator[Chat]:
    chat: Chat | None = None
    mine = frozenset({ME})
    for place, line in _numbered(file, first):
        keys = _object(place, line)
        if "hubbub" in keys:
            mine |= {_owner(place, line)}
        elif "mes" in keys or "chat_metadata" in keys or "character_name" in keys:
            chat = chat or Chat(place, mine=mine)
            if "mes" in keys:
                chat.add(_tavern(place, line))
        elif bytes(keys.get("room", b"")).startswith(b"{"):
            if chat is not None:
                yield chat
            chat = Chat(place, _decoded(place, bytes(keys["room"]), Settings), mine=mine)
        elif "author" in keys or "text" in keys:
            chat = chat or Chat(place, mine=mine)
            chat.add(_ours(place, line))
        else:
            raise _bad(place, "This is neither a message nor a room.")
    if chat is None:
        raise BadFile("There is no room in this file.")
    yield chat


def _numbered(file: IO[bytes], first: bytes) -> Iterator[tuple[str, bytes]]:
    number, line = 1, first
    while line:
        if line.strip():
            yield f"Line {number}", line
        number += 1
        line = _line(file, number)


def _object(place: str, line: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise _bad(place, "A line must be a JSON object.") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise _bad(place, "This is not valid JSON.") from None


class _Owner(msgspec.Struct, frozen=True):
    id: str


class _Header(msgspec.Struct, frozen=True):
    hubbub: int
    user: _Owner


def _owner(place: str, line: bytes) -> str:
    header: _Header = _decoded(place, line, _Header)
    if header.hubbub > VERSION:
        raise _bad(place, "A newer Hubbub has written this file; this one can't read it.")
    return header.user.id


def _decoded(place: str, data: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _bad(place, explain(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise _bad(place, "This is not valid JSON.") from None


def _bad(place: str, sentence: str) -> BadFile:
    return BadFile(f"{place}: {sentence}")


# ── messages of ours ─────────────────────────────────────────────────────────────────────


class _Writer(msgspec.Struct, frozen=True):
    name: str
    id: str = ""
    kind: Kind = "human"
    emoji: str | None = None


class _Message(msgspec.Struct, frozen=True):
    author: _Writer
    text: str
    id: str = ""
    at: str = ""
    status: Status = "done"
    demo: bool = False
    private: bool = False
    reply_to: str | None = None
    usage: Usage | None = None
    error: str | None = None
    swipes: list[str] | None = None


def _ours(place: str, data: bytes) -> Said:
    one: _Message = _decoded(place, data, _Message)
    at = date(one.at)
    if one.at and at is None:
        raise _bad(place, f"“{one.at[:40]}” is no date that is known here.")
    writer = one.author
    return Said(
        place=place,
        id=one.id,
        author=Author(writer.id or writer.name, writer.name, writer.kind, writer.emoji),
        text=sound(one.text),
        at=at,
        status="interrupted" if one.status == "running" else one.status,
        demo=one.demo,
        private=one.private,
        reply_to=one.reply_to,
        usage=one.usage,
        error=one.error,
        swipes=tuple(map(sound, one.swipes or ())),
    )


# ── messages of SillyTavern ──────────────────────────────────────────────────────────────
# Its chats are documented by its source: docs.sillytavern.app says where the files are, and
# `saveChat` in public/script.js what is in them.


class _Tavern(msgspec.Struct, frozen=True):
    mes: str
    name: str = ""
    is_user: bool = False
    is_system: bool = False
    send_date: str | int | float | None = None
    swipes: list[str] | None = None
    swipe_id: int = 0


def _tavern(place: str, line: bytes) -> Said:
    one: _Tavern = _decoded(place, line, _Tavern)
    kind: Kind = "system" if one.is_system else "human" if one.is_user else "character"
    others = list(one.swipes or ())
    if 0 <= one.swipe_id < len(others):
        del others[one.swipe_id]  # the one that is shown
    return Said(
        place=place,
        id="",
        author=Author(ME if one.is_user else one.name, one.name, kind),
        text=sound(one.mes),
        at=date(one.send_date),  # one that is not understood is no reason to lose a chat
        swipes=tuple(map(sound, others)),
    )


# ── dates ────────────────────────────────────────────────────────────────────────────────

# "2024-1-2 @10h 5m 3s 123ms" and "2024-01-02@10h05m03s"
_TAVERN_DATE = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?) ?@ ?(\d\d?)h ?(\d\d?)m ?(\d\d?)s(?: ?(\d{1,3})ms)?", re.ASCII
)
# Texts such as "January 2, 2024 10:05am"; months in English, whatever the hub's own language.
_SPOKEN_DATE = re.compile(
    r"([A-Za-z]{3,9})\.? (\d\d?), (\d{4}),? (\d\d?):(\d\d)(?::(\d\d))? ?([AaPp][Mm])?", re.ASCII
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def date(value: str | float | None) -> str | None:
    """Return a date as ISO 8601 in UTC, to the millisecond; None if it is not understood.

    Args:
        value: ISO 8601, what SillyTavern writes, or milliseconds since the epoch. Without a
            zone it counts as UTC.

    """
    try:
        found = _parsed(value)
    except (ValueError, OverflowError, OSError):
        return None
    if found is None or not 1 < found.year < 9999:
        return None
    found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parsed(value: str | float | None) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, UTC)
    text = value.strip()
    if text.isascii() and text.isdigit():
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    if found := _TAVERN_DATE.fullmatch(text):
        year, month, day, hour, minute, second, milli = (int(part or 0) for part in found.groups())
        return datetime(year, month, day, hour, minute, second, milli * 1000, tzinfo=UTC)
    if found := _SPOKEN_DATE.fullmatch(text):
        return _spoken(*found.groups(default=""))
    return datetime.fromisoformat(text)


def _spoken(
    month: str, day: str, year: str, hour: str, minute: str, second: str, half: str
) -> datetime:
    hours = int(hour)
    if half:
        hours = hours % 12 + (12 if half.lower() == "pm" else 0)
    number = _MONTHS.index(month[:3].lower()) + 1
    return datetime(int(year), number, int(day), hours, int(minute), int(second or 0), tzinfo=UTC)
