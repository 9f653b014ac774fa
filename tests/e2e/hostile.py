"""A model that answers with what hostile people would have it say, cut wherever it hurts.

Reply number n is payload number n, in pieces of one, two, three, … characters. After all of
them it fails a few times, and the payload is what its error says.
"""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import msgspec
import trio

from llm.provider import ModelError, Request

PAYLOADS: dict[str, list[str]] = {
    group["kind"]: group["texts"]
    for group in msgspec.json.decode(Path(__file__).with_name("payloads.json").read_bytes())
}
TEXTS = [text for texts in PAYLOADS.values() for text in texts]

# After all payloads were said, so many replies fail.
FAILURES = 20

_turns = count()


async def answer(request: Request) -> AsyncIterator[str]:
    """Stream the next payload, or fail with it."""
    if request.messages[0].content.startswith("You keep the record"):
        yield TEXTS[0]  # a summary of what no longer fits: nobody sees it, and it is no reply
        return
    rounds, number = divmod(next(_turns), len(TEXTS))
    if rounds == 1 and number < FAILURES:
        yield "<img src=x onerror="
        raise ModelError("refused", TEXTS[number])
    for piece in pieces(TEXTS[number]):
        yield piece
        await trio.lowlevel.checkpoint()


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces that grow."""
    start = 0
    for size in count(1):
        if start >= len(text):
            return
        yield text[start : start + size]
        start += size
