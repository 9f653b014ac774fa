"""What all stores do alike: waiting for a commit, and the groups that wait to be stored."""

from collections.abc import Sequence
from typing import Protocol

import trio
from attrs import field, frozen

from hub.records import Message
from hub.store.contract import (
    AddMessage,
    Change,
    Outcome,
    SaveAnswer,
    SaveMessage,
    StoreError,
    Then,
)

PENDING_GROUPS = 10_000
"""Submissions that may wait to be stored. At a disk's slowest some 100 commits a second this
is never reached by people; a flood is refused before it fills memory."""

PENDING_CHARS = 32_000_000
"""Characters of text that may wait to be stored: at most 128 MB of memory."""

CLOSED = "The server is shutting down; this was not stored."
NO_ROOM = "This room does not exist any more."
NO_USER = "This user does not exist any more."
NAME_TAKEN = "Somebody else already has this name."
TAKEN = "Something else already has this id or invite."
FLOODED = "More is being written than can be stored. Try again in a moment."


@frozen
class Group:
    """The changes of one `submit`: all or nothing."""

    changes: Sequence[Change]
    then: Then | None
    refused: StoreError | None = None
    chars: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "chars", sum(map(_chars, self.changes)))

    def finish(self, outcome: Outcome) -> None:
        """Tell whoever waits."""
        if self.then is not None:
            self.then(outcome)


def _chars(change: Change) -> int:
    if isinstance(change, AddMessage | SaveMessage):
        return len(change.message.text) + len(change.message.html)
    if isinstance(change, SaveAnswer):
        return len(change.data)
    return 0


class Pending:
    """Counts what waits, and refuses what is too much. Used by the trio thread only."""

    def __init__(self) -> None:
        self._groups = 0
        self._chars = 0
        self.closed = False

    def admit(self, changes: Sequence[Change], then: Then | None) -> Group:
        """Make a group. What is refused still waits for its turn to be told so."""
        group = Group(changes, then)
        refusal = self._refusal(group)
        if refusal is not None:
            group = Group((), then, StoreError(refusal))
        self._groups += 1
        self._chars += group.chars
        return group

    def _refusal(self, group: Group) -> str | None:
        if self.closed:
            return CLOSED
        if self._groups >= PENDING_GROUPS or self._chars + group.chars > PENDING_CHARS:
            return FLOODED
        return None

    def release(self, groups: Sequence[Group]) -> None:
        """Count these no more: they are stored, or were refused."""
        self._groups -= len(groups)
        self._chars -= sum(group.chars for group in groups)


class Submits(Protocol):
    """The half of a store that `commit` needs."""

    def submit(self, *changes: Change, then: Then | None = None) -> None:
        """See `hub.store.contract.Store.submit`."""


async def commit(store: Submits, *changes: Change) -> Message | None:
    """See `hub.store.contract.Store.commit`.

    This wait has no deadline: the store answers every group, and the times that it gives its
    database are bounded.
    """
    stored = trio.Event()
    outcome: Outcome = None

    def then(result: Outcome) -> None:
        nonlocal outcome
        outcome = result
        stored.set()

    store.submit(*changes, then=then)
    await stored.wait()
    if isinstance(outcome, StoreError):
        raise outcome
    return outcome
