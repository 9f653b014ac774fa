"""Waiting for many sockets at once: who has bytes is found out in rounds, for all of them.

With hundreds of replies under way there are thousands of reads a second, each of a few bytes.
Woken for each of them, the process spends more on waking (system calls, a pass of trio's
scheduler, cold caches) than on what came. So one task looks, deals with all whose sockets have
bytes, and looks again after `PAUSE` at the earliest; network cards moderate their interrupts
likewise. It reads for those who left that to it (`pour`), and wakes the others. While little
comes nothing is late: after a pause in which nothing came, the first bytes begin a round at once.

    async with reading_in_rounds():     # owns the task
        watch = watching(fd)
        await watch.readable()
        ...
        watch.stop()                    # before `fd` is closed

Where the system has no epoll, or nobody has opened `reading_in_rounds`, the waits are trio's.
"""

import select
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio
from attrs import frozen
from trio.lowlevel import Abort, RunVar, Task, current_task, reschedule, wait_task_rescheduled

# Seconds. What a token may be late, so far below what anybody sees, and long enough for a
# dozen tokens to gather where it matters.
PAUSE = 0.004


class Watch(ABC):
    """Looks at one socket. One task at a time may wait."""

    @abstractmethod
    async def readable(self) -> None:
        """Wait for bytes, for the end, or for nothing: a read may still have to wait.

        Raises:
            trio.ClosedResourceError: it is not watched any more.

        """

    @abstractmethod
    async def pour(self, read: Callable[[], bool]) -> None:
        """Have `read` called, by the task that looks, each time that there may be bytes.

        Until it returns False, or raises, which is raised here; at the end of the connection;
        and maybe before, for another call of `readable`. Not at all where the wait is trio's.

        Raises:
            trio.ClosedResourceError: it is not watched any more.

        """

    @abstractmethod
    def more(self) -> None:
        """Say that a read has left bytes."""

    @abstractmethod
    def stop(self) -> None:
        """Look at it no more, and wake who waits; idempotent."""


def watching(fd: int) -> Watch:
    """Watch a socket that does not block, in rounds if there are any."""
    rounds = _rounds.get(None)
    return _Direct(fd) if rounds is None else rounds.watch(fd)


@asynccontextmanager
async def reading_in_rounds() -> AsyncIterator[None]:
    """Have what `watching` gives in this run of trio, from now on, be looked at in rounds.

    On leaving, who still waits is told that the socket is closed.
    """
    if not hasattr(select, "epoll"):
        yield
        return
    before, rounds = _rounds.get(None), _Rounds()
    _rounds.set(rounds)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rounds.run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        _rounds.set(before)
        rounds.close()


@frozen
class _Direct(Watch):
    """Trio's own wait."""

    fd: int

    async def readable(self) -> None:
        await trio.lowlevel.wait_readable(self.fd)

    async def pour(self, read: Callable[[], bool]) -> None:
        pass

    def more(self) -> None:
        pass  # trio looks again each time

    def stop(self) -> None:
        pass  # trio's sockets tell those who wait that they are closed


class _Turn(Watch):
    """One socket in the rounds.

    Registered once, edge-triggered (epoll(7)): an event comes when bytes do, so it is kept for
    a reader who was not waiting; and who leaves bytes must say so, since no event tells again.
    """

    __slots__ = ("_ended", "_failure", "_fd", "_news", "_read", "_rounds", "_waiting")

    def __init__(self, rounds: "_Rounds", fd: int) -> None:
        self._rounds = rounds
        self._fd = fd
        self._news = False
        self._ended = False
        self._waiting: Task | None = None
        self._read: Callable[[], bool] | None = None
        self._failure: BaseException | None = None

    async def readable(self) -> None:
        if self._fd < 0:
            raise trio.ClosedResourceError
        if self._news or self._ended:
            self._news = False
            await trio.lowlevel.checkpoint()
            return
        self._waiting = current_task()
        await wait_task_rescheduled(self._abort)

    async def pour(self, read: Callable[[], bool]) -> None:
        if self._fd >= 0 and (self._news or self._ended):
            return
        self._read = read
        try:
            await self.readable()
        finally:
            self._read = None
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if self._fd < 0:
            raise trio.ClosedResourceError

    def _abort(self, _: object) -> Abort:
        self._waiting = None
        return Abort.SUCCEEDED

    def more(self) -> None:
        self._news = True

    def stop(self) -> None:
        if self._fd >= 0:
            self._rounds.forget(self._fd)
            self._fd = -1
            self._wake()

    def see(self, event: int) -> None:
        """Take in what epoll says."""
        if event & self._rounds.ending:
            self._ended = True
        if self._waiting is None:
            self._news = True
        elif self._read is None or not self._goes_on(self._read) or self._ended:
            self._wake()

    def _goes_on(self, read: Callable[[], bool]) -> bool:
        """Read for the one who waits: nothing that goes wrong with it is the other sockets'."""
        try:
            return read()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            self._failure = error
            return False

    def _wake(self) -> None:
        if self._waiting is not None:
            reschedule(self._waiting)
            self._waiting = None


class _Rounds:
    """All the sockets; `run` is the task that looks. Linux only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        # No event comes for an end whose bytes came with others before it.
        self.ending = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
        self._turns: dict[int, _Turn] = {}

    def watch(self, fd: int) -> _Turn:
        """Begin to watch a socket."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        turn = self._turns[fd] = _Turn(self, fd)
        return turn

    def forget(self, fd: int) -> None:
        """Let go of a socket, while it is open."""
        self._epoll.unregister(fd)
        del self._turns[fd]

    async def run(self) -> None:
        """Look, until cancelled. No deadline: models may be silent for days."""
        poll, turns = self._epoll.poll, self._turns
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, event in poll(0):
                turns[fd].see(event)
            await trio.sleep(PAUSE)

    def close(self) -> None:
        """Let go of all of them."""
        for turn in list(self._turns.values()):
            turn.stop()
        self._epoll.close()


_rounds: RunVar[_Rounds | None] = RunVar("rounds", None)
