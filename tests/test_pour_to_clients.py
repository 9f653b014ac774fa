"""Tokens that are poured from a model's socket to clients: slow ones, gone ones, broken ones."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from llm import rounds
from llm.call import Model
from llm.gateway import open_gateway
from llm.openai import OpenAI
from tests.hubs import Native, Running, running_hub
from tests.llm.servers import Do, Server, chunk, head, serving, streamed
from tests.llm.test_openai import ChatDialect

DIALECT = ChatDialect()
TEXTS = [f"{number:03} " + "x" * 1000 for number in range(150)]


@asynccontextmanager
async def hub_over(server: Server) -> AsyncIterator[Running]:
    provider = OpenAI(base_url=server.url)
    async with open_gateway([Model("m", provider)]) as gateway, running_hub(gateway) as running:
        yield running


async def told(client: Native) -> tuple[str, str]:
    """What comes until the end, and how that is."""
    text = ""
    while True:
        name, payload, _ = await client.receive()
        if name == "llm_end":
            return text, payload["status"]
        assert name == "llm_token"
        text += payload


async def test_a_client_that_reads_nothing_gets_all_of_it_later_and_holds_up_nobody() -> None:
    async with serving() as server:
        server.answer(streamed(*map(DIALECT.text, TEXTS), DIALECT.end()))
        async with (
            hub_over(server) as running,
            running.connect() as slow,
            running.connect() as other,
        ):
            client = next(c for c in running.hub._clients if c.user.id == slow.user["id"])
            # Next to nothing is held by the system, so that the hub has to wait.
            tcp = slow.ws._stream
            assert isinstance(tcp, trio.SocketStream)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            own = socket.socket(fileno=client.stream._fd)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            own.detach()
            await slow.send("llm_chat_prompt", {"prompt": "one"})
            await other.send("llm_chat_prompt", {"prompt": "two"})
            assert await told(other) == ("".join(TEXTS), "done")
            assert client.slow
            assert await told(slow) == ("".join(TEXTS), "done")


async def test_a_client_that_goes_closes_the_models_response() -> None:
    async with serving() as server:
        server.answer((head(), *(chunk(DIALECT.text(word)) for word in "abc"), Do.STALL))
        async with hub_over(server) as running:
            async with running.connect() as ann:
                await ann.send("llm_chat_prompt", {"prompt": "one"})
                text = ""
                while text != "abc":
                    text += (await ann.receive())[1]
            await server.all_closed()


async def test_a_bug_met_while_it_is_poured_ends_only_that_client(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "PAUSE", 0.0)  # each text is a read of its own
    async with serving() as server:
        server.answer(streamed(*map(DIALECT.text, TEXTS[:50]), DIALECT.end()))
        async with (
            hub_over(server) as running,
            running.connect() as ann,
            running.connect() as ben,
        ):
            victim = next(c for c in running.hub._clients if c.user.id == ann.user["id"])
            sent = 0

            def trip(_frame: bytes) -> None:
                nonlocal sent
                sent += 1
                if sent == 10:
                    raise RuntimeError("a bug")

            monkeypatch.setattr(type(victim), "send", _but_for(victim, trip, type(victim).send))
            await ann.send("llm_chat_prompt", {"prompt": "one"})
            await ben.send("llm_chat_prompt", {"prompt": "two"})
            with caplog.at_level(logging.ERROR):
                assert await told(ben) == ("".join(TEXTS[:50]), "done")
                assert await ann.closed() == 1011
    assert len([one for one in caplog.records if one.exc_info]) == 1


def _but_for(victim: object, own: object, usual: object) -> object:
    """A method that is another one for one object."""

    def send(self: object, frame: bytes) -> None:
        if self is victim:
            own(frame)  # type: ignore[operator]
        else:
            usual(self, frame)  # type: ignore[operator]

    return send
