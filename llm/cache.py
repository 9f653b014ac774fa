"""Replies that are known. Off unless the owner turns it on; whispers never get here."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import trio
from attrs import field, frozen

from llm.provider import Answering, Request, Usage

# off; exact: only where temperature is 0, so that the model would say the same again;
# always: the owner takes it that a question gets the same answer each time.
CacheUse: TypeAlias = Literal["off", "exact", "always"]

OVERHEAD = 500  # bytes that an entry takes beside its text


@frozen
class Known:
    """A whole reply, as it was."""

    text: str
    answering: Answering
    usage: Usage


class Cache(Protocol):
    """Where known replies are kept. It may forget any of them at any time."""

    async def get(self, key: bytes) -> Known | None:
        """Return the reply to what has this key, if it is known and not too old."""

    async def put(self, key: bytes, known: Known) -> None:
        """Keep it."""


@frozen
class CacheSettings:
    """What is kept, and how much.

    Attributes:
        use: see `CacheUse`; off, since people who ask a model again want another answer.
        most_bytes: of texts; some ten thousand replies.
        most_age: seconds; models and what they are told about the day change.

    """

    use: CacheUse = "off"
    most_bytes: int = 32 << 20
    most_age: float = 86400.0


def is_cacheable(request: Request, use: CacheUse) -> bool:
    """Whether the reply may be kept, or taken from what is kept."""
    if request.private or use == "off":
        return False
    return use == "always" or request.temperature == 0


@frozen
class _Entry:
    known: Known
    at: float
    size: int = field(init=False)

    @size.default
    def _size(self) -> int:
        return OVERHEAD + len(self.known.text.encode())


class MemoryCache:
    """A `Cache` in memory: who was not asked for longest goes first.

    `clock` gives seconds, and does not go back.
    """

    def __init__(
        self, settings: CacheSettings, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.size = 0
        self._clock = clock
        self._settings = settings
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    async def get(self, key: bytes) -> Known | None:
        """See `Cache`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() - entry.at >= self._settings.most_age:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.known

    async def put(self, key: bytes, known: Known) -> None:
        """See `Cache`."""
        self._drop(key)
        entry = _Entry(known, self._clock())
        self._entries[key] = entry
        self.size += entry.size
        while self.size > self._settings.most_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size
