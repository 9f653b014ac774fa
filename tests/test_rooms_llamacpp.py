"""A real llama.cpp in a room: it goes on with a reply that was stopped, and sums up the past."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import UNSET

from hub.records import Room
from llm.local import LocalModel
from tests.hubs import Running, running_hub
from tests.models import WORDS, endless_model, llamacpp
from tests.sockets import PATIENCE

__all__ = ["endless_model", "llamacpp"]  # the fixtures that the tests here use

pytestmark = pytest.mark.llamacpp


@asynccontextmanager
async def a_hub(model_file: Path, **settings: Any) -> AsyncIterator[Running]:
    model = LocalModel(model_file)
    async with model.running(), running_hub(model, **settings) as running:
        yield running
    await model.aclose()


async def test_a_reply_that_was_stopped_goes_on(endless_model: Path) -> None:
    # Long enough not to end by itself before it is stopped.
    async with a_hub(endless_model, max_tokens=1500) as running, running.connect() as ada:
        room = (await ada.call("create_room"))["room"]["id"]
        await ada.prompt(room, "Tell me something.")
        first = (await ada.event("message_start"))["message"]
        await ada.event("token")
        await ada.call("stop", room=room)
        assert (await ada.event("message_end", id=first["id"]))["status"] == "stopped"
        await ada.event("turn", state="done")
        so_far = (await ada.call("read_messages", room=room))["messages"][-1]["text"]
        assert so_far
        await ada.call("continue_reply", room=room, message=first["id"])
        await ada.event("message_end", status="done")
        await ada.event("turn", state="done")
        prompt, whole = (await ada.call("read_messages", room=room))["messages"]
        assert prompt["text"] == "Tell me something."
        assert whole["text"].startswith(so_far)
        assert len(whole["text"]) > len(so_far)


async def test_what_no_longer_fits_is_summed_up_and_kept(endless_model: Path) -> None:
    small = a_hub(endless_model, max_tokens=60, context_tokens=700)
    async with small as running, running.connect() as ada:
        room = (await ada.call("create_room"))["room"]["id"]
        with trio.fail_after(6 * PATIENCE):
            while not (summary := summary_of(await running.hub.store.room(room))):
                await ada.prompt(room, "What comes next in the long story? " * 8)
                await ada.event("turn", state="done")
        assert set(summary.split()) <= set(WORDS)
        told = await ada.call("join_room", room=room)
        assert "summary" not in told["room"]


def summary_of(room: Room | None) -> str:
    assert room is not None
    return "" if room.summary is UNSET or room.summary is None else room.summary.text
