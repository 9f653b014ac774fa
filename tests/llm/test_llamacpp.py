"""LlamaCpp against scripted servers; `test_local.py` runs a real one."""

import pytest
import trio
from attrs import evolve

from llm.llamacpp import LlamaCpp, plain_dialogue
from llm.provider import ChatMessage, Provider, Request, Timeouts
from tests.contracts.providers import ASK, SECRET, HttpProviderContract, all_of, error_of
from tests.llm.servers import Script, Server, event, refused, serving, streamed
from tests.llm.test_openai import ChatDialect

LOADING = refused(
    503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
)
HEALTHY = refused(200, b'{"status":"ok"}')
MISSING = refused(404, b'{"error":{"message":"File Not Found","code":404}}')


class LlamaChatDialect(ChatDialect):
    path = "/v1/chat/completions"

    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return LlamaCpp(base_url=url, key=SECRET, timeouts=timeouts)

    def too_long(self) -> bytes:
        return self.error("request (9 tokens) exceeds", "exceed_context_size_error", 400)


class TestLlamaCpp(HttpProviderContract):
    dialect = LlamaChatDialect()


CHAT = LlamaChatDialect()
ANSWER = streamed(*CHAT.reply())


def native(text: str) -> bytes:
    return event({"content": text, "stop": False, "id_slot": 0})


def native_end(finish: str) -> bytes:
    return event(
        {
            "content": "",
            "stop": True,
            "stop_type": finish,
            "model": "/home/ann/models/tiny.gguf",
            "tokens_evaluated": 7,
            "tokens_predicted": 5,
        }
    )


def without_chat(server: Server, *answers: Script) -> None:
    """Make it a server that has only `/completion`; its first answer is to being looked for."""
    server.answer(MISSING)
    server.answer_at("/completion", refused(200, b"{}"), *answers)


async def test_a_server_without_chat_is_asked_natively() -> None:
    async with serving() as server:
        without_chat(server, streamed(native("Ye"), native("s"), native_end("limit")))
        server.answer_at("/apply-template", refused(200, b'{"prompt": "<user>Hi<bot>"}'))
        provider = CHAT.provider(server.url)
        texts, usage = await all_of(provider, evolve(ASK, stop=("\n",)))
        await all_of(provider)
        await provider.aclose()
    assert texts == ["Ye", "s"]
    assert (usage.model, usage.finish) == ("tiny", "length")
    assert (usage.input_tokens, usage.output_tokens) == (7, 5)
    paths = [asked.path for asked in server.asked]
    template = ["/apply-template", "/completion"]
    assert paths == ["/v1/chat/completions", "/completion", *template, *template]
    assert server.asked[3].json == {
        "prompt": "<user>Hi<bot>",
        "n_predict": 1024,
        "temperature": 0.8,
        "stop": ["\n"],
        "stream": True,
        "cache_prompt": True,
    }


async def test_a_server_without_templates_gets_a_dialogue() -> None:
    async with serving() as server:
        without_chat(server, streamed(native("Yes"), native_end("eos")))
        provider = CHAT.provider(server.url)
        await all_of(provider, Request.of("Hi"))
        await provider.aclose()
    assert server.asked[-1].json["prompt"] == "User: Hi\nAssistant:"


def test_a_dialogue_ends_where_the_model_goes_on() -> None:
    messages = (
        ChatMessage("system", "Be kind."),
        ChatMessage("user", "Hi", name="Ann"),
        ChatMessage("assistant", "Ho"),
        ChatMessage("user", "Well?", name="Bob"),
    )
    assert plain_dialogue(Request(messages)) == (
        "System: Be kind.\nUser: Ann: Hi\nAssistant: Ho\nUser: Bob: Well?\nAssistant:"
    )


@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error": {"code": 500, "message": "oh", "type": "server_error"}}\n\n',
        b'error: {"code": 500, "message": "oh", "type": "server_error"}\n\n',
    ],
)
async def test_native_errors_in_the_stream(error: bytes) -> None:
    async with serving() as server:
        without_chat(server, streamed(native("Half"), error))
        provider = CHAT.provider(server.url)
        text, caught = await error_of(provider)
        await provider.aclose()
    assert (text, caught.fault) == ("Half", "broken")


async def test_a_model_that_is_being_loaded_is_waited_for(autojump_clock: object) -> None:
    async with serving() as server:
        server.answer(LOADING, ANSWER)
        server.answer_at("/health", LOADING, LOADING, HEALTHY)
        provider = CHAT.provider(server.url)
        await all_of(provider)
        await provider.aclose()
    assert [asked.path for asked in server.asked].count("/health") == 3


async def test_a_model_that_is_being_loaded_for_ever_is_not(autojump_clock: object) -> None:
    async with serving() as server:
        server.answer(LOADING)
        provider = CHAT.provider(server.url, Timeouts(first=10))
        start = trio.current_time()
        assert (await error_of(provider))[1].fault == "overloaded"
        assert trio.current_time() - start == pytest.approx(10, abs=1)
        await provider.aclose()


async def test_nothing_is_asked_for_by_name_unless_it_was_named() -> None:
    async with serving() as server:
        server.answer(ANSWER)
        provider = CHAT.provider(server.url + "/v1")
        await all_of(provider)
        await all_of(provider, ASK.with_model("big"))
        await provider.aclose()
    assert [asked.json.get("model") for asked in server.asked] == [None, "big"]


async def test_folders_of_the_model_are_nobodys_business() -> None:
    chunks = {"model": "/home/ann/tiny.gguf", "choices": [{"finish_reason": "stop"}]}
    async with serving() as server:
        server.answer(streamed(event(chunks)))
        provider = CHAT.provider(server.url)
        assert (await all_of(provider))[1].model == "tiny"
        await provider.aclose()
