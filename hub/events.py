"""All that the hub tells its clients. A dialect turns each into frames, once for everybody.

Events of a log are numbered by the log; `Typing` and `RoomRemoved` are told but not kept.
"""

from typing import Literal, TypeAlias

import msgspec

from hub.records import Ending, Member, Message, Usage


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all events; its fields are the payload beside `room` and `offset`."""


class MessagePosted(Event, frozen=True):
    """A whole message: a human's prompt, a notice, a reply that did not stream."""

    message: Message


class MessageStarted(Event, frozen=True):
    """A reply begins; its text is empty."""

    message: Message


class Token(Event, frozen=True):
    """`text` is to be appended to message `id`."""

    id: str
    text: str


class MessageEnded(Event, frozen=True):
    """A reply has ended (invariant 6: every one does, in one of four ways).

    `whole` is for dialects whose clients may not have heard it come; no others tell it.
    """

    id: str
    status: Ending
    html: str
    usage: Usage | None
    error: str | None = None
    whole: Message | None = None


class MessageRemoved(Event, frozen=True):
    """A message is gone: deleted, or regenerated."""

    id: str


class MemberJoined(Event, frozen=True):
    """Somebody is here now."""

    member: Member


class MemberLeft(Event, frozen=True):
    """Somebody has gone."""

    member: Member


class TurnChanged(Event, frozen=True):
    """The room's turn: waiting for the model (`position` 1 is next), answering, or over."""

    state: Literal["queued", "running", "done"]
    position: int | None = None


class RoomUpdated(Event, frozen=True):
    """The room's settings changed; `settings` holds those that did."""

    settings: dict[str, msgspec.Raw]


class RoomRemoved(Event, frozen=True):
    """The room is gone for good. Told to who is in it; it has no offset: its log is gone too."""


class Typing(Event, frozen=True):
    """Somebody is writing, or stopped writing. Not kept: it has no offset."""

    member: Member
    typing: bool


NAMES: dict[type[Event], str] = {
    MessagePosted: "message",
    MessageStarted: "message_start",
    Token: "token",
    MessageEnded: "message_end",
    MessageRemoved: "message_removed",
    MemberJoined: "member_joined",
    MemberLeft: "member_left",
    TurnChanged: "turn",
    RoomUpdated: "room_updated",
    RoomRemoved: "room_removed",
    Typing: "typing",
}

Name: TypeAlias = str
