"""A store that forgets when the process ends: for tests, which may then use trio's test clock.

It has no thread. What is submitted is done by a callback that trio runs in its next step.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import trio

from hub.records import Account, Message, Room, Session, Tally, Token, User
from hub.store import base
from hub.store.contract import ROOMS_LISTED, Change, Outcome, StoreError, Then
from hub.store.rows import prepare
from hub.store.state import Kept, Shelf, State, id_of
from hub.store.words import parse


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
        self._state = State()

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

    async def account(self, user: str) -> Account | None:
        """See the contract."""
        return (await self._read()).accounts.get(user)

    async def account_by_key(self, key: str) -> Account | None:
        """See the contract."""
        accounts = (await self._read()).accounts.values()
        return next((account for account in accounts if account.key == key), None)

    async def accounts(self) -> Sequence[tuple[User, Account]]:
        """See the contract."""
        state = await self._read()
        by_key = sorted(state.accounts.values(), key=lambda account: account.key)
        return [(state.users[account.user], account) for account in by_key]

    async def accounts_version(self) -> int:
        """See the contract."""
        return (await self._read()).version

    async def identity(self, subject: str) -> str | None:
        """See the contract."""
        return (await self._read()).identities.get(subject)

    async def token(self, id: str) -> Token | None:
        """See the contract."""
        return (await self._read()).tokens.get(id)

    async def tokens(self, kind: str, user: str | None = None) -> Sequence[Token]:
        """See the contract."""
        tokens = (await self._read()).tokens.values()
        found = [one for one in tokens if one.kind == kind and user in (None, one.user)]
        return sorted(found, key=lambda token: (token.at, token.id))

    async def usage(self, since: str, until: str = "9999") -> Sequence[Tally]:
        """See the contract."""
        tallies = (await self._read()).tallies
        return [tallies[which] for which in sorted(tallies) if since <= which[0] < until]

    async def answer(self, key: str) -> tuple[str, float] | None:
        """See the contract."""
        return (await self._read()).answers.get(key)

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
            kept = kept[: bisect_left(kept, before, key=id_of)]
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
        start = bisect_right(kept, after, key=id_of)
        return [one.message for one in kept[start : start + limit]]

    async def older(self, at: str, *, limit: int = 500) -> Sequence[Message]:
        """See the contract."""
        shelves = (await self._read()).shelves.values()
        kept = [one.message for shelf in shelves for one in shelf.kept if one.message.at < at]
        return kept[:limit]

    async def _read(self) -> State:
        await trio.lowlevel.checkpoint()
        if self.fail_reads is not None:
            raise self.fail_reads
        return self._state

    async def _visible(self, user: str) -> list[Shelf]:
        shelves = (await self._read()).shelves.values()
        return [
            shelf for shelf in shelves if shelf.room.visibility == "public" or user in shelf.members
        ]

    async def _seen(self, room: str, viewer: str | None) -> list[Kept]:
        shelf = (await self._read()).shelves.get(room)
        return [kept for kept in shelf.kept if kept.seen_by(viewer)] if shelf else []


def _newest(kept: Sequence[Kept], limit: int) -> tuple[list[Message], bool]:
    start = max(len(kept) - limit, 0)
    return [one.message for one in kept[start:]], start > 0
