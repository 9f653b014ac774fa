"""Retention: messages older than the owner wants to keep are removed, every day."""

import logging
from datetime import UTC, datetime, timedelta

import trio

from hub.store.contract import Store, StoreError
from hub.store.maintenance import expire

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400.0
"""Between two looks: what people are promised is told in days."""

AGAIN_SECONDS = 600.0
"""After a failure: a disk that was full is seldom free again at once."""


async def forget(store: Store, days: float) -> None:
    """Remove what is older than so many days, now and every day; 0 days: nothing, ever."""
    while days:
        try:
            removed = await expire(store, _before(days))
        except StoreError as error:
            logger.warning("Old messages could not be removed: %s", error)
            await trio.sleep(AGAIN_SECONDS)
            continue
        if removed:
            logger.info("%d messages older than %g days were removed.", removed, days)
        await trio.sleep(DAY_SECONDS)


def _before(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
