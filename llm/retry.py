"""What to do when a model did not answer: decisions only, nothing here waits or asks.

| fault | then |
| --- | --- |
| broken, unreachable, stalled, garbled, cut, overloaded, busy | again after a while; next model |
| key, not_found | next model |
| too_long | once more without the oldest messages |
| refused, policy | tell the user |

After the first text all of them are told: what a person has read is not taken back.
"""

import random
from typing import TypeAlias

from attrs import define, evolve, frozen

from llm.provider import ChatMessage, Fault, ModelError, Request

AGAIN: frozenset[Fault] = frozenset(
    {"broken", "unreachable", "stalled", "garbled", "cut", "overloaded", "busy"}
)
NEXT: frozenset[Fault] = frozenset({"key", "not_found"})

CHARS_PER_TOKEN = 4  # of English text; other languages take more tokens, code about as many
TOKENS_PER_MESSAGE = 4  # what chat templates put around a message
DROPPED = 0.5  # the share of a prompt that is dropped where the model's context is not known


class Unavailable(ModelError):
    """The model was not even asked: its breaker is open, or too many wait for it."""


@frozen
class Again:
    """Ask the same model, `after` seconds."""

    after: float


@frozen
class Next:
    """Ask the next model."""


@frozen
class Shorter:
    """Ask the same model without the oldest messages."""


@frozen
class Tell:
    """Give up; the error is the user's to know."""


Step: TypeAlias = Again | Next | Shorter | Tell


@frozen
class Patience:
    """How hard a call tries.

    Attributes:
        attempts: requests to models in one call, all in all. It is also the most that an
            owner pays for one reply.
        attempts_each: requests to one model. Two hiccups in a row happen, three mean that
            it is down.
        first_pause: seconds; the longest pause before the second attempt. It doubles.
        longest_pause: seconds; a person who waits for longer thinks nothing happens.
        longest_wait: seconds; a model that wants to be left alone for longer is passed over.

    """

    attempts: int = 6
    attempts_each: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0
    longest_wait: float = 20.0


@define
class Tries:
    """Where a call stands.

    Attributes:
        asked: requests made so far, to any model.
        here: tries of this model, those that were not let through to it included.
        more: there is another model to ask.
        begun: some text was shown.
        shortened: the prompt was shortened already.

    """

    asked: int = 0
    here: int = 0
    more: bool = False
    begun: bool = False
    shortened: bool = False


def decide(
    error: ModelError, tries: Tries, patience: Patience, left: float, chance: random.Random
) -> Step:
    """Say what to do after a failed try.

    Args:
        error: how it failed.
        tries: what was done so far, this try included.
        patience: the bounds.
        left: seconds until the deadline of the call.
        chance: for the pauses.

    """
    if tries.begun or tries.asked >= patience.attempts:
        return Tell()
    elsewhere: Step = Next() if tries.more else Tell()
    if error.fault == "too_long":
        return elsewhere if tries.shortened else Shorter()
    if error.fault in NEXT:
        return elsewhere
    if error.fault not in AGAIN:
        return Tell()
    if isinstance(error, Unavailable) and (tries.more or error.retry_after is None):
        return elsewhere
    after = pause(error.retry_after, tries.here, patience, chance)
    too_late = after is None or after >= left or tries.here >= patience.attempts_each
    return elsewhere if after is None or too_late else Again(after)


def pause(
    retry_after: float | None, tries: int, patience: Patience, chance: random.Random
) -> float | None:
    """Seconds to wait after so many tries, or None if that would be for too long.

    Full jitter: any length up to the bound is as likely, so that those who failed together
    do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    What the other side asks for is the least; the jitter comes on top.
    """
    bound = min(patience.longest_pause, patience.first_pause * 2 ** max(0, tries - 1))
    if retry_after is None:
        return chance.uniform(0, bound)
    if retry_after > patience.longest_wait:
        return None
    return retry_after + chance.uniform(0, min(bound, patience.first_pause))


def tokens_in(messages: tuple[ChatMessage, ...]) -> int:
    """Estimate the tokens of a prompt."""
    return sum(TOKENS_PER_MESSAGE + len(m.said) // CHARS_PER_TOKEN for m in messages)


def shortened(request: Request, context: int | None) -> Request | None:
    """Drop the oldest of what was said, system messages excepted; None if nothing is left to drop.

    Args:
        request: what was too long.
        context: tokens that the model takes, prompt and reply together, if that is known.

    """
    total = tokens_in(request.messages)
    room = int(total * DROPPED)
    if context is not None:
        room = min(total - 1, max(room // 2, context - request.max_tokens))
    system = tuple(m for m in request.messages if m.role == "system")
    said = [m for m in request.messages if m.role != "system"]
    used = tokens_in(system)
    first = len(said)
    while first > 0 and (used := used + tokens_in((said[first - 1],))) <= room:
        first -= 1
    kept = said[min(first, len(said) - 1) :] if said else []
    if len(kept) == len(said):
        return None
    return evolve(request, messages=(*system, *kept))
