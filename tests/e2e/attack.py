"""What an attacker does to a hub, over its own interfaces: every payload, everywhere it fits."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import trio
from attrs import define, field, frozen

from hub.wire.tuples import SUBPROTOCOL
from tests.e2e.hostile import FAILURES, TEXTS
from tests.hubs import Native, Refusal
from tests.sockets import PATIENCE, open_socket

# What a hub with these settings takes in; other limits are not what this is about.
SETTINGS = {
    "HUBBUB_LLM": "tests.e2e.hostile:answer",
    "HUBBUB_ROOMS_PER_USER": "1000",
    "HUBBUB_ROOMS_PER_SOCKET": "1000",
    "HUBBUB_CAST": "60",
    "HUBBUB_ROLLUP": "0",
}
NAME, TITLE, EMOJI = 40, 100, 16


@frozen
class Place:
    """A public room that the attacker made."""

    id: str
    title: str
    text: str


@define
class Attacker:
    """Somebody with a session; `cookie` lets a browser be the same person.

    Attributes:
        names: those that the hub let them take.
        places: the rooms they made, with the titles that the hub gave these.
        games: addresses of rooms whose first notice lists payloads.
    ends: how many replies ended how.

    """

    http: httpx.AsyncClient
    client: Native
    csrf: str
    names: list[str] = field(factory=list)
    places: list[Place] = field(factory=list)
    games: list[str] = field(factory=list)
    ends: Counter[str] = field(factory=Counter)

    @property
    def url(self) -> str:
        return str(self.http.base_url)

    @property
    def cookie(self) -> tuple[str, str]:
        return next(iter(self.http.cookies.items()))

    async def rename(self, text: str) -> None:
        """Take a name; a hub may refuse it, but must not fail."""
        answer = await self.http.post(
            "/api/session", json={"name": tidy(text)[:NAME]}, headers={"X-CSRF-Token": self.csrf}
        )
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200:
            self.names.append(answer.json()["user"]["name"])

    async def talk(self) -> None:
        """Say all payloads, under names made of them; hear the model say them, then fail."""
        await self.client.call("join_room", room="lobby")
        for text in [*TEXTS, *TEXTS[:FAILURES]]:
            await self.rename(text)
            await self.client.prompt("lobby", text)
            end = await self.client.event("message_end")
            self.ends[end["status"]] += 1

    async def build(self) -> None:
        """Make a room of each payload: its title, its scenario, its character."""
        for text in TEXTS:
            character = {
                "name": tidy(text)[:NAME],
                "emoji": text[:EMOJI],
                "class": text,
                "personality": text,
                "greeting": text,
                "model": text[:TITLE],
            }
            try:
                made = await self.client.call(
                    "create_room",
                    title=tidy(text)[:TITLE],
                    scenario=text,
                    characters=[character],
                    visibility="public",
                )
            except Refusal as refusal:
                if refusal.code != "empty":  # nothing of it can be seen
                    raise
                continue
            await self.client.call("leave_room", room=made["room"]["id"])
            self.places.append(Place(made["room"]["id"], made["room"]["title"], text))

    async def play(self) -> None:
        """Start games; their first message is a notice with the names of all characters."""
        names = dict.fromkeys(tidy(place.text)[:NAME].casefold() for place in self.places)
        for start in range(0, len(names), 50):
            cast = [{"name": name} for name in list(names)[start : start + 50]]
            answer = await self.http.post(
                "/api/game/start", json={"gmPrompt": "x", "characters": cast}
            )
            if answer.status_code == 200:  # two names may be the same once they are normalised
                id = answer.json()["gameId"]
                self.games.append(f"?room={id}&invite={id}")


@asynccontextmanager
async def attacker(url: str) -> AsyncIterator[Attacker]:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        csrf = (await http.get("/api/session")).json()["csrf"]
        cookie = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
        port, headers = http.base_url.port or 80, [(b"cookie", cookie.encode())]
        async with open_socket(port, f"/ws?csrf={csrf}", [SUBPROTOCOL], headers) as ws:
            client = Native(ws)
            await client.receive()
            yield Attacker(http, client, csrf)


def attack(url: str) -> Attacker:
    """Do all of it; returns who did, for what there is now."""

    async def run() -> Attacker:
        with trio.fail_after(90):
            async with attacker(url) as one:
                await one.build()
                await one.play()
                await one.talk()
        return one

    return trio.run(run)


def tidy(text: str) -> str:
    """A text without what names refuse anyway: line breaks and what can't be seen."""
    return "".join(one if one.isprintable() else " " for one in text)


def encoded(frame: object) -> str:
    """A frame's JSON."""
    return msgspec.json.encode(frame).decode()
