"""Changes as rows of tables, checked: the same things are refused whatever the store is."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from attrs import frozen

from hub.records import Message
from hub.store.contract import (
    KEY_LENGTH,
    AddMember,
    AddMessage,
    AddTally,
    AddUser,
    Change,
    EndSessions,
    RemoveExpired,
    RemoveMember,
    RemoveMessage,
    RemoveRoom,
    RemoveSession,
    RemoveToken,
    RemoveUser,
    SaveAccount,
    SaveAnswer,
    SaveIdentity,
    SaveMessage,
    SaveRoom,
    SaveSession,
    SaveToken,
    SaveUser,
    StoreError,
    TrimAnswers,
)

BROKEN = "A broken character in this text cannot be stored."

Row: TypeAlias = dict[str, Any]


@frozen
class Prepared:
    """A change, and the row that it makes."""

    change: Change
    row: Row


def prepare(change: Change) -> Prepared:
    """Make the row of a change.

    Raises:
        StoreError: no store can keep this.

    """
    return Prepared(change, _ROWS[type(change)](change))


def is_key(key: str) -> bool:
    """Whether this can be an id at all: PostgreSQL knows no NUL, UTF-8 no lone surrogate."""
    return len(key) <= KEY_LENGTH and "\0" not in key and _encodable(key)


def encode(record: msgspec.Struct) -> str:
    """Encode a record as JSON, which escapes NUL."""
    try:
        return msgspec.json.encode(record).decode()
    except UnicodeEncodeError:
        raise StoreError(BROKEN) from None


def decode_message(data: str) -> Message:
    """Undo `encode`."""
    return _message_decoder.decode(data)


_message_decoder = msgspec.json.Decoder(Message)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keys(**keys: str | None) -> Row:
    for key in keys.values():
        if key is not None and not is_key(key):
            raise StoreError(
                f"An id is longer than {KEY_LENGTH} characters or has one in it"
                " that cannot be stored."
            )
    return keys


def _message(message: Message) -> Row:
    row = _keys(id=message.id, room=message.room, author=message.author.id, at=message.at)
    return row | {"status": message.status, "data": encode(message)}


def _add_message(change: AddMessage) -> Row:
    return _message(change.message) | _keys(to_user=change.to, txn=change.txn)


def _save_room(change: SaveRoom) -> Row:
    room = change.room
    keys = _keys(id=room.id, invite=room.invite)
    return keys | {"visibility": room.visibility, "data": encode(room)}


def _save_session(change: SaveSession) -> Row:
    session = change.session
    keys = _keys(id=session.id, user_id=session.user)
    return keys | {"expires": session.expires, "data": encode(session)}


def _save_account(change: SaveAccount) -> Row:
    account = change.account
    return _keys(user_id=account.user, key=account.key) | {"data": encode(account)}


def _save_token(change: SaveToken) -> Row:
    token = change.token
    keys = _keys(id=token.id, user_id=token.user, at=token.at)
    return keys | {"kind": token.kind, "expires": token.expires, "data": encode(token)}


def _add_tally(change: AddTally) -> Row:
    row: Row = msgspec.structs.asdict(change.tally)
    keys = _keys(day=row["day"], user_id=row.pop("user"), room=row["room"], model=row["model"])
    whole = "\0".join(keys[name] for name in ("day", "user_id", "room", "model"))
    return row | keys | {"id": hashlib.sha256(whole.encode()).hexdigest()}


def _save_answer(change: SaveAnswer) -> Row:
    if "\0" in change.data or not _encodable(change.data):
        raise StoreError(BROKEN)
    size = len(change.data.encode())
    return _keys(key=change.key) | {"data": change.data, "at": change.at, "size": size}


_ROWS: dict[type[Change], Callable[[Any], Row]] = {
    AddMessage: _add_message,
    SaveMessage: lambda change: _message(change.message),
    RemoveMessage: lambda change: _keys(room=change.room, id=change.id),
    SaveRoom: _save_room,
    RemoveRoom: lambda change: _keys(id=change.id),
    AddMember: lambda change: _keys(room=change.room, user_id=change.user),
    RemoveMember: lambda change: _keys(room=change.room, user_id=change.user),
    AddUser: lambda change: _keys(id=change.user.id) | {"data": encode(change.user)},
    SaveUser: lambda change: _keys(id=change.user.id) | {"data": encode(change.user)},
    SaveSession: _save_session,
    RemoveSession: lambda change: _keys(id=change.id),
    EndSessions: lambda change: _keys(user_id=change.user, keep=change.keep),
    RemoveExpired: lambda change: {"now": change.now},
    SaveAccount: _save_account,
    RemoveUser: lambda change: _keys(id=change.id),
    SaveIdentity: lambda change: _keys(subject=change.subject, user_id=change.user),
    SaveToken: _save_token,
    RemoveToken: lambda change: _keys(id=change.id),
    AddTally: _add_tally,
    SaveAnswer: _save_answer,
    TrimAnswers: lambda change: {"before": change.before, "size": change.size},
}
