"""Many clients that join, leave, stall, drop and resume at random: each ends with exactly the log.

A witness that never leaves writes down every event of the lobby. All others check against
it what they were given: each offset once, in order, the same event; a gap only where they
were told `recovered: false`, and then the snapshot is what the witness's events add up to.
"""

import random
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
import pytest
import trio
from attrs import define, field

from hub.room import LiveRoom
from hub.web.listener import raise_file_limit
from llm.provider import Item, Request, Usage
from tests.hubs import Closed, Native, Running, running_hub
from tests.scripted import Scripted
from tests.sockets import PATIENCE

Event = tuple[str, dict[str, Any]]


@define
class Replica:
    """What a client knows of the lobby, from a snapshot and the events since."""

    epoch: str = ""
    offset: int = -1
    messages: dict[str, dict[str, Any]] = field(factory=dict)

    def take_snapshot(self, result: dict[str, Any]) -> None:
        if result["recovered"]:
            assert (result["epoch"], result["offset"]) == (self.epoch, self.offset)
            assert result["messages"] == []
            return
        self.epoch, self.offset = result["epoch"], result["offset"]
        known = [*result["messages"], *result["replies"]]
        self.messages = {one["id"]: dict(one) for one in sorted(known, key=lambda one: one["id"])}

    def take(self, name: str, payload: dict[str, Any]) -> None:
        if "offset" not in payload or payload.get("inbox"):
            return
        assert payload["offset"] == self.offset + 1
        self.offset += 1
        if name in {"message", "message_start"}:
            self.messages[payload["message"]["id"]] = dict(payload["message"])
        elif name == "token" and payload["id"] in self.messages:
            self.messages[payload["id"]]["text"] += payload["text"]
        elif name == "message_end" and payload["id"] in self.messages:
            self.messages[payload["id"]] |= {k: payload[k] for k in ("status", "html")}
        elif name == "message_removed":
            self.messages.pop(payload["id"], None)

    def shown(self) -> list[tuple[str, str, str, str]]:
        """The newest messages, as a reader sees them."""
        newest = sorted(self.messages)[-20:]
        return [(id, *(self.messages[id][k] for k in ("text", "status", "html"))) for id in newest]


@define
class Wanderer:
    """A client that behaves at random; `seen` are the events it was given, by place."""

    running: Running
    chance: random.Random
    replica: Replica = field(factory=Replica)
    seen: dict[tuple[str, int], Event] = field(factory=dict)
    closed_with: list[int | None] = field(factory=list)
    resumed: int = 0
    lost: int = 0

    async def wander(self, until: trio.Event) -> None:
        while not until.is_set():
            async with self.running.connect() as client:
                await self.visit(client, until)

    async def visit(self, client: Native, until: trio.Event) -> None:
        try:
            await self.join(client)
            for _ in range(self.chance.randrange(1, 8)):
                if until.is_set():
                    return
                await self.act(client)
        except Closed as closed:
            self.closed_with.append(closed.code)

    async def join(self, client: Native) -> None:
        since = None
        if self.replica.epoch and self.chance.random() < 0.9:
            since = {"epoch": self.replica.epoch, "offset": self.replica.offset}
        result = await client.call("join_room", room="lobby", since=since)
        self.resumed += result["recovered"]
        self.lost += since is not None and not result["recovered"]
        self.drain(client, keep=False)
        self.replica.take_snapshot(result)

    def drain(self, client: Native, *, keep: bool = True) -> None:
        while client.events:
            name, payload = client.events.popleft()
            if keep:
                self.note(name, payload)

    def note(self, name: str, payload: dict[str, Any]) -> None:
        self.replica.take(name, payload)
        if "offset" in payload:
            self.seen[self.replica.epoch, payload["offset"]] = (name, payload)

    async def act(self, client: Native) -> None:
        what = self.chance.choice(["read", "read", "stall", "speak", "leave"])
        if what == "read":
            for _ in range(self.chance.randrange(1, 40)):
                with trio.move_on_after(0.05):
                    self.note(*(await client.next()))
        elif what == "stall":
            await trio.sleep(self.chance.random() * 0.3)
        elif what == "speak":
            with trio.move_on_after(5):
                await client.prompt("lobby", f"word {self.chance.random()}")
            self.drain(client)
        elif what == "leave":
            await client.call("leave_room", room="lobby")
            self.drain(client)
            await self.join(client)

    async def catch_up(self) -> None:
        """Come back once more, anew or from where it was, and read to the end."""
        async with self.running.connect() as late:
            await self.join(late)
            head = (await late.call("join_room", room="lobby"))["offset"]
            self.drain(late)
            with trio.fail_after(PATIENCE):
                while self.replica.offset < head:
                    self.note(*(await late.next()))


@define
class Witness:
    """Writes down everything."""

    replica: Replica = field(factory=Replica)
    log: dict[tuple[str, int], Event] = field(factory=dict)

    async def watch(self, client: Native) -> None:
        """Read until cancelled."""
        while True:
            name, payload = await client.next()
            self.replica.take(name, payload)
            if "offset" in payload:
                self.log[self.replica.epoch, payload["offset"]] = (name, payload)

    async def has_all_of(self, room: LiveRoom) -> None:
        """Wait until nothing is being answered, and all that was is written down."""
        with trio.fail_after(60):
            while self.replica.offset < room.log.head or any(  # noqa: ASYNC110 - nobody tells
                lane.busy for lane in room._lanes.values()
            ):
                await trio.sleep(0.05)


@pytest.mark.parametrize("window", [20_000, 1 << 20])
@pytest.mark.parametrize("rollup", [0, 25])
async def test_everybody_ends_with_exactly_the_log(
    window: int, rollup: float, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(f"{window} {rollup}")

    async def chatty(_request: Request) -> AsyncGenerator[Item, None]:
        for n in range(chance.randrange(5, 60)):
            yield f"{n} " * chance.randrange(1, 40)
            if chance.random() < 0.3:
                await trio.sleep(chance.random() * 0.02)
        yield Usage(model="script")

    async with (
        running_hub(Scripted(chatty), window=window, rollup=rollup, grace=60) as running,
        running.connect() as client,
    ):
        witness = Witness()
        witness.replica.take_snapshot(await client.call("join_room", room="lobby"))
        wanderers = [Wanderer(running, random.Random(seed)) for seed in range(12)]
        over = trio.Event()
        async with trio.open_nursery() as watching:
            watching.start_soon(witness.watch, client)
            async with trio.open_nursery() as nursery:
                for one in wanderers:
                    nursery.start_soon(one.wander, over)
                await trio.sleep(4)
                over.set()
            [room] = running.hub.live
            await witness.has_all_of(room)
            watching.cancel_scope.cancel()
        assert len(witness.log) > 200
        for one in wanderers:
            assert set(one.closed_with) <= {4008}
            for place, event in one.seen.items():
                assert witness.log[place] == event
        assert sum(one.resumed for one in wanderers) > 5
        if window < 100_000:
            assert sum(one.lost for one in wanderers) > 0
        for one in wanderers:
            await one.catch_up()
            assert one.replica.shown() == witness.replica.shown()
    assert not [one for one in caplog.records if one.exc_info]


# ── a thousand ───────────────────────────────────────────────────────────────────────────

CROWD = 1000

_HELLO = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: dm-rpc\r\n\r\n"
)
_EVENT = re.compile(rb'\["\w+",\{"room":"lobby","offset":(\d+)')


@define
class Lean:
    """A client of as few lines as will do: a thousand of a library's would be the test's load.

    Attributes:
        log: the events that it was given, as they came over the wire.
        first: the offset before the first of them.

    """

    port: int
    chance: random.Random
    epoch: str = ""
    first: int = -1
    log: list[bytes] = field(factory=list)
    resumed: int = 0
    joined: trio.Event = field(factory=trio.Event)

    @property
    def offset(self) -> int:
        return self.first + len(self.log)

    async def come_and_go(self, over: trio.Event) -> None:
        """Be cut off at any moment, also within a frame, and come back at once."""
        while not over.is_set():
            with trio.move_on_after(self.chance.uniform(0.2, 12)):
                await self.follow(until=over.is_set)

    async def follow(self, until: Callable[[], bool]) -> None:
        """Be there, until something holds after some bytes came."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            await stream.send_all(_HELLO)
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some()
            data = data.partition(b"\r\n\r\n")[2]
            since = {"epoch": self.epoch, "offset": self.offset} if self.epoch else None
            join = msgspec.json.encode(["join_room", {"room": "lobby", "since": since}, "1"])
            assert len(join) < 126  # a longer one has another head (RFC 6455 section 5.2)
            await stream.send_all(bytes([0x81, 0x80 | len(join), 0, 0, 0, 0]) + join)
            while not until():
                part = await stream.receive_some()
                assert part, "the hub closed the connection"
                data = self.take(data + part)
        finally:
            await trio.aclose_forcefully(stream)

    def take(self, data: bytes) -> bytes:
        """Take in all whole frames; return the rest."""
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size > 125:
                wide = 2 if size == 126 else 8
                size, start = int.from_bytes(data[start : start + wide]), start + wide
            if len(data) < start + size:
                break
            if data[at] == 0x81:
                self.hear(data[start : start + size])
            at = start + size
        return data[at:]

    def hear(self, frame: bytes) -> None:
        if found := _EVENT.match(frame):
            assert int(found[1]) == self.offset + 1
            self.log.append(frame)
        elif frame.startswith(b'["join_room"'):
            result = msgspec.json.decode(frame)[1]
            if self.epoch:
                assert result["recovered"]
                assert (result["epoch"], result["offset"]) == (self.epoch, self.offset)
                self.resumed += 1
            else:
                self.epoch, self.first = result["epoch"], result["offset"]
                self.joined.set()


async def in_bursts(_request: Request) -> AsyncGenerator[Item, None]:
    """Talk: waking a thousand clients for each token is more work for them than for the hub."""
    for n in range(60):
        yield f"word {n} 🦊 "
        if n % 10 == 9:
            await trio.sleep(0.2)
    yield Usage(model="script")


async def talk_until_all_are_lost(ada: Native, crowd: list[Lean]) -> None:
    while sum(one.resumed for one in crowd) < CROWD:
        await ada.prompt("lobby", "Talk!")
        await ada.event("turn", state="done")


async def catch_up(one: Lean, head: int, places: trio.CapacityLimiter) -> None:
    async with places:
        if one.offset < head:
            await one.follow(lambda: one.offset >= head)


async def test_a_thousand_that_drop_and_resume_have_the_log_byte_for_byte() -> None:
    raise_file_limit()
    # Who comes and goes is not announced: it would be a thousand times a thousand events.
    settings: dict[str, Any] = {"members_announced": 0, "grace": 60, "rollup": 0}
    async with running_hub(Scripted(in_bursts), **settings) as running, running.connect() as ada:
        await ada.call("join_room", room="lobby")
        log = running.hub.live[0].log
        witness = Lean(running.port, random.Random(0))
        crowd = [Lean(running.port, random.Random(seed)) for seed in range(1, CROWD + 1)]
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(witness.follow, over.is_set)
            with trio.fail_after(PATIENCE):
                await witness.joined.wait()
            for one in crowd:
                nursery.start_soon(one.come_and_go, over)
            await talk_until_all_are_lost(ada, crowd)
            over.set()
            await ada.prompt("lobby", "The end.")  # something more for each to notice it by
            await ada.event("turn", state="done")
        places = trio.CapacityLimiter(100)
        async with trio.open_nursery() as nursery:
            for one in (witness, *crowd):
                nursery.start_soon(catch_up, one, log.head, places)
    assert len(witness.log) > 100
    for one in crowd:
        assert one.epoch == witness.epoch
        assert b"".join(one.log) == b"".join(witness.log[one.first - witness.first :])
