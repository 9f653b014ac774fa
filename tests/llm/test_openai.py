import json

import pytest
from attrs import evolve

from llm.openai import OpenAI
from llm.provider import ChatMessage, Provider, Request, Timeouts
from tests.contracts.providers import (
    ASK,
    SECRET,
    Dialect,
    HttpProviderContract,
    all_of,
    error_of,
)
from tests.llm.servers import Do, Script, chunk, event, head, refused, serving, streamed

FINISHES = {"stop": "stop", "length": "length", "filter": "content_filter"}
DONE = b"data: [DONE]\n\n"


def delta(finish: str | None = None, **fields: object) -> bytes:
    choice = {"index": 0, "delta": fields, "finish_reason": finish}
    return event({"id": "c1", "model": "m1", "choices": [choice], "usage": None})


class ChatDialect(Dialect):
    path = "/chat/completions"

    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return OpenAI(key=SECRET, base_url=url, model="m0", timeouts=timeouts)

    def text(self, text: str) -> bytes:
        return delta(content=text)

    def end(self, finish: str = "stop") -> bytes:
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        counts = event({"id": "c1", "model": "m1", "choices": [], "usage": usage})
        return delta(FINISHES[finish]) + counts + DONE

    def error(self, message: str, kind: str = "", code: str | int = "") -> bytes:
        error = {"message": message, "type": kind or "some_error", "code": code or None}
        return json.dumps({"error": error}).encode()

    def error_event(self) -> bytes:
        return event({"error": {"message": "busy", "type": "x", "code": 503}})

    def silent(self) -> bytes:
        empty = event({"choices": []}) + event({"choices": None})
        return empty + delta(role="assistant", content=None) + delta(content="")

    def too_long(self) -> bytes:
        return self.error("too many tokens", code="context_length_exceeded")


class TestOpenAI(HttpProviderContract):
    dialect = ChatDialect()


DIALECT = ChatDialect()
ANSWER = streamed(*DIALECT.reply())


async def bodies(
    *scripts: Script, request: Request = ASK, times: int = 1
) -> list[dict[str, object]]:
    """What is sent when these are the answers, and the last is a reply."""
    async with serving() as server:
        server.answer(*scripts)
        provider = DIALECT.provider(server.url)
        for _ in range(times):
            await all_of(provider, request)
        await provider.aclose()
        return [asked.json for asked in server.asked]


async def test_asks_as_compatible_servers_understand_it() -> None:
    async with serving() as server:
        server.answer(ANSWER)
        provider = OpenAI(key=SECRET, base_url=f"{server.url}/v1/", model="m0")
        await all_of(provider, evolve(ASK, stop=("\n\n",), temperature=0.5))
        await provider.aclose()
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.json == {
        "model": "m0",
        "messages": [{"role": "user", "content": ASK.prompt}],
        "max_tokens": 1024,
        "temperature": 0.5,
        "stop": ["\n\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_no_key_is_no_header() -> None:
    async with serving() as server:
        server.answer(ANSWER)
        provider = OpenAI(base_url=server.url)
        await all_of(provider)
        await provider.aclose()
    assert "authorization" not in server.asked[0].headers


async def test_who_speaks_is_in_the_text() -> None:
    messages = (
        ChatMessage("system", "Rules.", name="x"),
        ChatMessage("user", "Hi", name="Zoë\nK."),
        ChatMessage("assistant", "Ho", name="Finn"),
        ChatMessage("user", "Ann: Hey\n\nAnn: You", name="Ann"),
    )
    [body] = await bodies(ANSWER, request=Request(messages))
    assert body["messages"] == [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": "Zoë K.: Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "Ann: Hey\n\nAnn: You"},
    ]


def refusing(name: str, instead: str = "") -> Script:
    message = f"Unsupported parameter: '{name}' is not supported with this model. {instead}"
    error = {"message": message, "param": name, "code": "unsupported_parameter"}
    return refused(400, json.dumps({"error": error}).encode())


async def test_learns_what_a_model_refuses() -> None:
    first = refusing("max_tokens", "Use 'max_completion_tokens' instead.")
    asked = await bodies(first, refusing("temperature"), ANSWER, times=2)
    assert len(asked) == 4
    assert [("max_tokens" in body, "temperature" in body) for body in asked] == [
        (True, True),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert asked[1]["max_completion_tokens"] == asked[3]["max_completion_tokens"] == 1024


async def test_a_model_that_has_learned_nothing_is_asked_in_full() -> None:
    async with serving() as server:
        server.answer(refusing("temperature"), ANSWER)
        provider = DIALECT.provider(server.url)
        await all_of(provider, ASK.with_model("a"))
        await all_of(provider, ASK.with_model("b"))
        await provider.aclose()
    assert ["temperature" in asked.json for asked in server.asked] == [True, False, True]


async def test_gives_up_when_the_same_is_refused_again() -> None:
    async with serving() as server:
        server.answer(refusing("temperature"))
        provider = DIALECT.provider(server.url)
        assert (await error_of(provider))[1].fault == "refused"
        await provider.aclose()
    assert len(server.asked) == 2


async def test_a_wrong_value_is_no_refusal_of_the_parameter() -> None:
    async with serving() as server:
        server.answer(refused(400, DIALECT.error("max_tokens is too large: 9000")))
        provider = DIALECT.provider(server.url)
        assert (await error_of(provider))[1].fault == "refused"
        await provider.aclose()
    assert len(server.asked) == 1


async def test_stops_are_watched_for_where_they_are_refused() -> None:
    async with serving() as server:
        server.answer(
            refusing("stop"),
            streamed(DIALECT.text("Yes.\nBo"), DIALECT.text("b: No"), DIALECT.end()),
        )
        provider = DIALECT.provider(server.url)
        texts, usage = await all_of(provider, evolve(ASK, stop=("\nBob:",)))
        await provider.aclose()
    assert "".join(texts) == "Yes."
    assert usage.finish == "stop"
    assert "stop" not in server.asked[1].json


async def test_no_more_stops_are_sent_than_are_taken() -> None:
    [body] = await bodies(ANSWER, request=evolve(ASK, stop=tuple("ABCDEFG")))
    assert body["stop"] == list("ABCD")


@pytest.mark.parametrize(
    "model", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5.2-pro", "gpt-12"]
)
def test_openai_names_of_thinking_models(model: str) -> None:
    from llm.openai import THINKING

    assert THINKING.match(model)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "omni", "llama3"])
def test_openai_names_of_other_models(model: str) -> None:
    from llm.openai import THINKING

    assert not THINKING.match(model)


def test_thinking_models_of_openai_get_their_own_parameters() -> None:
    from llm.openai import chat

    ask = chat(ASK, "o3", frozenset({"max_tokens", "temperature"}))
    body = ask.body(frozenset())
    assert body["max_completion_tokens"] == 1024
    assert not {"max_tokens", "temperature"} & body.keys()


async def test_thinking_is_a_sign_of_work(autojump_clock: object) -> None:
    """A model that thinks for longer than a first text may take is not stalled."""
    import trio

    thought = chunk(delta(reasoning_content="Hm."))
    async with serving() as server:
        server.answer((head(), thought, Do.STALL))
        provider = DIALECT.provider(server.url, Timeouts(first=5, between=60))
        start = trio.current_time()
        assert (await error_of(provider))[1].fault == "stalled"
        assert trio.current_time() - start == pytest.approx(60, abs=1)
        await provider.aclose()


async def test_no_credit_is_a_matter_of_the_key() -> None:
    async with serving() as server:
        server.answer(refused(429, DIALECT.error("You exceeded", code="insufficient_quota")))
        provider = DIALECT.provider(server.url)
        assert (await error_of(provider))[1].fault == "key"
        await provider.aclose()


async def test_a_reply_without_done_is_whole_once_its_end_was_told() -> None:
    async with serving() as server:
        server.answer(streamed(DIALECT.text("Yes"), delta("stop")))
        provider = DIALECT.provider(server.url)
        assert (await all_of(provider))[0] == ["Yes"]
        await provider.aclose()


async def test_garbage_after_the_end_does_no_harm() -> None:
    async with serving() as server:
        server.answer(streamed(DIALECT.text("Yes"), delta("stop"), b"data: {oh\n\n"))
        provider = DIALECT.provider(server.url)
        assert (await all_of(provider))[0] == ["Yes"]
        await provider.aclose()
