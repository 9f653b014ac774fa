"""All that a client may ask of the hub, one class a method, with what each payload may hold.

Lengths here are those that no setting may exceed; smaller ones that the owner sets are
checked where the command is done. Unknown keys are errors: a misspelt option must not be
ignored in silence.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from hub.records import Answer, Visibility

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Text: TypeAlias = Annotated[str, Meta(max_length=1_000_000)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=10_000)]
ModelName: TypeAlias = Annotated[str, Meta(max_length=200)]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all commands."""


class Since(Command, frozen=True):
    """A place in a log: everything up to `offset` of `epoch` has been seen."""

    epoch: Annotated[str, Meta(max_length=64)]
    offset: Annotated[int, Meta(ge=0)]


class LlmChatPrompt(Command, frozen=True):
    """Ask the model without room or history; the tokens come to this connection alone."""

    prompt: Text
    model: ModelName | None = None


class ListRooms(Command, frozen=True):
    """Ask for the rooms that one may see; or for those of them that are archived."""

    archived: bool = False


class NewTrigger(Command, frozen=True):
    """What a character is to do on a particular input; see `hub.records.Trigger`."""

    when: Annotated[str, Meta(min_length=1, max_length=200)]
    then: Annotated[str, Meta(min_length=1, max_length=2000)]


class NewCharacter(Command, frozen=True, rename={"klass": "class"}):
    """A character of one's own for a room's cast."""

    name: ShortText
    klass: ShortText = ""
    emoji: Annotated[str, Meta(max_length=16)] | None = None
    personality: ShortText = ""
    backstory: ShortText = ""
    instructions: ShortText = ""
    triggers: Annotated[list[NewTrigger], Meta(max_length=50)] = []
    greeting: ShortText = ""
    talkativeness: Annotated[float, Meta(ge=0, le=1)] = 0.5
    muted: bool = False
    id: Id | None = None
    model: ModelName | None = None


Cast: TypeAlias = list[Id | NewCharacter]


class CreateRoom(Command, frozen=True):
    """Make a room. `characters` are ids of presets or characters of one's own."""

    title: ShortText | None = None
    scenario: Text | None = None
    characters: Cast | None = None
    visibility: Visibility | None = None
    answer: Answer | None = None
    model: ModelName | None = None


class JoinRoom(Command, frozen=True):
    """Be in a room from now on, or go on where one was."""

    room: Id
    invite: Annotated[str, Meta(max_length=64)] | None = None
    since: Since | None = None


class LeaveRoom(Command, frozen=True):
    """Be in a room no more, for this connection."""

    room: Id


class SendPrompt(Command, frozen=True):
    """Say something in a room; see docs/protocol.md for the fields."""

    room: Id
    text: Text
    txn: Id
    to: list[Annotated[str, Meta(max_length=200)]] | None = None
    reply: Literal["room", "me"] = "room"


class Stop(Command, frozen=True):
    """Stop one reply, or all that run in the room and what was to follow them."""

    room: Id
    message: Id | None = None


class Regenerate(Command, frozen=True):
    """Ask for another reply in place of one."""

    room: Id
    message: Id


class ContinueReply(Command, frozen=True):
    """Go on with a reply that broke off."""

    room: Id
    message: Id


class Speak(Command, frozen=True):
    """Have a character say something now, muted or not; `character` is its id or name."""

    room: Id
    character: Annotated[str, Meta(min_length=1, max_length=200)]


class Talk(Command, frozen=True):
    """Have the characters talk among themselves for so many turns; 0 ends it."""

    room: Id
    turns: Annotated[int, Meta(ge=0, le=1_000_000)]


class Mute(Command, frozen=True):
    """Have a character keep silent, or let it speak again; `character` is its id or name."""

    room: Id
    character: Annotated[str, Meta(min_length=1, max_length=200)]
    muted: bool


class ReadMessages(Command, frozen=True):
    """Ask for a page of a room's history, or search it."""

    room: Id
    before: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    query: Annotated[str, Meta(max_length=500)] | None = None


class SearchMessages(Command, frozen=True):
    """Look for words in all rooms that one may see."""

    query: Annotated[str, Meta(max_length=500)]
    before: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class UpdateRoom(Command, frozen=True):
    """Change a room's settings; what is left out stays. A `model` of null is the usual one."""

    room: Id
    title: ShortText | None = None
    scenario: Text | None = None
    characters: Cast | None = None
    visibility: Visibility | None = None
    answer: Answer | None = None
    model: ModelName | msgspec.UnsetType | None = msgspec.UNSET
    archived: bool | None = None


class ResumeInbox(Command, frozen=True):
    """Go on reading one's inbox where one was."""

    since: Since


class SetTyping(Command, frozen=True):
    """Say that one is writing, or has stopped."""

    room: Id
    typing: bool


class Kick(Command, frozen=True):
    """Send somebody out of a room; an invite lets them in again."""

    room: Id
    user: Id


class Ban(Command, frozen=True):
    """Send somebody out of a room for good; with `banned` false, let them in again."""

    room: Id
    user: Id
    banned: bool = True


class Ping(Command, frozen=True):
    """Ask for the server's time."""


BY_METHOD: dict[str, type[Command]] = {
    "llm_chat_prompt": LlmChatPrompt,
    "list_rooms": ListRooms,
    "create_room": CreateRoom,
    "join_room": JoinRoom,
    "leave_room": LeaveRoom,
    "send_prompt": SendPrompt,
    "stop": Stop,
    "regenerate": Regenerate,
    "continue_reply": ContinueReply,
    "speak": Speak,
    "talk": Talk,
    "mute": Mute,
    "read_messages": ReadMessages,
    "search_messages": SearchMessages,
    "update_room": UpdateRoom,
    "resume_inbox": ResumeInbox,
    "set_typing": SetTyping,
    "kick": Kick,
    "ban": Ban,
    "ping": Ping,
}
