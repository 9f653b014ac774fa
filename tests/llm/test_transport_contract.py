"""The contract of providers over httpx's own transport; their own tests run it over ours."""

from llm.anthropic import Anthropic
from llm.llamacpp import LlamaCpp
from llm.openai import OpenAI
from llm.provider import Provider, Timeouts
from tests.contracts.providers import SECRET
from tests.llm import test_anthropic, test_llamacpp, test_openai


class Chat(test_openai.ChatDialect):
    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return OpenAI(key=SECRET, base_url=url, model="m0", timeouts=timeouts, transport="stock")


class Messages(test_anthropic.MessagesDialect):
    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return Anthropic(key=SECRET, base_url=url, model="c0", timeouts=timeouts, transport="stock")


class LlamaChat(test_llamacpp.LlamaChatDialect):
    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return LlamaCpp(base_url=url, key=SECRET, timeouts=timeouts, transport="stock")


class TestOpenAI(test_openai.TestOpenAI):
    dialect = Chat()


class TestAnthropic(test_anthropic.TestAnthropic):
    dialect = Messages()


class TestLlamaCpp(test_llamacpp.TestLlamaCpp):
    dialect = LlamaChat()
