"""The one writer: a thread that commits all that has gathered in one transaction.

It does not wait for more to gather. While one transaction is being committed the next
submissions queue up, so that the busier it gets the more share a commit; a lone message
waits for at most the commit before it. What was committed is told in one call on the trio
thread, so that all `then`s run in the order of submission.
"""

import logging
from collections.abc import Sequence
from queue import Empty, SimpleQueue

import trio
from sqlalchemy import Connection

from hub.store.base import Group, Pending
from hub.store.changes import apply
from hub.store.contract import Change, Outcome, StoreError, Then
from hub.store.database import Database
from hub.store.rows import Prepared, prepare

BATCH_GROUPS = 1_000
"""Submissions that share a transaction: beyond this a commit's share is nothing any more, and
whoever came first would wait for the work of all."""

CLOSE_SECONDS = 15.0
"""Storing what is left when the hub ends. A healthy disk takes well under one."""

UNSTORED = "The server is shutting down, and its database does not answer."

log = logging.getLogger(__name__)


class Writer:
    """Owns the thread. `run` it in a nursery; it ends after `finish`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._token = trio.lowlevel.current_trio_token()
        self._queue: SimpleQueue[Group | None] = SimpleQueue()
        self._waiting: dict[int, Group] = {}
        self._pending = Pending()
        # Without a deadline until `finish` sets one: a store is finished by who opened it,
        # and may not be cut off before.
        self._scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()

    def submit(self, changes: Sequence[Change], then: Then | None) -> None:
        """See `hub.store.contract.Store.submit`."""
        group = self._pending.admit(changes, then)
        if self._pending.closed:
            self._token.run_sync_soon(self._tell, [group], [group.refused])
        else:
            self._waiting[id(group)] = group
            self._queue.put(group)

    def finish(self) -> None:
        """Take no more changes, and end when what is queued is stored, or in `CLOSE_SECONDS`."""
        if not self._pending.closed:
            self._pending.closed = True
            self._scope.deadline = trio.current_time() + CLOSE_SECONDS
            self._queue.put(None)

    async def run(self) -> None:
        """Store until `finish`. A database that hangs keeps its thread; we do not wait for it."""
        limiter = trio.CapacityLimiter(1)
        with self._scope:
            await trio.to_thread.run_sync(
                self._store_all, abandon_on_cancel=True, limiter=limiter, thread_name="store-writer"
            )
        left = list(self._waiting.values())
        if self._scope.cancelled_caught:
            log.error("The database did not answer; %d changes are not stored.", len(left))
            self._tell(left, [StoreError(UNSTORED, unknown=True)] * len(left))
        else:
            await self._told()
        self.ended.set()

    async def _told(self) -> None:
        """Wait for the last `then`s: the thread asked for them before it ended."""
        told = trio.Event()
        self._token.run_sync_soon(told.set)
        with trio.CancelScope(shield=True):  # the deadline: trio's next step sets it
            await told.wait()

    def _store_all(self) -> None:
        last = False
        while not last:
            batch, last = self._gather()
            if batch:
                self._token.run_sync_soon(self._tell, batch, self._store(batch))

    def _gather(self) -> tuple[list[Group], bool]:
        batch: list[Group] = []
        group = self._queue.get()
        while group is not None:
            batch.append(group)
            if len(batch) == BATCH_GROUPS:
                return batch, False
            try:
                group = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _store(self, batch: list[Group]) -> list[Outcome]:
        try:
            return _commit(self._database, batch)
        except StoreError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            outcome = StoreError(self._database.trouble(error) or "This cannot be stored.")
            log.error("Nothing can be stored: %s (%s)", outcome, error)  # noqa: TRY400 - no bug
        self._database.reset()
        return [outcome] * len(batch)

    def _tell(self, batch: list[Group], outcomes: Sequence[Outcome]) -> None:
        self._pending.release(batch)
        for group, outcome in zip(batch, outcomes, strict=True):
            self._waiting.pop(id(group), None)
            try:
                group.finish(outcome)
            except Exception:  # one caller's mistake must not silence the others
                log.exception("A callback of the store failed")


def _commit(database: Database, batch: list[Group]) -> list[Outcome]:
    """Store all in one transaction; if the data of some are at fault, each for itself."""
    prepared = [_prepare(group) for group in batch]
    try:
        with database.writing() as connection:
            return _together(database, connection, prepared)
    except StoreError:
        raise
    except Exception as error:
        if database.trouble(error):
            raise
    with database.writing() as connection:
        return [_alone(database, connection, group) for group in prepared]


def _prepare(group: Group) -> list[Prepared] | StoreError:
    try:
        return group.refused or [prepare(change) for change in group.changes]
    except StoreError as error:
        return error


def _together(
    database: Database, connection: Connection, groups: list[list[Prepared] | StoreError]
) -> list[Outcome]:
    changes = [one for group in groups if isinstance(group, list) for one in group]
    results = iter(apply(database, connection, changes))
    outcomes: list[Outcome] = []
    for group in groups:
        if isinstance(group, list):
            stored = [result for result in (next(results) for _ in group) if result is not None]
            outcomes.append(stored[-1] if stored else None)
        else:
            outcomes.append(group)
    return outcomes


def _alone(
    database: Database, connection: Connection, group: list[Prepared] | StoreError
) -> Outcome:
    try:
        with connection.begin_nested():
            return _together(database, connection, [group])[0]
    except Exception as error:
        if database.trouble(error):
            raise
        log.info("Refused to store: %s", error)
        return database.refusal(error)
