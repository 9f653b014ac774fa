"""A whole hub on a real port, and clients that speak its dialects, for tests.

    async with running_hub(provider=Scripted(), grace=0.1) as running:
        async with running.connect() as alice:            # dm-rpc
            await alice.call("join_room", room="lobby")
            event = await alice.event("token")
        async with running.connect_objects() as player:   # no subprotocol
            started = await player.ask("start_game", data={...})
        response = await running.http.get("/api/characters")

The store is in memory and nothing here needs a thread, so trio's test clock may be used.
"""

import random
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import httpx
import msgspec
import trio
import trio_websocket
from attrs import define, field, frozen
from trio_websocket import WebSocketConnection

from hub.app import build_site, open_to_all
from hub.hub import Hub
from hub.presets import Presets, load
from hub.settings import Settings
from hub.store.contract import Store
from hub.store.memory import MemoryStore
from hub.web.listener import open_listeners
from hub.web.tls import open_certificate
from hub.wire.tuples import SUBPROTOCOL
from llm.provider import Provider
from tests.scripted import Scripted
from tests.sockets import PATIENCE, open_socket

Frame = dict[str, Any]

PRESETS = load()


class Refusal(Exception):
    """The hub answered a call with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Closed(Exception):
    """The hub closed the connection."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


@define
class Socket:
    """A WebSocket whose every wait has a deadline."""

    ws: WebSocketConnection

    async def send_text(self, text: str | bytes) -> None:
        try:
            await self.ws.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise Closed(error.reason.code if error.reason else None) from None

    async def receive(self, seconds: float = PATIENCE) -> Any:
        """Return the next frame's JSON.

        Raises:
            Closed: the hub closed the connection.

        """
        with trio.fail_after(seconds):
            try:
                message = await self.ws.get_message()
            except trio_websocket.ConnectionClosed as error:
                raise Closed(error.reason.code if error.reason else None) from None
        assert isinstance(message, str)
        return msgspec.json.decode(message)

    async def closed(self) -> int | None:
        """Read on until the hub closes the connection; return the code."""
        while True:
            try:
                await self.receive()
            except Closed as closed:
                return closed.code


@define
class Native(Socket):
    """A client of `dm-rpc`. Events that come while it waits for an answer are kept in `events`.

    Attributes:
        welcome: the first payload that the hub sent.
        events: names and payloads that nobody asked for yet, oldest first.

    """

    welcome: Frame = field(factory=dict)
    events: deque[tuple[str, Frame]] = field(factory=deque)
    _ids: Any = field(factory=lambda: count(1))

    @property
    def user(self) -> Frame:
        found: Frame = self.welcome["user"]
        return found

    async def send(self, method: str, payload: object = None, id: str | None = None) -> None:
        await self.send_text(msgspec.json.encode([method, payload or {}, id]).decode())

    async def call(self, method: str, **payload: object) -> Any:
        """Ask, and return the result.

        Raises:
            Refusal: it was an error.

        """
        return await self.answer(await self.begin(method, **payload))

    async def begin(self, method: str, **payload: object) -> str:
        """Ask without waiting; returns the id for `answer`."""
        id = str(next(self._ids))
        await self.send(method, payload, id)
        return id

    async def answer(self, id: str) -> Any:
        while True:
            name, payload, answered = await self.receive()
            if answered == id:
                if name == "error":
                    raise Refusal(payload["code"], payload["message"])
                return payload
            self.events.append((name, payload))

    async def next(self) -> tuple[str, Any]:
        """Return the next event's name and payload."""
        if self.events:
            return self.events.popleft()
        name, payload, id = await self.receive()
        assert id is None, (name, payload, id)
        return name, payload

    async def event(self, name: str, **wanted: object) -> Any:
        """Drop events up to the next one of this name with these members; return its payload."""
        while True:
            found, payload = await self.next()
            if found == name and wanted.items() <= dict(payload).items():
                return payload

    async def until(self, name: str, **wanted: object) -> list[tuple[str, Any]]:
        """Return all events up to the next one of this name with these members, it included."""
        seen = []
        while True:
            seen.append(await self.next())
            if seen[-1][0] == name and wanted.items() <= dict(seen[-1][1]).items():
                return seen

    async def prompt(self, room: str, text: str, **more: object) -> Frame:
        """Send a prompt; return its message."""
        txn = f"txn-{next(self._ids)}"
        result = await self.call("send_prompt", room=room, text=text, txn=txn, **more)
        message: Frame = result["message"]
        return message


@define
class Objects(Socket):
    """A client of the object dialect. What others say while it waits is kept in `told`."""

    greeting: Frame = field(factory=dict)
    told: deque[Frame] = field(factory=deque)

    async def say(self, type: str, game: str | None = None, data: object = None) -> None:
        frame: Frame = {"type": type}
        if game is not None:
            frame["gameId"] = game
        if data is not None:
            frame["data"] = data
        await self.send_text(msgspec.json.encode(frame).decode())

    async def ask(self, type: str, game: str | None = None, data: object = None) -> Frame:
        """Say something and return the frame that answers it."""
        await self.say(type, game, data)
        return await self.answer()

    async def answer(self) -> Frame:
        """Return the next frame that is not about what others say."""
        while True:
            frame: Frame = await self.receive()
            if frame["type"] not in {"message", "token"}:
                return frame
            self.told.append(frame)

    async def hear(self) -> Frame:
        """Return the next frame about what others say."""
        if self.told:
            return self.told.popleft()
        frame: Frame = await self.receive()
        assert frame["type"] in {"message", "token"}, frame
        return frame


@frozen
class Running:
    """A hub that serves, and the ways in."""

    url: str
    hub: Hub
    http: httpx.AsyncClient

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @asynccontextmanager
    async def connect(
        self, *, path: str = "/ws", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> AsyncIterator[Native]:
        """Open a connection that speaks `dm-rpc`, as a guest of its own."""
        async with self.socket(path, [SUBPROTOCOL], headers) as ws:
            client = Native(ws)
            name, client.welcome, id = await client.receive()
            assert (name, id) == ("welcome", None)
            yield client

    @asynccontextmanager
    async def connect_objects(
        self, *, path: str = "/ws", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> AsyncIterator[Objects]:
        """Open a connection without a subprotocol."""
        async with self.socket(path, [], headers) as ws:
            client = Objects(ws)
            client.greeting = await client.receive()
            yield client

    @asynccontextmanager
    async def socket(
        self,
        path: str = "/ws",
        subprotocols: Sequence[str] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> AsyncIterator[WebSocketConnection]:
        async with open_socket(self.port, path, subprotocols, headers) as ws:
            yield ws


@asynccontextmanager
async def running_hub(
    provider: Provider | None = None,
    *,
    store: Store | None = None,
    presets: Presets = PRESETS,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Have a hub serve while the block runs.

    Args:
        provider: the model; one that repeats what it is told, if left out.
        store: a fresh one in memory, if left out.
        presets: the characters and scenarios that come with it.
        settings: those that differ from the defaults.

    """
    with tempfile.TemporaryDirectory() as folder:
        known = {one.name for one in attrs.fields(Settings)}
        assert settings.keys() <= known, settings.keys() - known
        chosen = Settings(**{"host": "127.0.0.1", "port": 0, "data": Path(folder), **settings})
        chance = random.Random(1)
        hub = Hub(
            chosen,
            store or MemoryStore(),
            provider or Scripted(),
            presets=presets,
            chance=chance,
        )
        site = build_site(hub, chosen, chance)
        listeners = await open_listeners(chosen.host, chosen.port)
        certificate = open_certificate(chosen.tls_cert, chosen.tls_key)
        async with open_to_all(hub, site, listeners, certificate) as url:
            address = f"{url.partition(':')[0]}://127.0.0.1:{url.rpartition(':')[2]}"
            async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as http:
                yield Running(url, hub, http)
