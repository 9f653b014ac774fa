"""One connection: its stream, its task, its places in logs, and what is only for it.

A client is written to in one order: what its outbox holds first, then what its logs have
for it. `send` keeps that order the order in which things happened, by taking into the
outbox what the logs had before. So an answer never overtakes the event that it speaks of,
nor the other way round.

Life: `run` reads until the peer leaves or `close` is called, says goodbye under a
deadline, and ends with every task and place in a log that the client had.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
import trio_websocket

from hub.errors import Close, TooMany
from hub.limits import Allowance, Kind
from hub.log import Behind, Cursor, Log
from hub.records import User
from hub.stream import SocketEdge
from hub.wire.dialect import Dialect

logger = logging.getLogger(__name__)
security = logging.getLogger("hub.security")

# Time for the goodbye: what is still in the outbox, our close frame, and the peer's.
CLOSE_SECONDS = 5.0

# A connection that is owed this much beside its logs does not read what it asked for.
OUTBOX_BYTES = 1024 * 1024

# The longest pause in reading after a message that came too fast; well below what the
# heartbeat takes for silence.
PAUSE_SECONDS = 1.0

# Of a client that goes over its limits the log tells no more often.
LOG_SECONDS = 10.0


class Conversation(Protocol):
    """What a dialect does with what a client says."""

    def begin(self, client: "Client") -> None:
        """The connection is open; say hello."""

    async def hear(self, client: "Client", message: str | bytes) -> None:
        """Deal with one message. What is wrong with it is answered, not raised."""


class Client:
    """See the module's own text.

    Args:
        user: who it is.
        session: the session it belongs to, if any; ends with it.
        address: where it comes from, for the log.
        stream: what it is written to.
        dialect: what it speaks; of each log, what it spoke when it began to follow it.
        ready: called when there is something to write; the pump's ear.
        allowance: what its user may do from there; None: anything.

    """

    __slots__ = (
        "_close",
        "_drained",
        "_nursery",
        "_outbox_bytes",
        "_quiet_until",
        "_reading",
        "_ready",
        "address",
        "allowance",
        "cursors",
        "dialect",
        "errors_in_a_row",
        "mute",
        "outbox",
        "session",
        "slow",
        "stream",
        "user",
    )

    def __init__(
        self,
        *,
        user: User,
        session: str | None,
        address: str,
        stream: SocketEdge,
        dialect: Dialect,
        ready: Callable[["Client"], None],
        allowance: Allowance | None = None,
    ) -> None:
        self.user = user
        self.session = session
        self.address = address
        self.allowance = allowance
        self.stream = stream
        self.dialect = dialect
        self.cursors: dict[Log, Cursor] = {}
        self.slow = False
        self.errors_in_a_row = 0
        self._ready = ready
        self.outbox: list[bytes] = []
        self._outbox_bytes = 0
        self.mute = False
        self._quiet_until = 0.0
        self._close: tuple[Close, str] | None = None
        self._reading = trio.CancelScope()
        self._drained: trio.Event | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def closing(self) -> bool:
        """The hub has said goodbye to this client, or is about to."""
        return self._close is not None

    def send(self, frame: bytes) -> None:
        """Write a frame (b"" is none) to this connection alone, after all that happened before."""
        if self.mute or not self._catch_up():
            return
        self._put(frame)
        if self._outbox_bytes > OUTBOX_BYTES:
            self.close(Close.TOO_SLOW, "You don't read what you asked for.")
        elif not self.slow:
            self._ready(self)

    def pass_over(self, log: Log, append: Callable[[], object]) -> None:
        """Have an event appended to `log` that this client is told in another way."""
        if self.mute or log not in self.cursors or not self._catch_up():
            append()
            return
        append()
        self.cursors[log].offset = log.head
        if self.outbox and not self.slow:
            self._ready(self)

    def follow(self, log: Log, offset: int | None = None) -> None:
        """Read `log` from after `offset` on (None: from now on), instead of from where it was."""
        self.unfollow(log)
        cursor = self.cursors[log] = log.follow(self, offset)
        if cursor.offset < log.head:
            # At once: until the pump comes, newer events may push older ones out of the window.
            self.write_now()

    def unfollow(self, log: Log) -> None:
        """Stop reading `log`; twice is once."""
        cursor = self.cursors.pop(log, None)
        if cursor is not None:
            log.unfollow(cursor)

    def close(self, code: Close, reason: str) -> None:
        """Say goodbye and end. The first reason counts."""
        if self._close is None:
            self._close = (code, reason)
            self._reading.cancel()

    def write_now(self) -> None:
        """Write what there is, as far as the socket takes it without waiting. Never raises."""
        if self.slow or self.mute:
            return
        try:
            while data := self._take():
                if not self._write(data):
                    return
        except Behind:
            self.close(Close.TOO_SLOW, "You fell too far behind.")

    def given_in_part(self, data: bytes, written: int) -> None:
        """Go on slowly after the pump, which writes to many at once, got only a part out."""
        self.stream.keep(data[written:])
        self._go_slow()

    def not_given(self, data: bytes, error: Exception) -> None:
        """Deal with what came of the pump's write. Never raises."""
        if isinstance(error, BlockingIOError):
            self._hold(data)
        elif isinstance(error, OSError):
            self.stream.abort()
            self._reading.cancel()
        else:
            self._failed(error)

    def _write(self, data: bytes) -> bool:
        """Write without waiting; what is not taken is the slow path's, and the answer False."""
        try:
            if self.stream.write_now(data):
                return True
            self._hold(data)
        except Exception as error:  # noqa: BLE001 - told apart there
            self._failed(error)
        return False

    def _hold(self, data: bytes) -> None:
        """Leave to the slow path what the socket did not take."""
        if not self.stream.clogged:
            self.outbox.insert(0, data)
            self._outbox_bytes += len(data)
        self._go_slow()

    def _failed(self, error: Exception) -> None:
        """End after a write that failed. Invariant 2: one client's trouble is never the pump's."""
        if isinstance(error, trio.BrokenResourceError):
            self._reading.cancel()
            return
        logger.error("writing to %s failed", self.address, exc_info=error)
        self.close(Close.INTERNAL, "Something went wrong on our side.")

    def spend(self, kind: Kind) -> None:
        """Count something that the user does.

        Raises:
            TooMany: it is too much in a time.

        """
        if self.allowance is not None:
            try:
                self.allowance.take(kind)
            except TooMany:
                self._tell_of_limit(kind)
                raise

    def count(self, message: str | bytes) -> TooMany | None:
        """Count a message that came; returns the error for one that is too much."""
        if self.allowance is not None:
            try:
                self.allowance.take("message")
                self.allowance.take("byte", len(message))
            except TooMany as error:
                self._tell_of_limit("message")
                return error
        return None

    def _tell_of_limit(self, kind: Kind) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_SECONDS
            security.warning("limit of %ss: user %s at %s", kind, self.user.id, self.address)

    async def slow_down(self, error: TooMany) -> None:
        """Read nothing for a while from a client that sends too fast.

        What it sends meanwhile waits in its own buffers; else a flood of messages would cost
        as much as one of messages that are answered.
        """
        await trio.sleep(min(error.retry_after or 0.0, PAUSE_SECONDS))

    async def keeping_up(self) -> None:
        """Wait while the client is slow. Ends by itself: so does every slow write."""
        if self._drained is not None:
            await self._drained.wait()

    def start(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run `job` in the client's nursery: it ends when the client does, at the latest."""
        if self._nursery is not None and not self.closing:
            self._nursery.start_soon(self._guarded, job)

    async def run(
        self,
        ws: trio_websocket.WebSocketConnection,
        conversation: Conversation,
        nursery: trio.Nursery,
    ) -> None:
        """Talk until either side ends it. `nursery` is the client's own, and is emptied."""
        self._nursery = nursery
        self._guarded_begin(conversation)
        with self._reading:
            await self._read(ws, conversation)
        await self._say_goodbye(ws)
        nursery.cancel_scope.cancel()

    def leave_logs(self) -> None:
        """Give up all places in logs."""
        for log in list(self.cursors):
            self.unfollow(log)

    def _guarded_begin(self, conversation: Conversation) -> None:
        try:
            conversation.begin(self)
        except Exception:
            logger.exception("greeting %s failed", self.address)
            self.close(Close.INTERNAL, "Something went wrong on our side.")

    async def _read(
        self, ws: trio_websocket.WebSocketConnection, conversation: Conversation
    ) -> None:
        try:
            while True:  # no deadline: the heartbeat ends connections that fell silent
                message = await ws.get_message()
                await conversation.hear(self, message)
                await self.keeping_up()
        except trio_websocket.ConnectionClosed:
            self.mute = True
        except Exception:  # invariant 2: logged once, this socket closed, nobody else's
            logger.exception("serving %s failed", self.address)
            self.close(Close.INTERNAL, "Something went wrong on our side.")

    async def _guarded(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except Exception:
            logger.exception("a task of %s failed", self.address)
            self.close(Close.INTERNAL, "Something went wrong on our side.")

    async def _say_goodbye(self, ws: trio_websocket.WebSocketConnection) -> None:
        code, reason = self._close or (Close.GOING_AWAY, "")
        with trio.move_on_after(CLOSE_SECONDS):
            if self._close and code is not Close.TOO_SLOW:
                self.write_now()
                await self.keeping_up()
            self.mute = True
            await self.keeping_up()
            await ws.aclose(code, reason)
        self.mute = True
        self.stream.abort()

    def _catch_up(self) -> bool:
        try:
            while earlier := self._take_from_logs():
                self._put(earlier)
        except Behind:
            self.close(Close.TOO_SLOW, "You fell too far behind.")
            return False
        return True

    def _put(self, frame: bytes) -> None:
        self.outbox.append(frame)
        self._outbox_bytes += len(frame)

    def _take(self) -> bytes:
        if self.outbox:
            data = self.outbox[0] if len(self.outbox) == 1 else b"".join(self.outbox)
            self.outbox.clear()
            self._outbox_bytes = 0
            return data
        return self._take_from_logs()

    def _take_from_logs(self) -> bytes:
        for log, cursor in self.cursors.items():
            while cursor.offset < log.head:
                data, cursor.offset = log.after(cursor.offset, cursor.dialect)
                if data:
                    return data
        return b""

    def _go_slow(self) -> None:
        if self._nursery is None:
            return
        self.slow = True
        self._drained = trio.Event()
        self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        # The slow path: finish the write that the socket did not take, catch up, go back
        # to the pump. Each write has the stream's deadline.
        assert self._drained is not None
        try:
            await self.stream.send_all(b"")
            while not self.mute and (data := self._take()):
                await self.stream.send_all(data)
        except Behind:
            self.close(Close.TOO_SLOW, "You fell too far behind.")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._reading.cancel()
        finally:
            self.slow = False
            self._drained.set()
            self._drained = None
