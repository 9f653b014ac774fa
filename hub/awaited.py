"""Somebody waits for all replies to a prompt together, as game clients do."""

from collections.abc import Callable

import trio
from attrs import define, field

from hub.client import Client
from hub.records import Message


@define(eq=False)
class Awaited:
    """The replies to one prompt, which has a turn of its own.

    Attributes:
        tell: called once, when the turn is over; plain code that does not raise.
        client: is told in this way, so the room's log does not tell it the same again.
        replies: those that have ended, in whatever way, in their order.
        whole: the turn came to its end: it was not cut off by the room's.
        over: the turn is.

    """

    tell: Callable[["Awaited"], None]
    client: Client | None = None
    replies: list[Message] = field(factory=list)
    whole: bool = False
    over: trio.Event = field(factory=trio.Event)

    def finish(self, *, whole: bool) -> None:
        """End it; only the first end counts."""
        if not self.over.is_set():
            self.whole = whole
            self.over.set()
            self.tell(self)
