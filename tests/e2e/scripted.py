"""A model that fails when it is told to: once for each prompt that says so."""

from collections.abc import AsyncIterator

import trio

from llm.provider import ModelError, Request

_failed: set[str] = set()


async def answer(request: Request) -> AsyncIterator[str]:
    """Stream some words, or break off after a few."""
    asked = request.messages[-1].content
    for number in range(12):
        if number == 3 and "please fail" in asked and asked not in _failed:
            _failed.add(asked)
            raise ModelError("overloaded", "The model has too much to do.")
        yield f"word{number} "
        await trio.sleep(0.02)
