"""People with browsers and programs with tokens, for tests of who gets in.

async with browser(running) as ada:
    await ada.register("Ada")
    async with ada.socket() as socket:
        await socket.call("join_room", room="lobby")
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from attrs import define, field

from hub.accounts import Accounts
from hub.passwords import Passwords
from hub.records import Role
from tests.cheap import CHEAP
from tests.hubs import Native, Running
from tests.sockets import PATIENCE

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real hash costs a fifth of a second, and makes no difference here."""
    monkeypatch.setattr("hub.passwords.PARAMETERS", CHEAP)


@define
class Browser:
    """A browser: it keeps its cookie, and sends the CSRF token as the page does."""

    http: httpx.AsyncClient
    running: Running
    me: dict[str, Any] = field(factory=dict)

    async def send(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response:
        if self.me.get("csrf"):
            headers = {"x-csrf-token": self.me["csrf"], **headers}
        # As the page does it: nothing in the body means no body.
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers = {"content-type": "application/json", **headers}
        return await self.http.request(method, path, content=content, headers=headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.send("GET", path)

    async def post(self, path: str, **body: object) -> httpx.Response:
        return await self.send("POST", path, body)

    async def _enter(self, answer: httpx.Response) -> dict[str, Any]:
        assert answer.is_success, answer.text
        self.me = answer.json()
        return self.me

    async def look(self) -> dict[str, Any]:
        """Ask who one is, as the page does first of all."""
        return await self._enter(await self.get("/api/session"))

    async def log_in(self, name: str, password: str = PASSWORD) -> dict[str, Any]:
        return await self._enter(await self.post("/api/session", name=name, password=password))

    async def register(self, name: str, password: str = PASSWORD, **more: str) -> dict[str, Any]:
        return await self._enter(
            await self.post("/api/users", name=name, password=password, **more)
        )

    @property
    def cookie(self) -> str:
        return self.http.cookies["hubbub_session"]

    @asynccontextmanager
    async def socket(self, *, cookie: str | None = None) -> AsyncIterator[Native]:
        """Open a socket, with this browser's cookie or another."""
        sent = f"hubbub_session={cookie or self.cookie}".encode()
        path = f"/ws?csrf={self.me['csrf']}"
        async with self.running.connect(path=path, headers=[(b"cookie", sent)]) as socket:
            yield socket


@asynccontextmanager
async def browser(running: Running, **headers: str) -> AsyncIterator[Browser]:
    """Open a browser with no cookies yet."""
    address = f"http://127.0.0.1:{running.port}"
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    async with httpx.AsyncClient(base_url=address, headers=sent, timeout=PATIENCE) as http:
        yield Browser(http, running)


async def account(running: Running, name: str, role: Role = "user") -> str:
    """Make an account as the owner does; returns the user's id."""
    owner = Accounts(running.hub.store, Passwords(CHEAP), name_chars=40)
    return (await owner.register(name, PASSWORD, role=role)).id
