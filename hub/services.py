"""What rooms need of the rest of the hub."""

from collections.abc import Callable
from random import Random

from attrs import frozen

from hub.ids import Ids
from hub.log import Log
from hub.rollup import Rollup
from hub.settings import Settings
from hub.store.contract import Store
from llm.provider import Provider


@frozen
class Services:
    """One for all rooms of a hub.

    Attributes:
        new_log: makes a room's log.
        inbox: the inbox of a user, who need not be connected.

    """

    settings: Settings
    store: Store
    provider: Provider
    rollup: Rollup
    ids: Ids
    chance: Random
    new_log: Callable[[], Log]
    inbox: Callable[[str], Log]
