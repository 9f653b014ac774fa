import json

import pytest
from attrs import evolve

from llm.anthropic import OPENING, Anthropic, turns
from llm.provider import ChatMessage, Provider, Request, Timeouts
from tests.contracts.providers import ASK, SECRET, Dialect, HttpProviderContract, all_of, error_of
from tests.llm.servers import event, refused, serving, streamed

FINISHES = {"stop": "end_turn", "length": "max_tokens", "filter": "refusal"}


def said(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, name=kind)


class MessagesDialect(Dialect):
    path = "/v1/messages"

    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider:
        return Anthropic(key=SECRET, base_url=url, model="c0", timeouts=timeouts)

    def text(self, text: str) -> bytes:
        return said("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def end(self, finish: str = "stop") -> bytes:
        reason = {"stop_reason": FINISHES[finish], "stop_sequence": None}
        counts = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5}
        closing = said("message_delta", delta=reason, usage=counts) + said("message_stop")
        return said("content_block_stop", index=0) + closing

    def error(self, message: str, kind: str = "", code: str | int = "") -> bytes:
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()

    def error_event(self) -> bytes:
        return said("error", error={"type": "overloaded_error", "message": "Overloaded"})

    def silent(self) -> bytes:
        usage = {"input_tokens": 7, "output_tokens": 1}
        start = said("message_start", message={"id": "1", "model": "c1", "usage": usage})
        return start + said("ping") + said("something_new", delta=None, message=None)

    def too_long(self) -> bytes:
        message = "prompt is too long: 300000 tokens > 200000 maximum"
        return self.error(message, "invalid_request_error")


class TestAnthropic(HttpProviderContract):
    dialect = MessagesDialect()


DIALECT = MessagesDialect()
ANSWER = streamed(DIALECT.silent(), *DIALECT.reply())


@pytest.mark.parametrize("base", ["", "/", "/v1"])
async def test_asks_as_the_api_has_it(base: str) -> None:
    messages = (
        ChatMessage("system", "Be kind."),
        ChatMessage("system", "Be short."),
        ChatMessage("user", "Hi", name="Ann"),
    )
    async with serving() as server:
        server.answer(ANSWER)
        provider = DIALECT.provider(server.url + base)
        request = Request(messages, temperature=1.7, stop=("\n", "\nBob:"))
        _, usage = await all_of(provider, request)
        await provider.aclose()
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/messages")
    assert asked.headers["x-api-key"] == SECRET
    assert asked.headers["anthropic-version"] == "2023-06-01"
    assert asked.json == {
        "model": "c0",
        "system": "Be kind.\n\nBe short.",
        "messages": [{"role": "user", "content": "Ann: Hi"}],
        "max_tokens": 1024,
        "temperature": 1.0,
        "stop_sequences": ["\nBob:"],
        "stream": True,
    }
    assert usage.model == "c1"


def roles(*messages: ChatMessage) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns(messages)]


def test_neighbours_of_one_role_become_one() -> None:
    assert roles(
        ChatMessage("user", "a", name="Ann"),
        ChatMessage("user", "b", name="Bob"),
        ChatMessage("assistant", "c"),
        ChatMessage("assistant", "d"),
        ChatMessage("user", "e"),
    ) == [("user", "Ann: a\n\nBob: b"), ("assistant", "c\n\nd"), ("user", "e")]


def test_the_user_speaks_first() -> None:
    assert roles(ChatMessage("assistant", "Hi"), ChatMessage("user", "Ho")) == [
        ("user", OPENING),
        ("assistant", "Hi"),
        ("user", "Ho"),
    ]
    assert roles(ChatMessage("system", "Rules")) == [("user", OPENING)]


def test_blank_messages_are_left_out_and_a_reply_to_go_on_with_ends_in_a_word() -> None:
    assert roles(
        ChatMessage("user", " \n"), ChatMessage("user", "a"), ChatMessage("assistant", "b \n")
    ) == [("user", "a"), ("assistant", "b")]


async def test_learns_that_a_model_takes_no_temperature() -> None:
    error = DIALECT.error("`temperature` is deprecated for this model.", "invalid_request_error")
    async with serving() as server:
        server.answer(refused(400, error), ANSWER)
        provider = DIALECT.provider(server.url)
        await all_of(provider)
        await all_of(provider)
        await provider.aclose()
    assert ["temperature" in asked.json for asked in server.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "busy"),
        ("api_error", "broken"),
        ("authentication_error", "key"),
        ("request_too_large", "too_long"),
        ("never_heard_of_it", "broken"),
    ],
)
async def test_errors_in_the_stream_are_told_apart(kind: str, fault: str) -> None:
    async with serving() as server:
        server.answer(streamed(said("error", error={"type": kind, "message": "no"})))
        provider = DIALECT.provider(server.url)
        assert (await error_of(provider, evolve(ASK)))[1].fault == fault
        await provider.aclose()
