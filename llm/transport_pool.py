"""Connections that wait for the next request, and how many there may be. No task of its own."""

from math import inf

import httpx
import trio
from attrs import frozen

from llm.transport_wire import Origin, Wire


@frozen
class _Idle:
    origin: Origin
    wire: Wire
    until: float


class Pool:
    """Who has entered may have one connection; it takes a kept one, or adds a new one.

    Times are trio's. Kept connections that have waited for too long are closed when the pool
    is next used, as in httpx's own.
    """

    def __init__(self, limits: httpx.Limits) -> None:
        most, keep = limits.max_connections, limits.max_keepalive_connections
        self._most = inf if most is None else most
        self._keep = inf if keep is None else keep
        self._expiry = inf if limits.keepalive_expiry is None else limits.keepalive_expiry
        self._places = None if most is None else trio.Semaphore(most)
        self._idle: list[_Idle] = []  # the one that has waited longest comes first
        self._used: set[Wire] = set()
        self._closed = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._idle) + len(self._used)

    async def enter(self) -> None:
        """Wait for a place; who came first is first. The caller bounds the wait."""
        if self._places is None:
            return
        try:
            self._places.acquire_nowait()  # a place that is free is no wait, whatever its bound
        except trio.WouldBlock:
            await self._places.acquire()

    def leave(self) -> None:
        """Give the place back."""
        if self._places is not None:
            self._places.release()

    def take(self, origin: Origin) -> Wire | None:
        """Return a kept connection that is still good, the one used last; None if there is none."""
        self._close_stale()
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].origin != origin:
                continue
            wire = self._idle.pop(at).wire
            if not wire.has_news():
                self._used.add(wire)
                return wire
            wire.close()
        self._make_room()
        return None

    def add(self, wire: Wire) -> None:
        """Take note of a new connection.

        Raises:
            httpx.ConnectError: the pool was closed meanwhile.

        """
        if self._closed:
            wire.close()
            raise httpx.ConnectError("The client was closed.")
        self._used.add(wire)

    def give_back(self, origin: Origin, wire: Wire, *, reusable: bool) -> None:
        """Keep a connection for the next request, or close it."""
        self._used.discard(wire)
        if reusable and not self._closed and self._keep > 0:
            self._idle.append(_Idle(origin, wire, trio.current_time() + self._expiry))
        else:
            wire.close()
        self._close_stale()

    def close(self) -> None:
        """Close all connections; who is reading from one gets an error."""
        self._closed = True
        for wire in [*self._used, *(idle.wire for idle in self._idle)]:
            wire.close()
        self._used.clear()
        self._idle.clear()

    def _close_stale(self) -> None:
        """Close what has waited for too long, and what is too many."""
        now = trio.current_time()
        while self._idle and (self._idle[0].until <= now or len(self._idle) > self._keep):
            self._idle.pop(0).wire.close()

    def _make_room(self) -> None:
        """Close the kept ones that a new connection leaves no room for."""
        while self._idle and self.open >= self._most:
            self._idle.pop(0).wire.close()
