"""The real command in a process of its own, for tests.

async with started("--port", "0", folder=tmp_path) as hubbub:
    async with hubbub.connect() as alice:            # dm-rpc
        await alice.call("join_room", room="lobby")
    assert await hubbub.end(signal.SIGTERM) == 0

assert "whole number" in refused("--port", "x", folder=tmp_path)
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen
from trio_websocket import WebSocketConnection

from hub.wire.tuples import SUBPROTOCOL
from tests.hubs import Native
from tests.sockets import open_socket

HUBBUB = Path(sys.executable).parent / "hubbub"

# Beyond these a start, or an end, has failed: a cold start on a busy machine takes seconds,
# an end at most the hub's own limits for its farewell and its store.
START_SECONDS = 60.0
END_SECONDS = 45.0

# What the surroundings of the tests must not bring in: a key would make a real model answer.
_NOT_OURS = re.compile(
    r"HUBBUB_|PORT$|(OPENAI|ANTHROPIC|LLAMACPP)_|(http|https|all)_proxy$", re.IGNORECASE
)


def surroundings(**settings: str) -> dict[str, str]:
    """The environment without what could decide something here, and with these."""
    kept = {name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)}
    return kept | settings


def refused(
    *options: str, folder: Path, command: Sequence[str | Path] = (HUBBUB,), **env: str
) -> str:
    """Start the command where it can't start; return what it says to that."""
    done = subprocess.run(
        [*command, "serve", *options],
        cwd=folder,
        env=surroundings(**env),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@frozen
class Hubbub:
    """A command that serves. `line` is what it printed when it began to."""

    process: trio.Process
    line: str
    errors: Path

    @property
    def port(self) -> int:
        found = re.search(r"https?://\S+?:(\d+)", self.line)
        assert found, self.line
        return int(found[1])

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self.errors.read_text()

    async def end(self, how: signal.Signals) -> int:
        """End it, and return its exit status."""
        self.process.send_signal(how)
        with trio.fail_after(END_SECONDS):
            return await self.process.wait()

    async def rest(self) -> str:
        """What it printed after its first line. Only for use when it has ended."""
        assert self.process.stdout is not None
        return b"".join([part async for part in self.process.stdout]).decode()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Native]:
        """Open a connection that speaks `dm-rpc`, as a guest of its own."""
        async with talking(self.port) as client:
            yield client


@asynccontextmanager
async def talking(port: int) -> AsyncIterator[Native]:
    """Open a connection that speaks `dm-rpc` to whatever listens at `port` of loopback."""
    async with open_socket(port, subprotocols=[SUBPROTOCOL]) as ws:
        yield await welcomed(ws)


async def welcomed(ws: WebSocketConnection) -> Native:
    """Return the client on a new connection, once the hub has said welcome."""
    client = Native(ws)
    name, client.welcome, id = await client.receive()
    assert (name, id) == ("welcome", None)
    return client


@asynccontextmanager
async def launched(
    *options: str, folder: Path, command: Sequence[str | Path] = (HUBBUB,), **env: str
) -> AsyncIterator[tuple[trio.Process, Path]]:
    """Start the command and don't wait for it; also gives the file of its standard error."""
    errors = folder / "stderr.log"
    with errors.open("a") as log:
        process = await trio.lowlevel.open_process(
            [*command, "serve", *options],
            cwd=folder,
            env=surroundings(**env),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process, errors
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_SECONDS):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


@asynccontextmanager
async def started(
    *options: str, folder: Path, command: Sequence[str | Path] = (HUBBUB,), **env: str
) -> AsyncIterator[Hubbub]:
    """Have the command serve in `folder` while the block runs; killed if it runs still then."""
    async with launched(*options, folder=folder, command=command, **env) as (process, errors):
        line = b""
        with trio.fail_after(START_SECONDS):
            while not line.endswith(b"\n"):
                assert process.stdout is not None
                part = await process.stdout.receive_some()
                assert part, f"it did not start:\n{errors.read_text()}"
                line += part
        yield Hubbub(process, line.decode(), errors)


def descendants(process: int) -> Mapping[int, str]:
    """Children of a process that live, and theirs: ids and states."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    found: dict[int, str] = {}
    parents = [process]
    while parents:
        parent = parents.pop()
        for pid, ppid, state in rows:
            if int(ppid) == parent and not state.startswith("Z"):
                found[int(pid)] = state
                parents.append(int(pid))
    return found


def lives(process: int) -> bool:
    """Whether a process is there and has not ended (one that nobody waited for has)."""
    told = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return told.stdout.strip()[:1] not in ("", "Z")
