"""A store that forgets when the process ends: for tests, which may then use trio's test clock.

It has no thread. What is submitted is done by a callback that trio runs in its next step.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from hub.records import Message, Room, Session, User
from hub.store import base
from hub.store.contract import (
    ROOMS_LISTED,
    AddMember,
    AddMessage,
    Change,
    Outcome,
    RemoveMember,
    RemoveMessage,
    RemoveRoom,
    RemoveSession,
    SaveMessage,
    SaveRoom,
    SaveSession,
    SaveUser,
    StoreError,
    Then,
)
from hub.store.rows import prepare
from hub.store.words import Query, parse, words


@frozen
class _Kept:
    """A stored message; `n` counts all messages in the order in which they came."""

    n: int
    message: Message
    to: str | None

    def seen_by(self, viewer: str | None) -> bool:
        return self.to is None or self.to == viewer

    def found_by(self, query: Query) -> bool:
        return self.message.status != "running" and query.matches(set(words(self.message.text)))


@define
class _Shelf:
    """One room: its settings, members, and messages in the order of their ids."""

    room: Room
    written: int
    members: set[str] = field(factory=set)
    kept: list[_Kept] = field(factory=list)

    def copy(self) -> "_Shelf":
        return evolve(self, members=set(self.members), kept=list(self.kept))

    def at(self, id: str) -> int | None:
        index = bisect_left(self.kept, id, key=_id)
        return index if index < len(self.kept) and _id(self.kept[index]) == id else None


def _id(kept: _Kept) -> str:
    return kept.message.id


@define
class _State:
    """All that is stored. Each `_do` changes nothing if it refuses."""

    count: int = 0
    shelves: dict[str, _Shelf] = field(factory=dict)
    users: dict[str, User] = field(factory=dict)
    sessions: dict[str, Session] = field(factory=dict)
    where: dict[str, str] = field(factory=dict)  # message id -> room id
    txns: dict[tuple[str, str], str] = field(factory=dict)  # author and txn -> message id

    def copy(self) -> "_State":
        return _State(
            self.count,
            {room: shelf.copy() for room, shelf in self.shelves.items()},
            dict(self.users),
            dict(self.sessions),
            dict(self.where),
            dict(self.txns),
        )

    def do(self, change: Change) -> Message | None:
        if isinstance(change, AddMessage):
            return self.add(change)
        _SIMPLE[type(change)](self, change)
        return None

    def shelf(self, room: str) -> _Shelf:
        if room not in self.shelves:
            raise StoreError(base.NO_ROOM)
        return self.shelves[room]

    def kept(self, id: str) -> _Kept | None:
        shelf = self.shelves.get(self.where.get(id, ""))
        index = None if shelf is None else shelf.at(id)
        return None if shelf is None or index is None else shelf.kept[index]

    def next(self) -> int:
        self.count += 1
        return self.count

    def add(self, change: AddMessage) -> Message:
        message = change.message
        sent = (message.author.id, change.txn or "")
        first = self.kept(message.id) or self.kept(self.txns.get(sent, ""))
        if first is not None:
            return first.message
        shelf = self.shelf(message.room)
        shelf.written = self.next()
        insort(shelf.kept, _Kept(shelf.written, message, change.to), key=_id)
        self.where[message.id] = message.room
        if change.txn is not None:
            self.txns[sent] = message.id
        return message

    def save(self, message: Message) -> None:
        if self.where.get(message.id) == message.room:
            shelf = self.shelf(message.room)
            index = bisect_left(shelf.kept, message.id, key=_id)
            shelf.kept[index] = evolve(shelf.kept[index], message=message)

    def remove(self, change: RemoveMessage) -> None:
        if self.where.get(change.id) == change.room:
            shelf = self.shelf(change.room)
            shelf.kept = [kept for kept in shelf.kept if _id(kept) != change.id]
            self._forget({change.id})

    def _forget(self, ids: set[str]) -> None:
        for message in ids:
            del self.where[message]
        self.txns = {sent: message for sent, message in self.txns.items() if message not in ids}

    def save_room(self, room: Room) -> None:
        others = {shelf.room.invite for shelf in self.shelves.values() if shelf.room.id != room.id}
        if room.invite is not None and room.invite in others:
            raise StoreError(base.TAKEN)
        if room.id in self.shelves:
            self.shelves[room.id].room = room
        else:
            self.shelves[room.id] = _Shelf(room, self.next())

    def remove_room(self, room: str) -> None:
        shelf = self.shelves.pop(room, None)
        if shelf is not None:
            self._forget({_id(kept) for kept in shelf.kept})

    def remove_member(self, change: RemoveMember) -> None:
        if change.room in self.shelves:
            self.shelves[change.room].members.discard(change.user)


_SIMPLE: dict[type[Change], Callable[[_State, Any], object]] = {
    SaveMessage: lambda state, change: state.save(change.message),
    RemoveMessage: _State.remove,
    SaveRoom: lambda state, change: state.save_room(change.room),
    RemoveRoom: lambda state, change: state.remove_room(change.id),
    AddMember: lambda state, change: state.shelf(change.room).members.add(change.user),
    RemoveMember: _State.remove_member,
    SaveUser: lambda state, change: state.users.update({change.user.id: change.user}),
    SaveSession: lambda state, change: state.sessions.update({change.session.id: change.session}),
    RemoveSession: lambda state, change: state.sessions.pop(change.id, None),
}


class MemoryStore:
    """See `hub.store.contract.Store`.

    Tests make it fail and wait: while `fail` is set every change gets that error, while
    `fail_reads` is set every read does, and while `held` nothing is stored until `release`.
    """

    def __init__(self) -> None:
        self.fail: StoreError | None = None
        self.fail_reads: StoreError | None = None
        self.held = False
        self._pending = base.Pending()
        self._queue: list[base.Group] = []
        self._state = _State()

    def submit(self, *changes: Change, then: Then | None = None) -> None:
        """See the contract."""
        self._queue.append(self._pending.admit(changes, then))
        if len(self._queue) == 1:
            trio.lowlevel.current_trio_token().run_sync_soon(self._flush)

    async def commit(self, *changes: Change) -> Message | None:
        """See the contract."""
        return await base.commit(self, *changes)

    def release(self) -> None:
        """Store what was held back, in the next step."""
        self.held = False
        trio.lowlevel.current_trio_token().run_sync_soon(self._flush)

    async def aclose(self) -> None:
        """See the contract."""
        self._pending.closed = True
        self.held = False
        self._flush()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _flush(self) -> None:
        if self.held:
            return
        batch, self._queue = self._queue, []
        outcomes = [self._store(group) for group in batch]
        self._pending.release(batch)
        for group, outcome in zip(batch, outcomes, strict=True):
            group.finish(outcome)

    def _store(self, group: base.Group) -> Outcome:
        refused = group.refused or self.fail
        if refused:
            return refused
        before = self._state.copy() if len(group.changes) > 1 else self._state
        outcome = None
        try:
            for change in group.changes:
                prepare(change)  # refuses what a database would refuse
            for change in group.changes:
                outcome = self._state.do(change) or outcome
        except StoreError as error:
            self._state = before
            return error
        return outcome

    async def user(self, id: str) -> User | None:
        """See the contract."""
        return (await self._read()).users.get(id)

    async def session(self, id: str) -> Session | None:
        """See the contract."""
        return (await self._read()).sessions.get(id)

    async def room(self, id: str) -> Room | None:
        """See the contract."""
        shelf = (await self._read()).shelves.get(id)
        return None if shelf is None else shelf.room

    async def room_by_invite(self, invite: str) -> Room | None:
        """See the contract."""
        rooms = [shelf.room for shelf in (await self._read()).shelves.values()]
        return next((room for room in rooms if room.invite == invite), None)

    async def rooms(self, user: str, *, limit: int = ROOMS_LISTED) -> Sequence[Room]:
        """See the contract."""
        shelves = sorted(await self._visible(user), key=lambda shelf: -shelf.written)
        return [shelf.room for shelf in shelves[:limit]]

    async def is_member(self, room: str, user: str) -> bool:
        """See the contract."""
        shelf = (await self._read()).shelves.get(room)
        return shelf is not None and user in shelf.members

    async def message(self, room: str, id: str) -> tuple[Message, str | None] | None:
        """See the contract."""
        kept = (await self._read()).kept(id)
        return (kept.message, kept.to) if kept and kept.message.room == room else None

    async def messages(
        self,
        room: str,
        *,
        viewer: str | None,
        before: str | None = None,
        limit: int = 50,
        query: str | None = None,
    ) -> tuple[Sequence[Message], bool]:
        """See the contract."""
        kept = await self._seen(room, viewer)
        if before is not None:
            kept = kept[: bisect_left(kept, before, key=_id)]
        if query and query.strip():
            wanted = parse(query)
            kept = [one for one in kept if one.found_by(wanted)]
        return _newest(kept, limit)

    async def search(
        self, user: str, query: str, *, before: str | None = None, limit: int = 50
    ) -> tuple[Sequence[Message], bool]:
        """See the contract."""
        wanted = parse(query)
        end = self._state.kept(before) if before is not None else None
        found = [
            kept
            for shelf in await self._visible(user)
            for kept in shelf.kept
            if kept.seen_by(user) and kept.found_by(wanted) and (not end or kept.n < end.n)
        ]
        return _newest(sorted(found, key=lambda kept: kept.n), limit)

    async def transcript(
        self, room: str, *, viewer: str | None, after: str = "", limit: int = 500
    ) -> Sequence[Message]:
        """See the contract."""
        kept = await self._seen(room, viewer)
        start = bisect_right(kept, after, key=_id)
        return [one.message for one in kept[start : start + limit]]

    async def older(self, at: str, *, limit: int = 500) -> Sequence[Message]:
        """See the contract."""
        shelves = (await self._read()).shelves.values()
        kept = [one.message for shelf in shelves for one in shelf.kept if one.message.at < at]
        return kept[:limit]

    async def _read(self) -> _State:
        await trio.lowlevel.checkpoint()
        if self.fail_reads is not None:
            raise self.fail_reads
        return self._state

    async def _visible(self, user: str) -> list[_Shelf]:
        shelves = (await self._read()).shelves.values()
        return [
            shelf for shelf in shelves if shelf.room.visibility == "public" or user in shelf.members
        ]

    async def _seen(self, room: str, viewer: str | None) -> list[_Kept]:
        shelf = (await self._read()).shelves.get(room)
        return [kept for kept in shelf.kept if kept.seen_by(viewer)] if shelf else []


def _newest(kept: Sequence[_Kept], limit: int) -> tuple[list[Message], bool]:
    start = max(len(kept) - limit, 0)
    return [one.message for one in kept[start:]], start > 0
