"""The pump: the one task that moves bytes from logs to sockets.

It sleeps until a log has grown or a client was sent something, and then has each of those
concerned write what it has not been given yet: readers at the same place get the same
bytes object, and a reader that is ten events behind gets them in one write. It never waits
for a socket. A client whose socket takes no more leaves the pump until its own task has
finished that write under a deadline (see `hub.client`).
"""

from os import write

import trio

from hub.client import Client
from hub.log import Behind, Cursor, Log

# Writes between two looks at the scheduler: a hundred take about half a millisecond, which
# is what other tasks may have to wait.
WRITES_PER_TURN = 100


class Pump:
    """See the module's own text. `run` is its task; the other methods are plain calls."""

    def __init__(self) -> None:
        self._logs: dict[Log, None] = {}
        self._clients: dict[Client, None] = {}
        self._wake = trio.Event()

    def log_grew(self, log: Log) -> None:
        """Write the log's news to its followers, soon."""
        if log.followers:
            self._logs[log] = None
            self._wake.set()

    def client_has(self, client: Client) -> None:
        """Write the client's outbox, soon."""
        self._clients[client] = None
        self._wake.set()

    async def run(self) -> None:
        """Pump until cancelled. No deadline: there may be nothing to say for days."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            clients, self._clients = list(self._clients), {}
            for start in range(0, len(clients), WRITES_PER_TURN):
                for client in clients[start : start + WRITES_PER_TURN]:
                    client.write_now()
                await trio.lowlevel.checkpoint()
            logs, self._logs = self._logs, {}
            for log in logs:
                await self._serve(log)

    async def _serve(self, log: Log) -> None:
        """Give each follower what it has not got; what is appended meanwhile comes next time."""
        cursors = list(log.followers)
        for start in range(0, len(cursors), WRITES_PER_TURN):
            # Some may have left while others were served.
            batch = cursors[start : start + WRITES_PER_TURN]
            _give(log, [cursor for cursor in batch if cursor in log.followers])
            await trio.lowlevel.checkpoint()


def _give(log: Log, cursors: list[Cursor]) -> None:
    """Write to followers, at once: nothing else happens meanwhile.

    The hub's hottest loop. A write to a socket leaves the processor's caches cold, so that each
    line of Python around it costs several times what it does elsewhere: what `Client.write_now`
    and `SocketEdge.write_now` do is written out for those who are where most are, at the same
    place, with nothing else to be told.
    """
    head = log.head
    at, dialect, data, offset, size = -1, None, b"", 0, 0
    for cursor in cursors:
        if cursor.offset != at or cursor.dialect is not dialect:
            if cursor.offset >= head:
                continue
            at, dialect = cursor.offset, cursor.dialect
            try:
                data, offset = log.after(at, dialect)
            except Behind:
                data, offset = b"", at  # the client finds out, and says so
            size = len(data) if offset == head else 0
        client = cursor.client
        try:
            free = client.stream.free
            # Far behind, or there is more to be written, or it waits, or all it has is events
            # that its dialect has no words for.
            if not size or free < 0 or client.slow or client.outbox or client.mute:
                client.write_now()
                continue
            cursor.offset = offset
            written = write(free, data)
        except Exception as error:  # noqa: BLE001 - told apart there; one client's trouble
            client.not_given(data, error)
        else:
            if written != size:
                client.given_in_part(data, written)
