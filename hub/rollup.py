"""Roll-up: tokens of one reply that come close together travel as one event.

One clock for all replies: whatever has gathered is sent at the clock's next tick, so a
token waits for one tick at most, and the first one of a reply never waits.
"""

from typing import Protocol

import trio


class Gathers(Protocol):
    """Something that holds text back until the next tick."""

    def flush(self) -> None:
        """Send what has gathered; plain code that does not raise."""


class Rollup:
    """The clock; `seconds` from tick to tick, 0 sends everything at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: dict[Gathers, None] = {}
        self._wake = trio.Event()

    def gather(self, who: Gathers) -> None:
        """Flush `who` at the next tick, or now if there are no ticks."""
        if self.seconds <= 0:
            who.flush()
        else:
            self._waiting[who] = None
            self._wake.set()

    async def run(self) -> None:
        """Tick until cancelled; sleeps while nobody waits."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(self.seconds)
            waiting, self._waiting = self._waiting, {}
            for who in waiting:
                who.flush()
