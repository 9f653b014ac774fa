"""What the store in memory holds, and what each change does to it."""

from bisect import bisect_left, insort
from collections.abc import Callable
from copy import copy
from typing import Any

from attrs import asdict, define, evolve, field, frozen

from hub.records import Account, Message, Room, Session, Tally, Token, User
from hub.store import base
from hub.store.contract import (
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
from hub.store.words import Query, words


@frozen
class Kept:
    """A stored message; `n` counts all messages in the order in which they came."""

    n: int
    message: Message
    to: str | None

    def seen_by(self, viewer: str | None) -> bool:
        """Whether the viewer may see it."""
        return self.to is None or self.to == viewer

    def found_by(self, query: Query) -> bool:
        """Whether a search finds it: once it has ended."""
        return self.message.status != "running" and query.matches(set(words(self.message.text)))


@define
class Shelf:
    """One room: its settings, members, and messages in the order of their ids."""

    room: Room
    written: int
    members: set[str] = field(factory=set)
    kept: list[Kept] = field(factory=list)

    def copy(self) -> "Shelf":
        """Copy it so far as a change could change it."""
        return evolve(self, members=set(self.members), kept=list(self.kept))

    def at(self, id: str) -> int | None:
        """Return the place of a message, or None."""
        index = bisect_left(self.kept, id, key=id_of)
        return index if index < len(self.kept) and id_of(self.kept[index]) == id else None


def id_of(kept: Kept) -> str:
    """Return what messages are ordered by."""
    return kept.message.id


@define
class State:
    """All that is stored. Each `_do` changes nothing if it refuses."""

    count: int = 0
    shelves: dict[str, Shelf] = field(factory=dict)
    users: dict[str, User] = field(factory=dict)
    sessions: dict[str, Session] = field(factory=dict)
    where: dict[str, str] = field(factory=dict)  # message id -> room id
    txns: dict[tuple[str, str], str] = field(factory=dict)  # author and txn -> message id
    accounts: dict[str, Account] = field(factory=dict)  # by user id
    version: int = 0  # of the accounts
    identities: dict[str, str] = field(factory=dict)  # subject -> user id
    tokens: dict[str, Token] = field(factory=dict)
    tallies: dict[tuple[str, ...], Tally] = field(factory=dict)
    answers: dict[str, tuple[str, float]] = field(factory=dict)

    def copy(self) -> "State":
        """Copy everything that a change could change."""
        fields = {name: copy(value) for name, value in asdict(self, recurse=False).items()}
        shelves = {room: shelf.copy() for room, shelf in self.shelves.items()}
        return State(**fields | {"shelves": shelves})

    def do(self, change: Change) -> Message | None:
        """Make a change; return what an `AddMessage` stored."""
        if isinstance(change, AddMessage):
            return self.add(change)
        _SIMPLE[type(change)](self, change)
        return None

    def shelf(self, room: str) -> Shelf:
        """Return a room, which must be there."""
        if room not in self.shelves:
            raise StoreError(base.NO_ROOM)
        return self.shelves[room]

    def kept(self, id: str) -> Kept | None:
        """Return a message, or None."""
        shelf = self.shelves.get(self.where.get(id, ""))
        index = None if shelf is None else shelf.at(id)
        return None if shelf is None or index is None else shelf.kept[index]

    def next(self) -> int:
        """Count on."""
        self.count += 1
        return self.count

    def add(self, change: AddMessage) -> Message:
        """Add a message, or return the one that was stored first."""
        message = change.message
        sent = (message.author.id, change.txn or "")
        first = self.kept(message.id) or self.kept(self.txns.get(sent, ""))
        if first is not None:
            return first.message
        shelf = self.shelf(message.room)
        shelf.written = self.next()
        insort(shelf.kept, Kept(shelf.written, message, change.to), key=id_of)
        self.where[message.id] = message.room
        if change.txn is not None:
            self.txns[sent] = message.id
        return message

    def save(self, message: Message) -> None:
        """Store a message over the earlier one, if it is there."""
        if self.where.get(message.id) == message.room:
            shelf = self.shelf(message.room)
            index = bisect_left(shelf.kept, message.id, key=id_of)
            shelf.kept[index] = evolve(shelf.kept[index], message=message)

    def remove(self, change: RemoveMessage) -> None:
        """Remove a message."""
        if self.where.get(change.id) == change.room:
            shelf = self.shelf(change.room)
            shelf.kept = [kept for kept in shelf.kept if id_of(kept) != change.id]
            self._forget({change.id})

    def _forget(self, ids: set[str]) -> None:
        for message in ids:
            del self.where[message]
        self.txns = {sent: message for sent, message in self.txns.items() if message not in ids}

    def save_room(self, room: Room) -> None:
        """Store a room; its invite must be free."""
        others = {shelf.room.invite for shelf in self.shelves.values() if shelf.room.id != room.id}
        if room.invite is not None and room.invite in others:
            raise StoreError(base.TAKEN)
        if room.id in self.shelves:
            self.shelves[room.id].room = room
        else:
            self.shelves[room.id] = Shelf(room, self.next())

    def remove_room(self, room: str) -> None:
        """Remove a room with all that is in it."""
        shelf = self.shelves.pop(room, None)
        if shelf is not None:
            self._forget({id_of(kept) for kept in shelf.kept})

    def remove_member(self, change: RemoveMember) -> None:
        """Take a user off a room's members."""
        if change.room in self.shelves:
            self.shelves[change.room].members.discard(change.user)

    def save_user(self, user: User) -> None:
        """Store a user."""
        self.users[user.id] = user
        self.version += user.id in self.accounts

    def remove_user(self, user: str) -> None:
        """Remove a user with all that hangs on it."""
        if user in self.users:
            self.version += 1
        self.users.pop(user, None)
        self.accounts.pop(user, None)
        self.identities = {name: id for name, id in self.identities.items() if id != user}
        self.tokens = {id: token for id, token in self.tokens.items() if token.user != user}
        self.end_sessions(EndSessions(user))
        for shelf in self.shelves.values():
            shelf.members.discard(user)

    def _check_user(self, user: str) -> None:
        if user not in self.users:
            raise StoreError(base.NO_USER)

    def save_account(self, account: Account) -> None:
        """Store an account; its key must be free, its user there."""
        others = {other.key for other in self.accounts.values() if other.user != account.user}
        if account.key in others:
            raise StoreError(base.NAME_TAKEN)
        self._check_user(account.user)
        self.accounts[account.user] = account
        self.version += 1

    def save_identity(self, change: SaveIdentity) -> None:
        """Store an identity; its user must be there."""
        self._check_user(change.user)
        self.identities[change.subject] = change.user

    def save_token(self, token: Token) -> None:
        """Store a token; its user must be there."""
        self._check_user(token.user)
        self.tokens[token.id] = token

    def end_sessions(self, change: EndSessions) -> None:
        """End all sessions of a user but one."""
        for session in list(self.sessions.values()):
            if session.user == change.user and session.id != change.keep:
                del self.sessions[session.id]

    def remove_expired(self, now: float) -> None:
        """Remove sessions and tokens that have expired."""
        self.sessions = {id: one for id, one in self.sessions.items() if one.expires >= now}
        self.tokens = {
            id: one for id, one in self.tokens.items() if one.expires is None or one.expires >= now
        }

    def add_tally(self, more: Tally) -> None:
        """Add to a sum."""
        which = (more.day, more.user, more.room, more.model)
        sum = self.tallies.get(which, Tally(*which))
        self.tallies[which] = Tally(
            *which,
            sum.calls + more.calls,
            sum.input_tokens + more.input_tokens,
            sum.output_tokens + more.output_tokens,
            sum.cost + more.cost,
        )

    def trim_answers(self, change: TrimAnswers) -> None:
        """Forget the oldest answers."""
        newest_first = sorted(self.answers, key=lambda key: (self.answers[key][1], key))[::-1]
        left = change.size
        for key in newest_first:
            data, at = self.answers[key]
            left -= len(data.encode())
            if at < change.before or left < 0:
                del self.answers[key]


_SIMPLE: dict[type[Change], Callable[[State, Any], object]] = {
    SaveMessage: lambda state, change: state.save(change.message),
    RemoveMessage: State.remove,
    SaveRoom: lambda state, change: state.save_room(change.room),
    RemoveRoom: lambda state, change: state.remove_room(change.id),
    AddMember: lambda state, change: state.shelf(change.room).members.add(change.user),
    RemoveMember: State.remove_member,
    AddUser: lambda state, change: state.users.setdefault(change.user.id, change.user),
    SaveUser: lambda state, change: state.save_user(change.user),
    SaveSession: lambda state, change: state.sessions.update({change.session.id: change.session}),
    RemoveSession: lambda state, change: state.sessions.pop(change.id, None),
    EndSessions: State.end_sessions,
    RemoveExpired: lambda state, change: state.remove_expired(change.now),
    SaveAccount: lambda state, change: state.save_account(change.account),
    RemoveUser: lambda state, change: state.remove_user(change.id),
    SaveIdentity: State.save_identity,
    SaveToken: lambda state, change: state.save_token(change.token),
    RemoveToken: lambda state, change: state.tokens.pop(change.id, None),
    AddTally: lambda state, change: state.add_tally(change.tally),
    SaveAnswer: lambda state, change: state.answers.update({change.key: (change.data, change.at)}),
    TrimAnswers: State.trim_answers,
}
