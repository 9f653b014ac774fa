"""A provider that needs no model: it makes up sentences, and says so."""

import random
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import trio

from llm.provider import Finish, Item, Request, SetupError, Usage
from llm.stops import Stops

DEFAULT_RATE = 40.0  # tokens a second: about what a small model does on a laptop
MAX_ECHO = 8  # words of the question that are said again
SENTENCES = (3, 6)  # how many follow the opening, at least and at most

OPENINGS = (
    "This is the demo speaking: no model is set up here, so I make my sentences up.",
    "I am only the demo, and there is no model behind me.",
    "No model is connected yet; what you read comes from the built-in demo.",
    "Just so you know, a demo answers here, not a model.",
)
ECHOES = (
    "You wrote “{echo}”, and I wish I could understand it.",
    "“{echo}” is a fine thing to ask somebody who can think.",
    "Were I a model, I would now say something clever about “{echo}”.",
)
FILLERS = (
    "Somewhere a lighthouse keeper is counting gulls and has lost count twice.",
    "The kettle has opinions about the weather, but it keeps them under its lid.",
    "A snail crossed the garden overnight and told nobody why.",
    "Three spoons went missing on Tuesday, and the fork looks guilty.",
    "My favourite colour is the one just before the screen goes dark.",
    "Every library has a book that was never opened, and it is proud of that.",
    "A bicycle dreams of stairs in the way that you dream of falling.",
    "There is a small town where all the clocks agree to be four minutes late.",
    "The moon was asked for a comment and went behind a cloud.",
    "An umbrella is just a roof that likes to travel.",
    "If you listen closely, the fridge is humming in a minor key.",
    "Nobody has ever seen a pigeon read, which proves nothing.",
)

# A word with the space before it, as models cut their tokens. Line ends count as spaces.
TOKEN = re.compile(r"\s*\S+")


class Demo:
    """Streams made-up sentences at a steady rate; its replies are marked as such everywhere."""

    name = "demo"
    model = "demo"
    demo = True

    def __init__(self, *, rate: float = DEFAULT_RATE, chance: random.Random | None = None) -> None:
        """Build it.

        Args:
            rate: tokens a second, more than 0.
            chance: where its choices come from; a seeded one gives the same replies again.

        Raises:
            SetupError: the rate is not a positive number.

        """
        if not 0 < rate < float("inf"):
            raise SetupError(f"The demo's rate must be a number above 0, not {rate:g}.")
        self._rate = rate
        self._chance = chance or random.Random()  # noqa: S311  nothing secret

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[Item]]:
        """Answer; see `llm.provider`."""
        async with aclosing(self._items(request)) as items:
            yield items

    async def aclose(self) -> None:
        """Do nothing: there is nothing to give back."""

    async def _items(self, request: Request) -> AsyncGenerator[Item, None]:
        start = trio.current_time()
        stops = Stops(request.stop)
        tokens = TOKEN.findall(self._reply(request))
        made = tokens[: request.max_tokens]
        for count, token in enumerate(made, 1):
            # From the start, not from the last token, so that the rate does not drift.
            await trio.sleep_until(start + count / self._rate)
            if text := stops.feed(token):
                yield text
            if stops.hit:
                break
        if rest := stops.end():
            yield rest
        finish: Finish = "stop" if stops.hit or len(made) == len(tokens) else "length"
        yield Usage(
            model=self.model,
            input_tokens=sum(len(m.content.split()) for m in request.messages),
            output_tokens=len(made),
            finish=finish,
            seconds_to_first=1 / self._rate,
            seconds=trio.current_time() - start,
        )

    def _reply(self, request: Request) -> str:
        chance = self._chance
        sentences = [chance.choice(OPENINGS)]
        words = request.prompt.split()
        if words:
            echo = " ".join(words[:MAX_ECHO]) + (" …" if len(words) > MAX_ECHO else "")
            sentences.append(chance.choice(ECHOES).replace("{echo}", echo))
        sentences += chance.sample(FILLERS, chance.randint(*SENTENCES))
        goes_on = bool(request.messages) and request.messages[-1].role == "assistant"
        return (" " if goes_on else "") + " ".join(sentences)
