"""Records for the tests of the stores."""

from itertools import count
from typing import Any

from hub.records import Author, Message, Room

_numbers = count(1)


def new_id() -> str:
    """Ids rise, as UUIDv7 do."""
    return f"m{next(_numbers):09}"


def message(text: str = "hello", *, room: str = "den", author: str = "ann", **more: Any) -> Message:
    fields = {
        "id": new_id(),
        "room": room,
        "author": Author(author, author.title(), "human"),
        "text": text,
        "html": "",
        "at": "2026-11-21T02:00:00Z",
        "status": "done",
        "demo": False,
        "private": False,
    }
    return Message(**{**fields, **more})


def room(id: str = "den", **more: Any) -> Room:
    return Room(**{"id": id, "title": id, **more})
