"""What a wire language is to the rest of the hub."""

from typing import Protocol

from hub.events import Event


class Dialect(Protocol):
    """Turns events into frames. One instance serves all clients that speak it alike.

    Instances are compared by identity: a log keeps one encoding per instance.
    """

    def event(self, room: str, offset: int | None, inbox: bool, event: Event) -> bytes:
        """Return the event as a whole WebSocket frame, or b"" where this language has none.

        Args:
            room: the room it happened in.
            offset: its number in its log; None for what is told but not kept.
            inbox: the log is a user's inbox, not the room's.
            event: what happened.

        """
