"""Retention: what is older than the owner wants to keep is removed, every day.

From the store, and from what the hub holds in memory: a room that is never empty has its newest
messages and events there for as long as it lives. Sessions and tokens that have expired go too.
"""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import trio

from hub.events import Event, MessageEnded, MessagePosted, MessageRemoved, MessageStarted, Token
from hub.hub import Hub
from hub.records import Message
from hub.store.contract import RemoveExpired, RemoveMessage, Store, StoreError

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
"""Between two looks: what people are promised is told in days."""

AGAIN_SECONDS = 600.0
"""After a failure: a disk that was full is seldom free again at once."""


async def forget(hub: Hub) -> None:
    """Remove what is too old, now and every day; 0 `retention_days` keep messages for ever."""
    days = hub.settings.retention_days
    while True:
        try:
            await hub.store.commit(RemoveExpired(time.time()))
            removed = await _expire(hub, _before(days)) if days else 0
        except StoreError as error:
            logger.warning("What is too old could not be removed: %s", error)
            await trio.sleep(AGAIN_SECONDS)
            continue
        if removed:
            logger.info("%d messages older than %g days were removed.", removed, days)
        await trio.sleep(DAY_SECONDS)


def _before(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")


async def _expire(hub: Hub, before: str) -> int:
    """Remove messages in small steps, so that people hardly wait for it; return how many.

    Raises:
        StoreError: the store failed; what was removed until then stays removed.

    """
    removed = 0
    while old := await _removed(hub.store, before):
        _from_memory(hub, old)
        removed += len(old)
    return removed


async def _removed(store: Store, before: str) -> Sequence[Message]:
    old = await store.older(before)
    await store.commit(*(RemoveMessage(message.room, message.id) for message in old))
    return old


def _from_memory(hub: Hub, old: Sequence[Message]) -> None:
    """Take messages out of rooms and inboxes, and off the screens of those who are there."""
    about = _about({message.id for message in old})
    rooms = {message.room for message in old}
    for room in hub.live:
        if room.id in rooms:
            room.log.forget(about)
            for id, to in room.transcript.forget({one.id for one in old if one.room == room.id}):
                room.publish(MessageRemoved(id), to)
    for inbox in hub.people.inboxes():
        inbox.forget(about)


def _about(ids: set[str]) -> Callable[[Event], bool]:
    """Return what says of an event whether it holds a part of one of these messages."""

    def about(event: Event) -> bool:
        match event:
            case MessagePosted() | MessageStarted():
                return event.message.id in ids
            case Token() | MessageEnded():
                return event.id in ids
        return False

    return about
