"""Anthropic's messages.

Source: https://docs.anthropic.com/en/api/messages and .../messages-streaming
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import msgspec
from attrs import define

from llm.faults import Report, ReportedError
from llm.provider import ChatMessage, Finish, Item, Request, Timeouts
from llm.reply import Reading
from llm.transport import Kind
from llm.upstream import Ask, Body, Upstream

OFFICIAL = "https://api.anthropic.com"
DEFAULT_MODEL = "claude-haiku-4-5"
VERSION = "2023-06-01"
MAX_TEMPERATURE = 1.0
OPENING = "(The conversation begins.)"  # stands where the API needs a user to speak first

# Newer models take no temperature; they tell by an error and are learned.
OPTIONAL = frozenset({"temperature", "stop_sequences"})

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "filter",
}


class Anthropic:
    """A Claude model."""

    name = "anthropic"
    demo = False

    def __init__(
        self,
        *,
        key: str,
        base_url: str = OFFICIAL,
        model: str = DEFAULT_MODEL,
        timeouts: Timeouts | None = None,
        transport: Kind = "fast",
    ) -> None:
        """Build it; nothing is sent yet. The base URL may end with `/v1` or not.

        Raises:
            SetupError: the base URL is none.

        """
        self.model = model
        self._upstream = Upstream(
            base_url.rstrip("/").removesuffix("/v1"),
            who="Anthropic",
            headers={"x-api-key": key, "anthropic-version": VERSION},
            secret=key,
            timeouts=timeouts,
            transport=transport,
        )

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Ask; see `llm.provider`."""
        model = request.model or self.model
        ask = Ask(
            path="v1/messages",
            body=lambda refused: _body(request.asking_to_go_on, model, refused),
            reading=MessageReading(model),
            optional=OPTIONAL,
            stops=request.stop,
        )
        return self._upstream.stream(ask)

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        await self._upstream.aclose()


def _body(request: Request, model: str, refused: frozenset[str]) -> Body:
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    body: Body = {
        "model": model,
        "messages": turns(request.messages),
        "max_tokens": request.max_tokens,
        "temperature": min(request.temperature, MAX_TEMPERATURE),
        "stream": True,
    }
    if system.strip():
        body["system"] = system
    if stops := [stop for stop in request.stop if stop.strip()]:  # blank ones are refused
        body["stop_sequences"] = stops
    return {name: value for name, value in body.items() if name not in refused}


def turns(messages: tuple[ChatMessage, ...]) -> list[dict[str, str]]:
    """Make user and assistant take turns, the user first, as the API wants it.

    Blank messages, which it refuses, are left out; neighbours of one role become one. White
    space at the end of a reply that is to be continued is refused as well.
    """
    found = [{"role": "user", "content": OPENING}]
    for message in messages:
        if message.role == "system" or not message.content.strip():
            continue
        if message.role == found[-1]["role"]:
            found[-1]["content"] += f"\n\n{message.said}"
        else:
            found.append({"role": message.role, "content": message.said})
    return _without_needless_opening(found)


def _without_needless_opening(found: list[dict[str, str]]) -> list[dict[str, str]]:
    rest = found[0]["content"].removeprefix(OPENING).lstrip("\n")
    if rest:
        found[0]["content"] = rest
    if found[-1]["role"] == "assistant":
        found[-1]["content"] = found[-1]["content"].rstrip()
    return found


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: _Counts | None = None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    delta: _Delta | None = None
    content_block: _Delta | None = None
    message: _Message | None = None
    usage: _Counts | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Event).decode


@define
class MessageReading(Reading):
    """Reads the events from `message_start` to `message_stop`; unknown ones are passed over."""

    def feed(self, event: bytes) -> str | None:
        """Take in one event; see `Reading`."""
        found = _decode(event)
        match found.type:
            case "content_block_delta":
                return (found.delta and found.delta.text) or ""
            case "content_block_start":
                return (found.content_block and found.content_block.text) or ""
            case "message_start" if found.message is not None:
                self.model = found.message.model or self.model
                self._count(found.message.usage)
            case "message_delta":
                self._finish(found.delta)
                self._count(found.usage)
            case "message_stop":
                self.ended = True
            case "error":
                error = found.error or _Error()
                raise ReportedError(Report(kind=error.type, message=error.message))
        return None

    def _finish(self, delta: _Delta | None) -> None:
        if delta is not None and delta.stop_reason:
            self.finish = FINISHES.get(delta.stop_reason, "unknown")

    def _count(self, counts: _Counts | None) -> None:
        """Take over totals so far; the prompt's are in three parts, by what was cached."""
        if counts is None:
            return
        if counts.input_tokens is not None:
            cached = (counts.cache_creation_input_tokens, counts.cache_read_input_tokens)
            self.input_tokens = counts.input_tokens + sum(part or 0 for part in cached)
        if counts.output_tokens is not None:
            self.output_tokens = counts.output_tokens
