"""Summaries of what no longer fits into prompts: made by the model, once, kept with the room.

After a turn a room's `Summaries` looks whether something is due. If so it asks the model, in a
task of its own that the room owns, so that no turn waits for it; when it is done, prompts have
the summary in place of the messages that are in it. What fails is logged and tried again after
a later turn. Whispers are never in it: everybody's replies know it.
"""

import logging
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from hub.errors import Unavailable
from hub.persona import persona
from hub.records import Message, Room, Summary
from hub.scene import PAST, budget_of, scene_of
from hub.store.contract import StoreError
from hub.text import sound
from llm import provider as llm
from llm.character import Line, Scene, summary_prompt, to_summarise

if TYPE_CHECKING:
    from hub.room import LiveRoom

logger = logging.getLogger(__name__)

SECONDS = 180.0
"""What one summary may take: nobody waits for it, but a call that hangs must end."""

AGAIN_SECONDS = 60.0
"""After a failure: a model that is down is not asked at each turn."""

MOST_LINES = 3 * PAST // 4
"""More lines than this are summed up even if they would fit: only the newest `PAST` are read."""

MAX_TOKENS = 800
"""Of one summary: 250 words are asked for, in languages that take three tokens a word as well."""

MAX_CHARS = 8_000
"""Of one summary, whatever the model makes of it."""

TEMPERATURE = 0.3
"""It should keep to what was said."""


class _Unusable(Exception):
    """What the model made is no summary."""


class Summaries:
    """See the module's own text."""

    def __init__(self, room: "LiveRoom") -> None:
        self._room = room
        self._busy = False
        self._not_before = -float("inf")

    def known(self, before: str) -> Summary | None:
        """Return the summary that a reply may go on which knows nothing after `before`."""
        summary = self._kept()
        return summary if summary is not None and summary.upto < before else None

    def look(self, waiting: Container[str]) -> None:
        """Have a summary made if one is due; `waiting` are ids of prompts not answered yet."""
        room = self._room
        demo = llm.is_demo(room.services.provider, room.record.model)
        if self._busy or demo or trio.current_time() < self._not_before:
            return

        async def run() -> None:
            await self._make(waiting)

        self._busy = room.start(run)

    def _kept(self) -> Summary | None:
        summary = self._room.record.summary
        if summary is UNSET or summary is None:
            return None
        days = self._room.services.settings.retention_days
        return None if days and summary.since < _before(days) else summary

    async def _make(self, waiting: Container[str]) -> None:
        try:
            with trio.fail_after(SECONDS):
                await self._sum_up(waiting)
        except (llm.ModelError, StoreError, Unavailable, _Unusable, trio.TooSlowError) as error:
            reason = str(error) or f"it took longer than {SECONDS:g} s"
            logger.warning("no summary of room %s: %s", self._room.id, reason)
            self._not_before = trio.current_time() + AGAIN_SECONDS
        except Exception:  # a fault of ours must not end all rooms
            logger.exception("no summary of room %s", self._room.id)
            self._not_before = trio.current_time() + AGAIN_SECONDS
        finally:
            self._busy = False

    async def _sum_up(self, waiting: Container[str]) -> None:
        room = self._room
        messages = await room.transcript.newest(None, PAST)
        earlier = self._kept()
        budget = budget_of(room.services.settings)
        lines = due(room.record, messages, waiting, earlier, budget=budget)
        if not lines:
            return
        said = {one.id: one for one in messages}
        text = await self._asked(lines, said, earlier.text if earlier else "", budget)
        since = earlier.since if earlier else said[lines[0].id].at
        summary = Summary(text, upto=lines[-1].id, since=since)
        await room.change(lambda _: {"summary": summary})

    async def _asked(
        self, lines: Sequence[Line], said: dict[str, Message], earlier: str, budget: int
    ) -> str:
        room = self._room
        authors = [said[line.id].author.id for line in lines if line.kind == "human"]
        request = llm.Request(
            messages=summary_prompt(lines, earlier, budget=budget),
            model=room.record.model if room.record.model in _names(room) else None,
            max_tokens=min(MAX_TOKENS, room.services.settings.max_tokens),
            temperature=TEMPERATURE,
            asker=authors[-1] if authors else "",
            place=room.id,
        )
        parts: list[str] = []
        async with room.services.provider.stream(request) as items:
            async for item in items:
                if isinstance(item, str):
                    parts.append(item)
                elif isinstance(item, llm.Answering) and item.demo:
                    raise _Unusable("a stand-in answered, which makes things up")
                elif isinstance(item, llm.Usage) and item.finish == "filter":
                    raise _Unusable("the model refused to sum this up")
        text = sound("".join(parts)).strip()[:MAX_CHARS]
        if not text:
            raise _Unusable("the model said nothing")
        return text


def due(
    room: Room,
    messages: Iterable[Message],
    waiting: Container[str],
    earlier: Summary | None,
    *,
    budget: int,
) -> Sequence[Line]:
    """Return the oldest lines, to be summed up now; none if all that is needed still fits.

    Lines are taken by the order of ids, so that one id parts what is in a summary from what is
    not; so they end before the first message that is not done with.

    Args:
        room: whose characters need it; the one with the least room for lines decides.
        messages: the newest of the room, oldest first, without whispers.
        waiting: ids of prompts that are not answered yet.
        earlier: the summary so far.
        budget: tokens of a prompt.

    """
    after = earlier.upto if earlier else ""
    fresh = [one for one in messages if one.id > after]
    done = list(takewhile(lambda one: one.status != "running" and one.id not in waiting, fresh))
    said = [one for one in done if one.status != "failed"]
    wanted: Sequence[Line] = ()
    for character in room.cast:
        scene = scene_of(room, character, (), said, (), earlier.text if earlier else "")
        lines = _too_many(scene) or to_summarise(persona(character), scene, budget=budget)
        wanted = max(wanted, lines, key=len)
    return wanted


def _too_many(scene: Scene) -> Sequence[Line]:
    return scene.lines[: len(scene.lines) // 2] if len(scene.lines) > MOST_LINES else ()


def _before(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")


def _names(room: "LiveRoom") -> Sequence[str]:
    return llm.names_of(room.services.provider)
