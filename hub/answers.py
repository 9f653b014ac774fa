"""Replies that are known, kept in the store: a restart forgets none.

What is too old or too much is removed now and then, not at each write. So there may be more
than the bound, by the share that is written between two removals.
"""

import time
from collections.abc import Callable

import msgspec
import trio

from hub.store.contract import SaveAnswer, Store, StoreError, TrimAnswers
from llm.cache import CacheSettings, Known

PATIENCE = 1.0  # s; a store that takes longer saves nobody time, so the model is asked
SHARE = 16  # trimmed when one part in so many of the bound was written, 6 %
TRIM_SECONDS = 3600.0  # or when so long ago, for what got too old

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Known).decode


class StoredAnswers:
    """A `llm.cache.Cache` over the store; `open_answers` makes it.

    A store that is down knows nothing; that is no error.

    Args:
        store: keeps them.
        settings: how many, and for how long.
        clock: seconds since the epoch, since replies outlive the process.

    """

    def __init__(
        self, store: Store, settings: CacheSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._written = 0
        self._trimmed = clock()

    def trim(self) -> None:
        """Have removed what is too old or too much: all of it, where the cache is off."""
        now = self._clock()
        off = self._settings.use == "off"
        before = now + 1 if off else now - self._settings.most_age
        self._store.submit(TrimAnswers(before, 0 if off else self._settings.most_bytes))
        self._written = 0
        self._trimmed = now

    async def get(self, key: bytes) -> Known | None:
        """See `Cache`."""
        found = None
        with trio.move_on_after(PATIENCE):
            try:
                found = await self._store.answer(key.hex())
            except StoreError:
                return None
        if found is None:
            return None
        data, at = found
        if self._clock() - at >= self._settings.most_age:
            return None
        try:
            return _decode(data)
        except msgspec.MsgspecError:  # an older program's form
            return None

    async def put(self, key: bytes, known: Known) -> None:
        """See `Cache`. Not waited for, and lost where the store is down."""
        data = _encode(known)
        if len(data) > self._settings.most_bytes:
            return
        self._store.submit(SaveAnswer(key.hex(), data.decode(), self._clock()))
        self._written += len(data)
        due = self._trimmed + TRIM_SECONDS <= self._clock()
        if due or self._written * SHARE > self._settings.most_bytes:
            self.trim()


def open_answers(store: Store, settings: CacheSettings) -> StoredAnswers:
    """Have the cache; what the settings do not allow any more is removed first."""
    answers = StoredAnswers(store, settings)
    answers.trim()
    return answers
