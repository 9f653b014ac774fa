"""What was said in a live room: the newest messages in memory, all older ones in the store."""

from collections.abc import Container

from attrs import define

from hub.markup import dressed
from hub.records import Message
from hub.store.contract import Store

# Messages of a live room that are in memory; joining needs 50 of them, prompts a few more.
KEEP = 200


@define
class _Entry:
    message: Message
    to: str | None


class Transcript:
    """Messages of one room, in the order of their ids.

    Everything from the id `floor` on is in memory, so that the present state is known
    without waiting; what is older is read from the store, where it hardly changes.
    """

    def __init__(self, room: str, store: Store, floor: str) -> None:
        self._room = room
        self._store = store
        self._floor = floor
        self._entries: dict[str, _Entry] = {}
        self._version = 0

    def add(self, message: Message, to: str | None) -> None:
        """Add the newest message; `to` is the owner of a whisper."""
        self._entries[message.id] = _Entry(message, to)
        if len(self._entries) > KEEP:
            self._trim()

    def update(self, message: Message) -> None:
        """Put a message's new state in place of the old one."""
        if message.id in self._entries:
            self._entries[message.id].message = message
        else:
            self._version += 1

    def remove(self, id: str) -> None:
        """Forget a message."""
        if self._entries.pop(id, None) is None:
            self._version += 1

    def forget(self, ids: Container[str]) -> list[tuple[str, str | None]]:
        """Forget messages that are gone from the store; return those that were in memory.

        Each with the owner of the whisper that it was.
        """
        found = [(id, entry.to) for id, entry in self._entries.items() if id in ids]
        for id, _ in found:
            del self._entries[id]
        self._version += 1
        return found

    async def find(self, id: str) -> tuple[Message, str | None] | None:
        """Return a message and whose whisper it is, or None."""
        if entry := self._entries.get(id):
            return entry.message, entry.to
        return await self._store.message(self._room, id) if id < self._floor else None

    async def newest(self, viewer: str | None, count: int) -> list[Message]:
        """The newest messages that `viewer` may see, oldest first; with replies under way.

        When it returns, the list is the present state: nothing was awaited since.
        """
        while True:
            version, floor = self._version, self._floor
            missing = count - len(self._visible(viewer))
            if missing <= 0:
                return self._visible(viewer)[-count:]
            older, _ = await self._store.messages(
                self._room, viewer=viewer, before=floor, limit=missing
            )
            older = await dressed(older)
            if (version, floor) == (self._version, self._floor):
                return [*older, *self._visible(viewer)][-count:]

    def _visible(self, viewer: str | None) -> list[Message]:
        return [
            entry.message
            for entry in self._entries.values()
            if entry.to is None or entry.to == viewer
        ]

    def _trim(self) -> None:
        # A running reply stays in memory: the store has only its beginning.
        ids = list(self._entries)
        for count, id in enumerate(ids[: -KEEP // 2]):
            if self._entries[id].message.status == "running":
                ids = ids[: count + 1]
                break
            del self._entries[id]
        self._floor = next(iter(self._entries), self._floor)
        self._version += 1
