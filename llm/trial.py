"""`hubbub models`: lists the models, and asks each a small question."""

from collections.abc import Iterable, Sequence

import trio
from attrs import evolve, frozen

from llm.call import Model
from llm.provider import ModelError, Request

PATIENCE = 60.0  # s for the whole of it; a model that needs longer is of no use in a chat
QUESTION = "Say hello in one short sentence."
MOST_TOKENS = 40
MOST_CHARS = 80  # of the answer that are shown


@frozen
class Trial:
    """How it went.

    Attributes:
        model: the one that was asked.
        text: the beginning of what it said, on one line.
        trouble: what went wrong, as a sentence; empty if it answered.
        seconds_to_first, seconds: from asking to the first text, and to the end.

    """

    model: Model
    text: str = ""
    trouble: str = ""
    seconds_to_first: float | None = None
    seconds: float = 0.0


async def try_model(model: Model) -> Trial:
    """Ask it once, past all queues and limits."""
    start = trio.current_time()
    first: float | None = None
    text = trouble = ""
    request = evolve(Request.of(QUESTION), max_tokens=MOST_TOKENS)
    try:
        with trio.move_on_after(PATIENCE) as scope:
            async with model.provider.stream(request) as items:
                async for item in items:
                    if isinstance(item, str):
                        first = first or trio.current_time()
                        text += item
    except ModelError as error:
        trouble = str(error)
    if scope.cancelled_caught:
        trouble = f"It did not answer within {PATIENCE:g} s."
    elif not text and not trouble:
        trouble = "It said nothing."
    return Trial(
        model,
        " ".join(text.split())[:MOST_CHARS],
        trouble,
        None if first is None else first - start,
        trio.current_time() - start,
    )


def shown(models: Sequence[Model]) -> str:
    """Lay the models out in columns; the first one answers if nobody picks another."""
    head = ("name", "provider", "model", "at once", "context", "price in/out")
    lines = [head, *(_cells(model) for model in models)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(_line(line, widths) for line in lines)


def told(trial: Trial) -> str:
    """Put a trial into a line."""
    if trial.trouble:
        return f"{trial.model.name}: FAILED. {trial.trouble}"
    times = f"first text after {trial.seconds_to_first:.2f} s, {trial.seconds:.2f} s in all"
    return f"{trial.model.name}: ok, {times}: {trial.text}"


def _cells(model: Model) -> tuple[str, ...]:
    price = "-" if model.price is None else f"{model.price.input:g}/{model.price.output:g}"
    context = "-" if model.context is None else str(model.context)
    provider = f"{model.provider.name} (demo)" if model.provider.demo else model.provider.name
    return (model.name, provider, model.provider.model, str(model.limits.calls), context, price)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
