"""What a provider is: one method that streams a reply and ends with what it took.

    async with provider.stream(request) as items:
        async for item in items:
            match item:
                case str(): ...       # text to append, never empty
                case Queued(): ...    # waiting for the model; only the gateway says this
            case Resting(): ...   # no more calls for a while; only real providers say it
            case Answering(): ... # who answers, before the first text; only the gateway
                case Usage(): ...     # always the last item of a reply that came to its end

Leaving the ``async with`` closes the upstream response at once, whatever the reason,
and a model behind it stops generating. All that can go wrong is a `ModelError`.
Who reads the items passes over kinds that it does not know.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from attrs import evolve, field, frozen

Role: TypeAlias = Literal["system", "user", "assistant"]


@frozen
class ChatMessage:
    """One message of a prompt; `name` is who speaks, for prompts with several speakers."""

    role: Role
    content: str
    name: str | None = None

    @property
    def said(self) -> str:
        """The text as a model gets it: what a named user says begins with `Name: `.

        Where it does already, because whoever made the prompt wrote it so, it stays as it is.

        Names travel in the text, with every provider. Fields for names are ignored by some
        servers, refused by others, and take only a few ASCII letters with OpenAI. What the
        model itself said stays bare, or it would begin its replies by its own name.
        """
        if self.role != "user" or not self.name:
            return self.content
        label = f"{' '.join(self.name.split())}:"
        return self.content if self.content.startswith(label) else f"{label} {self.content}"


GO_ON = (
    "(Your last message broke off. Go on exactly where it ends, as if it had not: begin with the"
    " very next characters, with a space if one belongs there. Repeat nothing, add no remark.)"
)


@frozen
class Request:
    """All that a model is asked.

    Attributes:
        messages: the prompt, oldest first; system messages come first. Where the last one is
            the assistant's, the reply is to go on from its end.
        model: overrides the provider's own model.
        max_tokens: the most tokens that the reply may have.
        temperature: 0 (always the likeliest token) to 2.
        stop: texts that end the reply when the model writes them; not part of the reply.
        asker: an opaque id of who asked, for fair shares and budgets.
        place: an opaque id of where it was asked, for budgets.
        private: a whisper: its reply is never kept in a cache or shared.
        fresh: another reply than the one that is known is wanted.

    """

    messages: tuple[ChatMessage, ...]
    model: str | None = None
    max_tokens: int = 1024
    temperature: float = 0.8
    stop: tuple[str, ...] = ()
    asker: str = ""
    private: bool = False
    place: str = ""
    fresh: bool = False

    @classmethod
    def of(cls, prompt: str, *, asker: str = "") -> "Request":
        """One user message and nothing else: no history, no system text."""
        return cls(messages=(ChatMessage("user", prompt),), asker=asker)

    @property
    def prompt(self) -> str:
        """The newest text of a user, without a name; empty if there is none."""
        texts = (message.content for message in reversed(self.messages) if message.role == "user")
        return next(texts, "")

    @property
    def asking_to_go_on(self) -> "Request":
        """The same, with a user's message last: for servers that begin anew where there is none.

        OpenAI's do, and those of Anthropic's newer models refuse it (its "Prefill" page).
        """
        if not self.messages or self.messages[-1].role != "assistant":
            return self
        return evolve(self, messages=(*self.messages, ChatMessage("user", GO_ON)))

    def with_model(self, model: str) -> "Request":
        """Ask `model` the same."""
        return evolve(self, model=model)


@frozen
class Queued:
    """The call waits for its turn at the model; `position` 1 is next."""

    position: int


@frozen
class Resting:
    """The model takes no more calls for so many seconds: with this one a limit is used up."""

    seconds: float


@frozen
class Answering:
    """Who answers: with several models, or a stand-in, it is known only when text comes.

    Attributes:
        model: what the owner calls the model.
        provider: its `Provider.name`.
        demo: this reply is made up, whatever `Provider.demo` says; it has to be marked.

    """

    model: str
    provider: str
    demo: bool


Finish: TypeAlias = Literal["stop", "length", "filter", "unknown"]


@frozen
class Usage:
    """What a reply took; counts are None where the model did not tell.

    Attributes:
        model: the model that answered, as it names itself.
        input_tokens, output_tokens: as counted by the model.
        finish: why it ended: by itself, at `max_tokens`, or cut by the model's content filter.
        seconds_to_first: from asking to the first text.
        seconds: from asking to the end.
        cached: the reply came from the gateway's cache.
        cost: in the currency of the owner's prices, where they and the counts are known.

    """

    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish = "stop"
    seconds_to_first: float | None = None
    seconds: float | None = None
    cached: bool = False
    cost: float | None = None


Item: TypeAlias = str | Queued | Resting | Answering | Usage

Sink: TypeAlias = Callable[[str], bool]
"""Takes a text at once, without waiting; whether it takes more."""


async def pour(items: AsyncIterator[Item], sink: Sink) -> None:
    """Give texts that come next to `sink`, by plain calls from whichever task has them.

    A task that is woken for each token costs more than all that is done with the token. So
    some iterators have a shorter way (a method like this function); others have none, and this
    returns at once. It may return at any time, and then one goes on with the iterator:

        async for item in items:
            if isinstance(item, str) and sink(item):
                await pour(items, sink)

    No deadline: what bounds the iterator bounds this. What the sink raises is raised here.
    """
    shorter = getattr(items, "pour", None)
    if shorter is not None:
        await shorter(sink)


class Provider(Protocol):
    """Something that answers: a cloud's model, a local one, the demo, a gateway over several."""

    @property
    def name(self) -> str:
        """What the provider is called in settings: `openai`, `llamacpp`, `demo` and so on."""

    @property
    def model(self) -> str:
        """The model that answers when a request names none."""

    @property
    def demo(self) -> bool:
        """True if replies are made up; they are then marked wherever they are shown or stored."""

    def stream(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Ask, and yield the reply as it comes; see the module's own text."""

    async def aclose(self) -> None:
        """Give back connections and child processes; idempotent."""


@runtime_checkable
class Several(Protocol):
    """What a provider over several models has besides."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models that a request may name; the first answers where it names none."""

    @property
    def demos(self) -> frozenset[str]:
        """Those of them whose replies are made up."""


def names_of(provider: Provider) -> tuple[str, ...]:
    """Return the names of the models that people may pick from, the usual one first."""
    return provider.names if isinstance(provider, Several) else (provider.model,)


def is_demo(provider: Provider, name: str | None) -> bool:
    """Whether the replies of the model with this name, or of the usual one, are made up."""
    if name is not None and isinstance(provider, Several):
        return name in provider.demos
    return provider.demo


Fault: TypeAlias = Literal[
    "key",  # 401, 403: the key is missing, wrong or may not do this
    "not_found",  # 404: no such model or address
    "refused",  # 400, 413, 422: the request itself is wrong
    "too_long",  # the prompt does not fit the model's context
    "policy",  # the model's provider refused the content
    "busy",  # 429: too many calls or tokens; `retry_after` may be known
    "overloaded",  # 503, 529: come back later
    "broken",  # 500, 502, 504 and other faults on the other side
    "unreachable",  # no connection, or it was reset before the first text
    "cut",  # the stream ended or was reset in the middle of a reply
    "stalled",  # nothing came for too long
    "garbled",  # what came is not the protocol
]


class ModelError(Exception):
    """A model did not answer; its text is a sentence that a person understands.

    Attributes:
        fault: what kind of trouble, for those who decide whether to try again.
        status: the HTTP status, where there was one.
        retry_after: seconds after which the other side wants to be asked again.
        detail: what the other side said, for the log only: never shown, it may hold secrets.

    """

    def __init__(
        self,
        fault: Fault,
        sentence: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(sentence)
        self.fault: Fault = fault
        self.status = status
        self.retry_after = retry_after
        self.detail = detail


class SetupError(Exception):
    """A model cannot be set up as the settings say; its text is one clear sentence."""


@frozen
class Timeouts:
    """Seconds. A model may think long before its first text, but not fall silent in the middle.

    Attributes:
        connect: for the connection to stand, TLS included.
        first: from asking to the first sign of work; a model that shows its thinking works.
        between: from one sign of work to the next. Pings and comments are none.

    """

    connect: float = field(default=10.0)
    first: float = field(default=120.0)
    between: float = field(default=60.0)
