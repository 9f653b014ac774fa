"""What every provider promises (`llm.provider`), and what those over HTTP promise besides.

A provider's tests derive from one of the classes and say how to make one that answers.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from attrs import evolve

from llm.provider import Answering, Item, ModelError, Provider, Request, Timeouts, Usage
from tests.llm.servers import (
    LAST_CHUNK,
    Do,
    Script,
    Server,
    chunk,
    head,
    refused,
    serving,
    streamed,
)

TEXTS = ("Grüße", " aus", " dem Wald 🌲", ", sagt", " die 🦉.")
REPLY = "".join(TEXTS)
ASK = Request.of("Who lives in the wood?")
SECRET = "sk-very-secret-5678"


async def all_of(provider: Provider, request: Request = ASK) -> tuple[list[str], Usage]:
    """The texts of a whole reply, and its usage; the reply must be as the contract has it."""
    items: list[Item] = []
    async with provider.stream(request) as stream:
        async for item in stream:
            items.append(item)  # noqa: PERF401  so that an error leaves them visible
    if isinstance(items[0], Answering):
        items.pop(0)
    *texts, usage = items
    assert isinstance(usage, Usage)
    assert all(isinstance(text, str) and text for text in texts), texts
    return [text for text in texts if isinstance(text, str)], usage


async def error_of(provider: Provider, request: Request = ASK) -> tuple[str, ModelError]:
    """The text that came, and the error that came then."""
    text = ""
    with pytest.raises(ModelError) as caught:
        async with provider.stream(request) as stream:
            async for item in stream:
                if not isinstance(item, Answering):
                    assert isinstance(item, str)
                    text += item
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert SECRET not in sentence + caught.value.detail
    return text, caught.value


async def first_text(items: AsyncIterator[Item]) -> Item:
    """The first item that is not about who answers."""
    while isinstance(item := await anext(items), Answering):
        pass
    return item


class ProviderContract(ABC):
    """For all: `answering` makes a provider whose reply has at least three texts."""

    demo = False

    @abstractmethod
    def answering(self) -> AbstractAsyncContextManager[Provider]: ...

    async def test_texts_come_first_and_usage_last(self) -> None:
        async with self.answering() as provider:
            texts, usage = await all_of(provider)
            assert len(texts) >= 3
            assert usage.model
            assert usage.finish == "stop"
            assert usage.seconds is not None
            assert usage.seconds_to_first is not None
            assert 0 <= usage.seconds_to_first <= usage.seconds

    async def test_says_what_it_is(self) -> None:
        async with self.answering() as provider:
            assert provider.name
            assert provider.model
            assert provider.demo is self.demo

    async def test_leaving_in_the_middle_is_fine(self) -> None:
        async with self.answering() as provider:
            async with provider.stream(ASK) as items:
                async for _ in items:
                    break
            assert len((await all_of(provider))[0]) >= 3

    async def test_leaving_at_once_is_fine(self) -> None:
        async with self.answering() as provider, provider.stream(ASK):
            pass

    async def test_cancelled_in_the_middle_is_fine(self) -> None:
        async with self.answering() as provider:
            with trio.CancelScope() as scope:
                async with provider.stream(ASK) as items:
                    async for _ in items:
                        scope.cancel()
            assert scope.cancelled_caught

    async def test_an_error_of_the_listener_goes_through(self) -> None:
        async with self.answering() as provider:
            with pytest.raises(ZeroDivisionError):
                async with provider.stream(ASK) as items:
                    async for _ in items:
                        raise ZeroDivisionError

    async def test_answers_several_at_once(self) -> None:
        async with self.answering() as provider, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(all_of, provider)

    async def test_stops_before_a_stop_text(self) -> None:
        async with self.answering() as provider:
            whole = "".join((await all_of(provider))[0])
            stop = whole[10:14]
            texts, usage = await all_of(provider, evolve(ASK, stop=(stop,)))
            assert stop not in "".join(texts)
            assert usage.finish == "stop"

    async def test_is_closed_twice(self) -> None:
        async with self.answering() as provider:
            await provider.aclose()
            await provider.aclose()


class Dialect(ABC):
    """How one protocol says what all of them say."""

    path: str

    @abstractmethod
    def provider(self, url: str, timeouts: Timeouts | None = None) -> Provider: ...

    @abstractmethod
    def text(self, text: str) -> bytes:
        """An event that carries a text."""

    @abstractmethod
    def end(self, finish: str = "stop") -> bytes:
        """The events that end a reply, with 7 tokens in and 5 out."""

    @abstractmethod
    def error(self, message: str, kind: str = "", code: str | int = "") -> bytes:
        """The body of an answer that is an error."""

    @abstractmethod
    def error_event(self) -> bytes:
        """An event that says the model is overloaded."""

    @abstractmethod
    def silent(self) -> bytes:
        """Events that carry nothing and mean no harm."""

    @abstractmethod
    def too_long(self) -> bytes:
        """The body of the 400 that says that the prompt is too long."""

    def reply(self, texts: Sequence[str] = TEXTS) -> list[bytes]:
        return [*map(self.text, texts), self.end()]


STATUSES = [
    (401, "key"),
    (403, "key"),
    (404, "not_found"),
    (422, "refused"),
    (429, "busy"),
    (500, "broken"),
    (502, "broken"),
    (503, "overloaded"),
    (504, "broken"),
    (529, "overloaded"),
    (301, "not_found"),
]


class HttpProviderContract(ProviderContract):
    """For those that ask over HTTP."""

    dialect: Dialect

    @asynccontextmanager
    async def asking(
        self, timeouts: Timeouts | None = None
    ) -> AsyncIterator[tuple[Server, Provider]]:
        async with serving() as server:
            provider = self.dialect.provider(server.url, timeouts)
            yield server, provider
            await provider.aclose()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[Provider]:
        async with self.asking() as (server, provider):
            server.answer(streamed(*self.dialect.reply()))
            yield provider

    async def text_of(self, *pieces: bytes) -> tuple[list[str], Usage]:
        async with self.asking() as (server, provider):
            server.answer(streamed(*pieces))
            return await all_of(provider)

    async def failing(self, *script: bytes | Do) -> tuple[str, ModelError]:
        async with self.asking() as (server, provider):
            server.answer(script)
            return await error_of(provider)

    async def test_gives_the_very_text_and_the_counts(self) -> None:
        texts, usage = await self.text_of(*self.dialect.reply())
        assert texts == list(TEXTS)
        assert (usage.input_tokens, usage.output_tokens) == (7, 5)

    async def test_a_reply_of_no_text_is_a_reply(self) -> None:
        assert (await self.text_of(self.dialect.end()))[0] == []

    @pytest.mark.parametrize(
        ("said", "meant"), [("stop", "stop"), ("length", "length"), ("filter", "filter")]
    )
    async def test_says_why_it_ended(self, said: str, meant: str) -> None:
        _, usage = await self.text_of(self.dialect.text("x"), self.dialect.end(said))
        assert usage.finish == meant

    async def test_events_of_one_read_are_one_item(self) -> None:
        texts, _ = await self.text_of(b"".join(self.dialect.reply()))
        assert texts == [REPLY]

    @pytest.mark.parametrize("size", [1, 2, 7])
    async def test_pieces_may_be_split_anywhere(self, size: int) -> None:
        whole = b"".join(self.dialect.reply(TEXTS[2:]))
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        texts, usage = await self.text_of(*pieces)
        assert "".join(texts) == "".join(TEXTS[2:])
        assert usage.output_tokens == 5

    @pytest.mark.parametrize("end", [b"\r\n", b"\r"])
    @pytest.mark.parametrize("size", [3, 10_000])
    async def test_all_line_ends_are_line_ends(self, end: bytes, size: int) -> None:
        whole = b"".join(self.dialect.reply()).replace(b"\n", end)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert "".join((await self.text_of(*pieces))[0]) == REPLY

    async def test_comments_pings_and_emptiness_are_passed_over(self) -> None:
        silent = b": keep-alive\n\n" + self.dialect.silent() + b"retry: 3\n\n\n\n"
        pieces = [piece for event in self.dialect.reply() for piece in (silent, event)]
        texts, usage = await self.text_of(b"\xef\xbb\xbf" + pieces[0], *pieces[1:])
        assert texts == list(TEXTS)
        assert usage.output_tokens == 5

    async def test_the_last_empty_line_may_be_missing(self) -> None:
        *texts, end = self.dialect.reply()
        assert "".join((await self.text_of(*texts, end.rstrip(b"\n")))[0]) == REPLY

    @pytest.mark.parametrize(("status", "fault"), STATUSES)
    async def test_a_status_is_a_fault(self, status: int, fault: str) -> None:
        body = self.dialect.error(f"No: {SECRET}")
        text, error = await self.failing(*refused(status, body))
        assert (text, error.fault, error.status) == ("", fault, status)
        assert error.retry_after is None

    async def test_a_busy_model_says_when_to_come_back(self) -> None:
        script = refused(429, self.dialect.error("slow down"), retry_after="17")
        _, error = await self.failing(*script)
        assert error.retry_after == 17
        assert "17 s" in str(error)

    async def test_a_prompt_that_is_too_long_is_told_apart(self) -> None:
        _, error = await self.failing(*refused(400, self.dialect.too_long()))
        assert error.fault == "too_long"

    @pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"\xff\xfe", b"[" * 60_000, b"1"])
    async def test_an_error_may_be_anything(self, body: bytes) -> None:
        script: Script = (head(400), chunk(body) if body else b"", LAST_CHUNK)
        assert (await self.failing(*script))[1].fault == "refused"

    async def test_an_error_of_any_length_is_read_only_so_far(self) -> None:
        script: Script = (head(500), *[chunk(b"x" * 30_000)] * 5, Do.STALL)
        assert (await self.failing(*script))[1].fault == "broken"

    async def test_an_error_in_the_stream_comes_after_the_text_before_it(self) -> None:
        piece = self.dialect.text("Half") + self.dialect.error_event()
        text, error = await self.failing(*streamed(piece))
        assert (text, error.fault) == ("Half", "overloaded")

    async def test_nobody_there_is_unreachable(self) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        provider = self.dialect.provider(f"http://127.0.0.1:{port}")
        assert (await error_of(provider))[1].fault == "unreachable"
        await provider.aclose()

    async def test_a_reset_before_the_head_is_unreachable(self) -> None:
        assert (await self.failing(Do.RESET))[1].fault == "unreachable"

    async def test_a_reset_before_the_text_is_unreachable(self) -> None:
        _, error = await self.failing(head(), chunk(self.dialect.silent()), Do.RESET)
        assert error.fault == "unreachable"

    async def test_a_reset_in_the_middle_is_a_cut(self) -> None:
        text, error = await self.failing(head(), chunk(self.dialect.text("Half")), Do.RESET)
        assert (text, error.fault) == ("Half", "cut")

    async def test_a_stream_that_just_ends_is_a_cut(self) -> None:
        text, error = await self.failing(*streamed(self.dialect.text("Half")))
        assert (text, error.fault) == ("Half", "cut")

    async def test_a_stream_that_ends_within_an_event_is_a_cut(self) -> None:
        half = self.dialect.text("more")[:-9]
        text, error = await self.failing(*streamed(self.dialect.text("Half"), half))
        assert (text, error.fault) == ("Half", "cut")

    async def test_a_connection_that_closes_in_the_middle_is_a_cut(self) -> None:
        text, error = await self.failing(head(), chunk(self.dialect.text("Half")))
        assert (text, error.fault) == ("Half", "cut")

    async def test_silence_before_the_head_is_bounded(self, autojump_clock: object) -> None:
        start = trio.current_time()
        assert (await self.failing(Do.STALL))[1].fault == "stalled"
        assert trio.current_time() - start == pytest.approx(Timeouts().first, abs=1)

    async def test_silence_before_the_text_is_bounded(self, autojump_clock: object) -> None:
        start = trio.current_time()
        _, error = await self.failing(head(), chunk(self.dialect.silent()), Do.STALL)
        assert error.fault == "stalled"
        assert trio.current_time() - start == pytest.approx(Timeouts().first, abs=1)

    async def test_silence_in_the_middle_is_bounded(self, autojump_clock: object) -> None:
        start = trio.current_time()
        text, error = await self.failing(head(), chunk(self.dialect.text("Half")), Do.STALL)
        assert (text, error.fault) == ("Half", "stalled")
        assert trio.current_time() - start == pytest.approx(Timeouts().between, abs=1)

    async def test_a_whole_reply_needs_no_end_of_the_stream(self, autojump_clock: object) -> None:
        async with self.asking() as (server, provider):
            server.answer((head(), *map(chunk, self.dialect.reply()), Do.STALL))
            texts, _ = await all_of(provider)
            assert texts == list(TEXTS)

    async def test_leaving_closes_the_connection_at_once(self) -> None:
        async with self.asking() as (server, provider):
            server.answer((head(), chunk(self.dialect.text("Half")), Do.STALL))
            async with provider.stream(ASK) as items:
                assert await first_text(items) == "Half"
                await server.stalled.wait()
                assert server.open == 1
            await server.all_closed()

    async def test_being_cancelled_while_it_waits_closes_the_connection(self) -> None:
        async with self.asking() as (server, provider):
            server.answer((Do.STALL,))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(all_of, provider)
                await server.stalled.wait()
                nursery.cancel_scope.cancel()
            await server.all_closed()

    @pytest.mark.parametrize(
        "garbage",
        [
            b"data: {not json}\n\n",
            b'data: {"choices": 7, "type": 8, "content": 9}\n\n',
            b"data: \xff\xfe\xfd\n\n",
            b"data: " + b"[" * 100_000 + b"\n\n",
            b"<html><body>Welcome to the hotel's network</body></html>",
            b"x" * 300_000,
        ],
    )
    async def test_garbage_is_no_reply(self, garbage: bytes) -> None:
        assert (await self.failing(*streamed(garbage)))[1].fault == "garbled"

    @pytest.mark.parametrize(
        "garbage", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"\x15\x03\x01\x00\x02\x02F"]
    )
    async def test_what_is_not_http_is_no_reply(self, garbage: bytes) -> None:
        assert (await self.failing(garbage, Do.STALL))[1].fault == "garbled"

    async def test_bad_chunks_are_no_reply(self) -> None:
        half = chunk(self.dialect.text("Half"))
        text, error = await self.failing(head(), half, b"zzz\r\n", Do.STALL)
        assert (text, error.fault) == ("Half", "garbled")
