"""The object dialect, of clients that offer no subprotocol: `{"type", "gameId"?, "data"?}`.

Pure: texts in, what was said out; events and answers in, frames out. The same shapes are
the bodies of `/api/game/*`. Contract: docs/game-protocol.md.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from hub.errors import BadRequest
from hub.events import Event, MessageEnded, MessagePosted, Token
from hub.records import Kind, Message, Room
from hub.wire.frames import text_frame
from hub.wire.tuples import explain

_T = TypeVar("_T")

LAST = 10
"""Messages in the state of a game."""

SHOWN = 40
"""Characters of an unknown type that are said back."""

Speaker: TypeAlias = Literal["gm", "character", "system"]

_TYPES: dict[Kind, Speaker] = {"human": "gm", "character": "character", "system": "system"}


class NotUnderstood(BadRequest):
    """What came is no message of this dialect, or of a type that is not known."""

    code = "bad_frame"


class Said(msgspec.Struct, frozen=True, rename={"game": "gameId"}):
    """One message of a client. `game` may be anything until `game_id` has looked at it."""

    type: str
    game: object = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class GameCharacter(msgspec.Struct, frozen=True, rename={"klass": "class"}):
    """A character as game clients give it; what else they say of it is ignored."""

    name: str
    klass: str | None = None
    personality: str | None = None
    backstory: str | None = None
    emoji: Annotated[str, msgspec.Meta(max_length=16)] | None = None


class StartGame(msgspec.Struct, frozen=True, rename={"scenario": "gmPrompt"}):
    """Data of `start_game`, and body of `POST /api/game/start`."""

    scenario: str
    characters: list[GameCharacter]


class SendMessage(msgspec.Struct, frozen=True, rename={"game": "gameId"}):
    """Data of `send_message`; with the id, the body of `POST /api/game/message`."""

    message: str = ""
    game: object = None


class JoinGame(msgspec.Struct, frozen=True):
    """Data of `join_game`."""

    stream: bool = False


class GameMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message as game clients know it.

    Attributes:
        timestamp: ISO 8601 in UTC.
        type: `gm` is any human.
        demo: made up by the demo provider (invariant 7).
        status: only of a reply that was cut short: `stopped` or `interrupted`.

    """

    id: str
    timestamp: str
    speaker: str
    message: str
    type: Speaker
    demo: bool = False
    status: str | None = None


class Role(msgspec.Struct, frozen=True, rename={"klass": "class"}):
    """A character in the state of a game."""

    name: str
    klass: str
    personality: str


class GameState(msgspec.Struct, frozen=True, rename="camel"):
    """Data of `game_state` and `game_joined`."""

    game_id: str
    characters: list[Role]
    messages: list[GameMessage]
    is_active: bool


_said = msgspec.json.Decoder(Said)
_encode = msgspec.json.Encoder().encode


def decode(text: str | bytes) -> Said:
    """Read one message of a client.

    Raises:
        NotUnderstood: it is none.

    """
    try:
        if isinstance(text, str):
            return _said.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise NotUnderstood("Invalid message format") from error
    raise NotUnderstood("Invalid message format")


def read(data: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    """Read the data of a message, or a body, as what it has to be.

    Raises:
        BadRequest: it is not.

    """
    try:
        # Without any, what is needed is missing; so people are told what that is.
        return msgspec.json.decode(b"{}" if bytes(data).strip() == b"null" else data, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(explain(error), code="bad_payload") from error
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest("This is not valid JSON.", code="bad_json") from error


def game_id(value: object) -> str:
    """Return the id of the game that is meant.

    Raises:
        BadRequest: none was given, or something that is no id.

    """
    if not isinstance(value, str) or not value:
        raise BadRequest("Game ID required", code="no_game_id")
    return value


def unknown(type: str) -> NotUnderstood:
    """Return the error for a type that is not known."""
    return NotUnderstood(f"Unknown message type: {type[:SHOWN]}", code="unknown_type")


def game_message(message: Message) -> GameMessage:
    """Return a message as game clients know it."""
    return GameMessage(
        id=message.id,
        timestamp=message.at,
        speaker=message.author.name,
        message=message.text,
        type=_TYPES[message.author.kind],
        demo=message.demo,
        status=None if message.status == "done" else message.status,
    )


def game_messages(messages: Iterable[Message]) -> list[GameMessage]:
    """Return those that game clients are shown, see `is_shown`."""
    return [game_message(one) for one in messages if is_shown(one)]


def is_shown(message: Message) -> bool:
    """Whether it was said to all and is whole: no whisper, no failure, nothing under way."""
    return (
        not message.private
        and message.status not in {"running", "failed"}
        and bool(message.text.strip())
    )


def game_state(room: Room, messages: Iterable[Message]) -> GameState:
    """Return how a game stands; of `messages`, the last few that are shown."""
    return GameState(
        game_id=room.id,
        characters=[Role(one.name, one.klass, one.personality) for one in room.cast],
        messages=game_messages(messages)[-LAST:],
        is_active=room.active,
    )


def frame(type: str, data: object) -> bytes:
    """Return the frame of a message to a client."""
    return text_frame(_encode({"type": type, "data": data}))


def error(sentence: str, retry_after: float | None = None) -> bytes:
    """Return the frame that says what is wrong, and in how many seconds to try again."""
    what: dict[str, object] = {"error": sentence}
    if retry_after is not None:
        what["retryAfter"] = round(retry_after, 1)
    return frame("error", what)


class Objects:
    """The dialect's events; see `hub.wire.dialect.Dialect`. `stream`: tokens as well."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream

    def event(self, room: str, offset: int | None, inbox: bool, event: Event) -> bytes:  # noqa: ARG002 - these clients count nothing
        """Encode what was said; this language has nothing else, and no whispers."""
        if inbox:
            return b""
        if isinstance(event, Token) and self._stream:
            return frame("token", {"gameId": room, "id": event.id, "text": event.text})
        message = _whole(event)
        if message is None or not is_shown(message):
            return b""
        return frame("message", {"gameId": room, "message": game_message(message)})


def _whole(event: Event) -> Message | None:
    if isinstance(event, MessagePosted):
        return event.message
    return event.whole if isinstance(event, MessageEnded) else None


WHOLE = Objects(stream=False)
STREAMED = Objects(stream=True)
