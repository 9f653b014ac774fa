"""A room's messages as a file: JSON, JSONL or Markdown; or all that is a user's, as JSONL.

Pure; it is fed page by page. What reads these files is `hub.importing`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import quote

import msgspec
from attrs import define, field, frozen

from hub.importing import VERSION
from hub.records import Message, Room, User
from hub.showing import UNTOLD

PAGE = 200
"""Messages read and sent at once: some 100 KB of chat, and no more than that is in memory."""

NAME_CHARS = 80
"""Of a title in a file's name: in UTF-8 four times as many bytes still leave room within 255."""

_encode = msgspec.json.Encoder().encode


@frozen
class Format:
    """How a file begins, how a message looks, what stands between two, how it ends."""

    media_type: str
    begin: Callable[[Room], bytes]
    message: Callable[[Message], bytes]
    between: bytes
    end: bytes


@define
class File:
    """Makes a file of one room, in order: `begin`, any number of `add`, `end`."""

    room: Room
    format: Format
    _empty: bool = field(default=True, init=False)

    def begin(self) -> bytes:
        """Return the file's first bytes."""
        return self.format.begin(portable(self.room))

    def add(self, messages: Sequence[Message]) -> bytes:
        """Return the bytes of the next messages."""
        if not messages:
            return b""
        joined = self.format.between.join(map(self.format.message, messages))
        before = b"" if self._empty else self.format.between
        self._empty = False
        return before + joined

    def end(self) -> bytes:
        """Return the file's last bytes."""
        return self.format.end


def portable(room: Room) -> Room:
    """A room without what lets people in: a file is passed on more lightly than an invite.

    Nor is in it what clients are not told.
    """
    return msgspec.structs.replace(room, invite=None, **dict.fromkeys(UNTOLD, msgspec.UNSET))


def owner_line(user: User, at: str) -> bytes:
    """Return the first line of a file with everything of a user's."""
    return _encode({"hubbub": VERSION, "user": user, "at": at}) + b"\n"


def room_line(room: Room) -> bytes:
    """Return the line that a room's messages come after."""
    return _encode({"room": room}) + b"\n"


def disposition(title: str, suffix: str) -> str:
    """Make the header Content-Disposition (RFC 6266) of a download.

    Titles are written by people. The prefix makes the name safe where a dot in front, or a
    word such as CON, means something.
    """
    name = f"{_bare(title)}.{suffix}"
    plain = re.sub(r"[^\w.-]", "", unicodedata.normalize("NFKD", name), flags=re.ASCII)
    return f"attachment; filename=\"hubbub-{plain}\"; filename*=UTF-8''hubbub-{quote(name)}"


def _bare(title: str) -> str:
    normal = unicodedata.normalize("NFKC", title)
    printable = "".join(" " if unicodedata.category(one)[0] == "C" else one for one in normal)
    words = re.sub(r'[\s/\\:*?"<>|%;]+', " ", printable)[:NAME_CHARS]
    return words.strip(" .").replace(" ", "-") or "room"


# ── JSON ─────────────────────────────────────────────────────────────────────────────────


def _json_begin(room: Room) -> bytes:
    return b'{"room":' + _encode(room) + b',"messages":[\n'


def _json_line(message: Message) -> bytes:
    return _encode(message) + b"\n"


# ── Markdown ─────────────────────────────────────────────────────────────────────────────

_SPECIAL = re.compile(r"([\\`*_\[\]<>#&|~])")
_FENCE = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,})")
_HTML = re.compile(r"^( {0,3})<(?!https?:|mailto:)")

_ENDINGS = {
    "running": "not finished yet",
    "stopped": "stopped",
    "failed": "failed",
    "interrupted": "interrupted",
}


def _markdown_begin(room: Room) -> bytes:
    parts = [f"# {_plain(room.title)}"]
    if room.scenario:
        parts.append("\n".join(f"> {line}".rstrip() for line in _tame(room.scenario).split("\n")))
    if room.cast:
        parts.append("Characters: " + ", ".join(_plain(one.name) for one in room.cast))
    return ("\n\n".join(parts) + "\n").encode()


def _markdown(message: Message) -> bytes:
    at = message.at[:16].replace("T", " ")
    marks = "".join(f" ({mark})" for mark in _marks(message))
    text = _tame(message.text.strip("\n")) or "…"
    if message.error:
        text += f"\n\n*{_plain(message.error)}*"
    return f"\n**{_plain(message.author.name)}**{marks}, {at} UTC\n\n{text}\n".encode()


def _marks(message: Message) -> list[str]:
    marks = ["AI"] if message.author.kind == "character" else []
    if message.demo:
        marks.append("demo")
    if message.private:
        marks.append("private")
    if message.status in _ENDINGS:
        marks.append(_ENDINGS[message.status])
    return marks


def _plain(text: str) -> str:
    """A text on one line, with nothing in it that Markdown would take for its own."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _tame(text: str) -> str:
    """Keep a text's Markdown from reaching into the next message: code and HTML left open."""
    lines, fence, close = [], "", ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            ends = found and found[2].startswith(fence) and line.strip() == found[2]
            fence = "" if ends else fence
        elif found:
            fence, close = found[2], found[0]
        else:
            line = _HTML.sub(r"\1\\<", line)  # noqa: PLW2901 - the same line, made harmless
        lines.append(line)
    return "\n".join([*lines, close] if fence else lines)


FORMATS = {
    "json": Format("application/json", _json_begin, _encode, b",\n", b"\n]}\n"),
    "jsonl": Format("application/x-ndjson", lambda _: b"", _json_line, b"", b""),
    "md": Format("text/markdown; charset=utf-8", _markdown_begin, _markdown, b"", b""),
}
"""By what they are called in an address and on the command line; also the files' suffixes."""
