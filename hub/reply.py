"""One reply under way: its text so far, and how it ends (invariant 6: it always does)."""

from collections.abc import Callable

import msgspec
import trio

from hub.events import Event, MessageEnded, MessageRemoved, MessageStarted, Token
from hub.markup import render
from hub.records import Ending, Message, Usage
from hub.rollup import Rollup
from hub.store.contract import (
    AddMessage,
    Change,
    Outcome,
    RemoveMessage,
    SaveMessage,
    Store,
    StoreError,
)
from hub.text import sound


class Reply:
    """From `begin` to `end`; `begun` and `shown` are set when they can be seen.

    Both go through the store's queue, so that the log shows them in the order in which the
    store keeps them.

    Args:
        message: the reply as it begins: `running`, without text if it does not go on.
        to: the owner of the whisper that it answers; None if it is for the whole room.
        publish: shows an event to whom it is for.
        changed: called with the message when it has begun and when it has ended; again when it
            has been stored, if that could not be done at its end (`unsaved`).
        replaced: called with a message in whose place it has begun again.

    """

    def __init__(
        self,
        message: Message,
        to: str | None,
        *,
        store: Store,
        rollup: Rollup,
        publish: Callable[[Event], None],
        changed: Callable[[Message], None],
        replaced: Callable[[Message], None],
    ) -> None:
        self.to = to
        self.scope = trio.CancelScope()
        self.begun = trio.Event()
        self.shown = trio.Event()
        self.ended = False
        self.unsaved = False
        self._saving = False
        self._message = message
        self._store = store
        self._rollup = rollup
        self._publish = publish
        self._changed = changed
        self._replaced = replaced
        self._parts: list[str] = []
        self._held: list[str] = []
        self._saved = 0
        self._lost = False
        self._verdict: Ending | None = None
        self._final = message

    @property
    def id(self) -> str:
        """The message's id."""
        return self._message.id

    @property
    def final(self) -> Message:
        """The message as it ended; before that, as it began."""
        return self._final

    def begin(self) -> None:
        """Store it and show that it begins; `begun` is set then."""
        self._store.submit(AddMessage(self._message, self.to), then=self._show_begin)

    def go_on(self, old: Message, then: Callable[[Outcome], None]) -> None:
        """Begin in the place of a reply that broke off, with the text that it had.

        The old one goes and the new one comes in one step, or, where the store fails, not at
        all; `then` is told.
        """
        self._parts = [self._message.text]
        self._saved = len(self._message.text)

        def stored(outcome: Outcome) -> None:
            if not isinstance(outcome, StoreError):
                self._replaced(old)
                self._publish(MessageRemoved(old.id))
                self._show_begin(outcome)
            then(outcome)

        self._store.submit(
            RemoveMessage(old.room, old.id), AddMessage(self._message, self.to), then=stored
        )

    async def mark_as_demo(self, id: str) -> None:
        """Begin again under a new id, as made up: a stand-in answers, not the model (invariant 7).

        Its mark must be there before its first word; events can only say so at the beginning.
        """
        before = self._message
        self._message = self._final = msgspec.structs.replace(before, id=id, demo=True)
        self.begun = trio.Event()

        def then(outcome: Outcome) -> None:
            self._replaced(before)
            self._publish(MessageRemoved(before.id))
            self._show_begin(outcome)

        self._store.submit(
            RemoveMessage(before.room, before.id), AddMessage(self._message, self.to), then=then
        )
        await self.begun.wait()  # the store's own deadlines bound this

    def add(self, text: str) -> None:
        """Take in some text of the model; it may be empty."""
        if not text:
            return
        text = sound(text)
        self._parts.append(text)
        self._held.append(text)
        if len(self._parts) == 1:
            self.flush()
        else:
            self._rollup.gather(self)

    def flush(self) -> None:
        """Show what was held back."""
        if self._held:
            text = "".join(self._held)
            self._held.clear()
            self._publish(Token(self.id, text))

    def so_far(self) -> Message:
        """The message with what has been shown of it: what a client that joins now is given."""
        self.flush()
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return msgspec.structs.replace(self._message, text="".join(self._parts))

    def save(self) -> None:
        """Store the text so far, if there is more of it than last time.

        One that ended while nothing could be stored is stored now, if that can be done again.
        """
        if self.unsaved and not self._saving:
            self._saving = True
            self._store.submit(*self._changes(self._final), then=self._note_saved)
        size = sum(map(len, self._parts))
        if size > self._saved and not self.ended:
            self._saved = size
            self._store.submit(*self._changes(self.so_far()))

    def stop(self, verdict: Ending = "stopped") -> None:
        """Close the model's response at once; the reply ends with this verdict."""
        if self._verdict is None:
            self._verdict = verdict
        self.scope.cancel()

    def end(self, status: Ending, *, error: str | None = None, usage: Usage | None = None) -> None:
        """End it, once: the first end counts. `stop`'s verdict goes before `status`."""
        if self.ended:
            return
        ended = msgspec.structs.replace(
            self.so_far(), status=self._verdict or status, error=error, usage=usage
        )
        self.ended = True
        self._final = msgspec.structs.replace(ended, html=render(ended.text))
        self._store.submit(*self._changes(self._final), then=self._show_end)

    def _changes(self, message: Message) -> tuple[Change, ...]:
        return (
            (AddMessage(message, self.to), SaveMessage(message))
            if self._lost
            else (SaveMessage(message),)
        )

    def _show_begin(self, outcome: Outcome) -> None:
        # Also if the store failed: the conversation goes on in memory, and each save tries
        # again to bring the whole message to disk.
        self._lost = isinstance(outcome, StoreError)
        self._changed(self._message)
        self._publish(MessageStarted(self._message))
        self.begun.set()

    def _note_saved(self, outcome: Outcome) -> None:
        self._saving = False
        self.unsaved = isinstance(outcome, StoreError)
        if not self.unsaved:
            self._changed(self._final)

    def _show_end(self, outcome: Outcome) -> None:
        self.unsaved = isinstance(outcome, StoreError)
        # Until now it was a running reply to everybody, also to who joined meanwhile.
        final = self._final
        assert final.status != "running"
        self._changed(final)
        self._publish(
            MessageEnded(final.id, final.status, final.html, final.usage, final.error, whole=final)
        )
        self.shown.set()
