"""The contract of providers, for who takes the texts by the shorter way: one by one, and all."""

from attrs import frozen

from llm.provider import Provider, Timeouts
from tests.llm import test_anthropic, test_openai
from tests.llm.poured import Poured


@frozen
class Chat(test_openai.ChatDialect):
    most: int

    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return Poured(super().provider(url, timeouts), self.most)


@frozen
class Messages(test_anthropic.MessagesDialect):
    most: int

    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return Poured(super().provider(url, timeouts), self.most)


class TestOpenAIOneByOne(test_openai.TestOpenAI):
    dialect = Chat(1)


class TestOpenAI(test_openai.TestOpenAI):
    dialect = Chat(1_000_000)


class TestAnthropic(test_anthropic.TestAnthropic):
    dialect = Messages(1_000_000)
