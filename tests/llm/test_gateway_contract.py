"""The gateway keeps the promises of a provider, over a real one and scripted servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm.call import Model
from llm.gateway import GatewaySettings, open_gateway
from llm.provider import Provider, Timeouts
from llm.retry import Patience
from tests.contracts.providers import HttpProviderContract
from tests.llm.servers import Server, serving
from tests.llm.test_openai import ChatDialect

ONCE = GatewaySettings(patience=Patience(attempts=1))


class TestGateway(HttpProviderContract):
    dialect = ChatDialect()

    @asynccontextmanager
    async def asking(
        self, timeouts: Timeouts | None = None
    ) -> AsyncIterator[tuple[Server, Provider]]:
        async with serving() as server:
            model = Model("m0", self.dialect.provider(server.url, timeouts))
            async with open_gateway([model], ONCE) as gateway:
                yield server, gateway
