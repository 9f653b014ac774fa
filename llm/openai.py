"""OpenAI's chat completions, and all servers that speak the same: Ollama, vLLM, LM Studio.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import msgspec
from attrs import define

from llm.faults import ReportedError, report_of
from llm.provider import Finish, Item, Request, Timeouts
from llm.reply import Reading
from llm.transport import Kind
from llm.upstream import Ask, Body, Upstream

OFFICIAL = "https://api.openai.com/v1"
DEFAULT_MODEL = "gpt-4o-mini"
MAX_STOPS = 4  # of OpenAI; compatible servers take as many, or more

# The models that think first (o1, o3, o4-mini, gpt-5 and on) name the limit otherwise, and
# take no temperature. A model that this does not know tells by an error and is learned.
THINKING = re.compile(r"(o\d|gpt-([5-9]|\d\d))")
OPTIONAL = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "stop", "stream_options"}
)

FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "filter",
}


class OpenAI:
    """A model behind chat completions. The key is optional where a base URL of one's own is set."""

    name = "openai"
    demo = False

    def __init__(
        self,
        *,
        key: str = "",
        base_url: str = OFFICIAL,
        model: str = DEFAULT_MODEL,
        timeouts: Timeouts | None = None,
        transport: Kind = "fast",
    ) -> None:
        """Build it; nothing is sent yet.

        Raises:
            SetupError: the base URL is none.

        """
        self.model = model
        self._official = base_url.rstrip("/") == OFFICIAL
        self._upstream = Upstream(
            base_url,
            who="OpenAI" if self._official else "the model's server",
            headers={"authorization": f"Bearer {key}"} if key else {},
            secret=key,
            timeouts=timeouts,
            transport=transport,
        )

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Ask; see `llm.provider`."""
        model = request.model or self.model
        renamed = self._official and THINKING.match(model) is not None
        known = frozenset({"max_tokens", "temperature"}) if renamed else frozenset()
        return self._upstream.stream(chat(request.asking_to_go_on, model, known))

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        await self._upstream.aclose()


def chat(request: Request, model: str, known: frozenset[str] = frozenset()) -> Ask:
    """Put the question as chat completions have it; `known` are parameters not to send."""
    return Ask(
        path="chat/completions",
        body=lambda refused: _body(request, model, refused | known),
        reading=ChatReading(model),
        optional=OPTIONAL - known,
        stops=request.stop,
    )


def _body(request: Request, model: str, refused: frozenset[str]) -> Body:
    body: Body = {
        "messages": [{"role": m.role, "content": m.said} for m in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": request.temperature,
    }
    if model:
        body["model"] = model
    if request.stop:
        body["stop"] = request.stop[:MAX_STOPS]
    if "max_completion_tokens" not in refused and "max_tokens" in refused:
        body["max_completion_tokens"] = request.max_tokens
    elif "max_tokens" not in refused:
        body["max_tokens"] = request.max_tokens
    return {name: value for name, value in body.items() if name not in refused}


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Counts | None = None
    error: object = None


_decode = msgspec.json.Decoder(_Event).decode


@define
class ChatReading(Reading):
    """Reads `chat.completion.chunk` events up to `[DONE]`."""

    def feed(self, event: bytes) -> str | None:
        """Take in one event; see `Reading`."""
        if event.strip() == b"[DONE]":
            self.ended = True
            return None
        chunk = _decode(event)
        if chunk.error is not None:
            raise ReportedError(report_of(chunk.error))
        if chunk.model:
            self.model = chunk.model
        if chunk.usage is not None:
            self.input_tokens = chunk.usage.prompt_tokens
            self.output_tokens = chunk.usage.completion_tokens
        return self._choice(chunk.choices[0]) if chunk.choices else None

    def _choice(self, choice: _Choice) -> str | None:
        if choice.finish_reason:
            self.finish = FINISHES.get(choice.finish_reason, "unknown")
        delta = choice.delta
        if delta is None:
            return None
        if delta.content:
            return delta.content
        return "" if delta.reasoning_content or delta.reasoning else None
