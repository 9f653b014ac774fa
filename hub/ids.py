"""Ids: UUIDv7 (RFC 9562 section 5.7), rising strictly within this process.

Ids of messages double as their order, so each new one is larger than all before it, even
if the clock goes back; `seen` keeps that true across restarts.
"""

import secrets
import time
import uuid


class Ids:
    """A source of rising ids; a hub has one."""

    def __init__(self) -> None:
        self._last = 0

    def new(self) -> str:
        """Return a fresh id, larger as text than all earlier ones of this source."""
        # 48 bits of milliseconds and 12 more that count within one: rand_a, "method 1".
        self._last = max(self._last + 1, time.time_ns() // 1_000_000 << 12)
        value = (self._last >> 12) << 80 | 0x7 << 76 | (self._last & 0xFFF) << 64
        return str(uuid.UUID(int=value | 0b10 << 62 | secrets.randbits(62)))

    def seen(self, id: str) -> None:
        """Make all later ids larger than this one, which may come from another run."""
        try:
            value = uuid.UUID(id).int
        except ValueError:
            return
        self._last = max(self._last, (value >> 80) << 12 | (value >> 64) & 0xFFF)


def secret_id() -> str:
    """Return an id that nobody can guess (UUIDv4), for what an id alone opens."""
    return str(uuid.uuid4())
