"""A llama.cpp server.

Questions go to its chat endpoint, `/v1/chat/completions`: the server puts them into the
model's own template, keeps the model's thinking apart, and it takes one round trip. Where
that endpoint is missing (old servers, and those that speak only `/completion`), the native
`/completion` is asked, with the prompt from `/apply-template`, or, where that is missing
too, written plainly as a dialogue.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import PurePath
from typing import TypeAlias

import msgspec
import trio
from attrs import define, evolve

from llm.faults import ReportedError, report_of
from llm.openai import ChatReading, chat
from llm.provider import Finish, Item, ModelError, Request, Timeouts
from llm.reply import DECODE_ERRORS, Reading
from llm.transport import Kind
from llm.upstream import Ask, Body, Upstream

DEFAULT_MODEL = "llama.cpp"
HEALTH_POLL = 0.25  # s; a model is loaded in one second to a few minutes

FINISHES: dict[str, Finish] = {"eos": "stop", "word": "stop", "limit": "length"}
ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}

Stream: TypeAlias = AbstractAsyncContextManager[AsyncIterator[Item]]


class LlamaCpp:
    """The model of a llama.cpp server; `base_url` is the server's, with or without `/v1`."""

    name = "llamacpp"
    demo = False

    def __init__(
        self,
        *,
        base_url: str,
        key: str = "",
        model: str = "",
        timeouts: Timeouts | None = None,
        transport: Kind = "fast",
    ) -> None:
        """Build it; nothing is sent yet.

        Args:
            base_url: of the server.
            key: what it was started with as `--api-key`, if it was.
            model: for servers that hold several; else what to call the one.
            timeouts: how long to wait.
            transport: what carries the requests.

        Raises:
            SetupError: the base URL is none.

        """
        self.model = model or DEFAULT_MODEL
        self._asked_model = model
        self._native = False
        self._upstream = Upstream(
            base_url.rstrip("/").removesuffix("/v1"),
            who="the model's server",
            headers={"authorization": f"Bearer {key}"} if key else {},
            secret=key,
            timeouts=timeouts,
            transport=transport,
        )

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        """Ask; see `llm.provider`. A model that is still being loaded is waited for."""
        async with AsyncExitStack() as stack:
            try:
                items = await stack.enter_async_context(await self._put(request))
            except ModelError as error:
                if not await self._is_worth_another(error):
                    raise
                items = await stack.enter_async_context(await self._put(request))
            yield items

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        await self._upstream.aclose()

    async def _put(self, request: Request) -> Stream:
        ask = await self._native_ask(request) if self._native else self._chat_ask(request)
        return self._upstream.stream(ask)

    async def _is_worth_another(self, error: ModelError) -> bool:
        if error.fault == "not_found" and not self._native:
            self._native = await self._has_completion()
            return self._native
        if error.status == 503 and "loading" in error.detail.lower():
            return await self._is_loaded()
        return False

    async def _is_loaded(self) -> bool:
        """Wait for the model, as long as for a first text."""
        with trio.move_on_after(self._upstream.timeouts.first):
            while True:
                try:
                    await self._upstream.call("GET", "health")
                except ModelError as error:
                    if error.status != 503:
                        return False
                else:
                    return True
                await trio.sleep(HEALTH_POLL)
        return False

    async def _has_completion(self) -> bool:
        """Whether the server speaks `/completion`: it does not say 404 to an empty question."""
        try:
            await self._upstream.call("POST", "completion", {"prompt": "", "n_predict": 0})
        except ModelError as error:
            return error.fault != "not_found"
        return True

    def _chat_ask(self, request: Request) -> Ask:
        model = request.model or self._asked_model
        ask = chat(request, model)
        return evolve(
            ask,
            path="v1/chat/completions",
            reading=_FileModelReading(model or self.model),
        )

    async def _native_ask(self, request: Request) -> Ask:
        body: Body = {
            "prompt": await self._templated(request),
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "stop": request.stop,
            "stream": True,
            "cache_prompt": True,
        }
        return Ask(
            path="completion",
            body=lambda _: body,
            reading=CompletionReading(request.model or self.model),
            stops=request.stop,
        )

    async def _templated(self, request: Request) -> str:
        messages = [{"role": m.role, "content": m.said} for m in request.messages]
        try:
            answer = await self._upstream.call("POST", "apply-template", {"messages": messages})
            return _decode_template(answer).prompt
        except ModelError as error:
            if error.fault != "not_found":
                raise
        except DECODE_ERRORS as error:
            raise self._upstream.fault("garbled", repr(error)) from error
        return plain_dialogue(request)


def plain_dialogue(request: Request) -> str:
    """Write the prompt so that any model goes on with the assistant's next words."""
    lines = [f"{ROLES[m.role]}: {m.said}" for m in request.messages]
    goes_on = bool(request.messages) and request.messages[-1].role == "assistant"
    return "\n".join(lines if goes_on else [*lines, f"{ROLES['assistant']}:"])


def _file_name(model: str) -> str:
    """Shorten a path, which is what a llama.cpp calls its model: folders are nobody's business."""
    return PurePath(model).name.removesuffix(".gguf") if model.endswith(".gguf") else model


@define
class _FileModelReading(ChatReading):
    def feed(self, event: bytes) -> str | None:
        text = super().feed(event)
        self.model = _file_name(self.model)
        return text


class _Template(msgspec.Struct):
    prompt: str


class _Event(msgspec.Struct):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    stopped_limit: bool = False  # what older servers say instead of `stop_type`
    model: str | None = None
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None
    error: object = None
    message: str | None = None  # early servers send their errors bare
    code: int | None = None


_decode_template = msgspec.json.Decoder(_Template).decode
_decode = msgspec.json.Decoder(_Event).decode


@define
class CompletionReading(Reading):
    """Reads the events of `/completion` up to the one that says `stop`."""

    def feed(self, event: bytes) -> str | None:
        """Take in one event; see `Reading`."""
        if event.strip() == b"[DONE]":
            self.ended = True
            return None
        found = _decode(event)
        if found.error is not None or found.message is not None:
            raise ReportedError(report_of(msgspec.json.decode(event)))
        if found.stop:
            self._end(found)
        return found.content or None

    def _end(self, found: _Event) -> None:
        self.ended = True
        limit: Finish = "length" if found.stopped_limit else "stop"
        self.finish = FINISHES.get(found.stop_type, limit)
        self.model = _file_name(found.model or self.model)
        self.input_tokens = found.tokens_evaluated
        self.output_tokens = found.tokens_predicted
